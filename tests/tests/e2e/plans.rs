//! Queries read rollups; raw events only where a range has an edge inside a bucket, or users are asked
//! for by the hour.

use std::collections::BTreeSet;

use analytics_core::query::{Dimension, Filter, Question, Scope, Statement, ranking, usage};
use analytics_core::range::{BucketWidth, TimeRange};
use anyhow::{Context, Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use serde_json::Value;
use time::{Duration, OffsetDateTime, Time};

use crate::platform::{Flavor, Platform};

crate::in_both_flavors!(queries_read_rollups);

async fn queries_read_rollups(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let worker = platform.worker(&[]).await?;
    let now = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 51,
        organizations: 5,
        start: now - Duration::days(20),
        end: now,
    };
    let mut generator = Generator::new(&shape);
    let events: Vec<Event> = generator.by_ref().take(3_000).collect();
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    platform.wait_stored(3_000, 0).await?;
    platform.maintain().await?;
    drop(worker);

    let midnight = now.replace_time(Time::MIDNIGHT);
    let days = TimeRange::new(midnight - Duration::days(15), midnight + Duration::DAY)?;
    let odd = TimeRange::new(midnight - Duration::days(15) + Duration::SECOND, midnight)?;
    let organization = Scope::Organization(generator.organizations()[0]);
    let user = Filter {
        user_ids: vec![events[0].fact.user_id],
        ..Filter::default()
    };
    let ask = |scope, range, filter: &Filter| Question {
        scope,
        range,
        filter: filter.clone(),
    };
    let all = Filter::default();
    let since = midnight - Duration::days(80);

    let mut from_rollups: Vec<Statement> = Vec::new();
    for scope in [Scope::System, organization] {
        let question = ask(scope, days, &all);
        for width in [BucketWidth::Hour, BucketWidth::Day, BucketWidth::All] {
            from_rollups.push(usage::statement(&question, width, 100, since)?);
        }
        for dimension in [Dimension::User, Dimension::Model, Dimension::Organization] {
            from_rollups.push(ranking::statement(&question, dimension, 100, since)?);
        }
        from_rollups.push(usage::statement(
            &ask(scope, days, &user),
            BucketWidth::Day,
            100,
            since,
        )?);
    }
    for statement in &from_rollups {
        let read = relations(&platform, statement).await?;
        ensure!(
            !read.is_empty() && !read.contains("usage_events"),
            "{} reads {read:?}",
            statement.name
        );
    }
    let with_edges = usage::statement(&ask(organization, odd, &all), BucketWidth::Day, 100, since)?;
    let read = relations(&platform, &with_edges).await?;
    ensure!(
        read.contains("usage_events") && read.len() > 1,
        "an edge reads {read:?}"
    );
    let by_hour = usage::statement(&ask(organization, days, &user), BucketWidth::Hour, 100, since)?;
    let read = relations(&platform, &by_hour).await?;
    ensure!(
        read == BTreeSet::from(["usage_events".to_owned()]),
        "users by the hour read {read:?}"
    );
    Ok(())
}

/// The tables that a plan reads, partitions and chunks by the name of what they are part of.
async fn relations(platform: &Platform, statement: &Statement) -> Result<BTreeSet<String>> {
    let explained = platform
        .owner
        .query_one(
            &format!("EXPLAIN (FORMAT JSON) {}", statement.sql),
            &statement.param_refs(),
        )
        .await
        .with_context(|| statement.sql.clone())?;
    let plan: Value = explained.get(0);
    let mut names = BTreeSet::new();
    collect(&plan, &mut names);
    let mut roots = BTreeSet::new();
    for name in names {
        let root = platform
            .owner
            .query_one(
                "WITH RECURSIVE up AS ( \
                     SELECT oid, relname::text AS name, 0 AS depth FROM pg_class WHERE relname = $1 \
                     UNION ALL SELECT p.oid, p.relname::text, depth + 1 FROM up JOIN pg_inherits i ON i.inhrelid = up.oid \
                     JOIN pg_class p ON p.oid = i.inhparent) \
                 SELECT name FROM up ORDER BY depth DESC LIMIT 1",
                &[&name],
            )
            .await?;
        roots.insert(root.get(0));
    }
    Ok(roots)
}

fn collect(plan: &Value, names: &mut BTreeSet<String>) {
    match plan {
        Value::Object(object) => {
            let name = object.get("Relation Name").and_then(Value::as_str);
            // The columnstore's side of a chunk stands below the chunk that it is of.
            if let Some(name) = name.filter(|name| !name.starts_with("compress_hyper_")) {
                names.insert(name.to_owned());
            }
            object.values().for_each(|value| collect(value, names));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, names)),
        _ => {}
    }
}
