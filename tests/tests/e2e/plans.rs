//! Queries read rollups, in every zone; raw events only where a range has an edge inside a quarter of an hour.

use std::collections::BTreeSet;

use analytics_core::calendar::{BucketWidth, Buckets, Zone};
use analytics_core::query::usage::{Ask, Rows};
use analytics_core::query::{Dimension, Filter, Question, Scope, Statement, freshness};
use analytics_core::range::TimeRange;
use analytics_core::rollup::Kept;
use anyhow::{Context, Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use serde_json::Value;
use time::macros::datetime;
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

    let row = platform
        .owner
        .query_one(freshness::statement().sql(), &[])
        .await?;
    let kept = freshness::answer(&row)?.kept;
    let midnight = now.replace_time(Time::MIDNIGHT);
    let days = TimeRange::new(midnight - Duration::days(15), midnight)?;
    let odd = TimeRange::new(midnight - Duration::days(15) + Duration::SECOND, midnight)?;
    let organization = Scope::Organization(generator.organizations()[0]);
    let user = Filter {
        user_ids: vec![events[0].fact.user_id],
        ..Filter::default()
    };
    let all = Filter::default();

    let mut from_rollups: Vec<Statement> = Vec::new();
    for scope in [Scope::System, organization] {
        for zone in ["UTC", "Europe/Berlin", "Asia/Kathmandu"] {
            for width in [
                BucketWidth::QuarterHour,
                BucketWidth::Hour,
                BucketWidth::Day,
                BucketWidth::Month,
            ] {
                from_rollups.push(statement(&asked(scope, days, &all, width, zone)?, kept)?);
            }
        }
        for dimension in [
            Dimension::User,
            Dimension::ApiKey,
            Dimension::Model,
            Dimension::Status,
            Dimension::Organization,
        ] {
            let mut ask = asked(scope, days, &all, BucketWidth::All, "UTC")?;
            ask.group_by = vec![dimension];
            ask.rows = Rows::Ranked { top: 10 };
            ask.latency = true;
            from_rollups.push(statement(&ask, kept)?);
        }
        for zone in ["UTC", "America/New_York", "Asia/Kathmandu"] {
            for width in [BucketWidth::QuarterHour, BucketWidth::Day] {
                from_rollups.push(statement(&asked(scope, days, &user, width, zone)?, kept)?);
            }
        }
    }
    for statement in &from_rollups {
        let read = relations(&platform, statement).await?;
        ensure!(
            !read.is_empty() && !read.contains("usage_events"),
            "{} reads {read:?}",
            statement.sql()
        );
    }
    // The coarsest rung that knows what is asked.
    let mut users = asked(organization, days, &all, BucketWidth::All, "UTC")?;
    users.group_by = vec![Dimension::User];
    let mut organizations = asked(Scope::System, days, &all, BucketWidth::Day, "UTC")?;
    organizations.group_by = vec![Dimension::Organization];
    for (ask, expected) in [
        (
            asked(organization, days, &user, BucketWidth::Day, "UTC")?,
            vec!["closed_daily_by_user"],
        ),
        (
            users.clone(),
            vec!["closed_daily_by_user", "closed_weekly_by_key"],
        ),
        (
            asked(organization, days, &user, BucketWidth::Hour, "UTC")?,
            vec!["usage_quarter_hourly_by_user"],
        ),
        (
            asked(Scope::System, days, &all, BucketWidth::Day, "UTC")?,
            vec!["closed_system_daily"],
        ),
        (organizations, vec!["closed_daily_by_org"]),
    ] {
        let read = relations(&platform, &statement(&ask, kept)?).await?;
        ensure!(
            read == expected.iter().map(|name| (*name).to_owned()).collect(),
            "{read:?} are read in place of {expected:?}"
        );
    }
    // Sums of single chunks would be passed on serialized, for every user of every chunk.
    users.group_by = vec![Dimension::User, Dimension::Model];
    let of_one_relation = statement(&users, kept)?;
    users.group_by = vec![Dimension::User];
    for statement in [of_one_relation, statement(&users, kept)?] {
        let plan = explained(&platform, &statement).await?.to_string();
        ensure!(!plan.contains(r#""Partial Mode":"Partial""#), "{plan}");
    }
    let with_edges = statement(&asked(organization, odd, &all, BucketWidth::Day, "UTC")?, kept)?;
    let read = relations(&platform, &with_edges).await?;
    ensure!(
        read.contains("usage_events") && read.len() > 1,
        "an edge reads {read:?}"
    );
    Ok(())
}

fn asked(scope: Scope, range: TimeRange, filter: &Filter, width: BucketWidth, zone: &str) -> Result<Ask> {
    let zone = Zone::named(zone).context("a zone")?;
    Ok(Ask {
        name: "plan",
        question: Question {
            scope,
            range,
            filter: filter.clone(),
        },
        buckets: Buckets::new(range, width, &zone),
        group_by: Vec::new(),
        rows: Rows::Buckets {
            from: 0,
            limit: 100,
            filled: false,
            top: None,
        },
        latency: false,
        token_details: false,
        before: None,
        // No part of a range is empty because it is still to come.
        now: datetime!(2099-12-31 0:00 UTC),
    })
}

fn statement(ask: &Ask, kept: Kept) -> Result<Statement> {
    let plan = ask.plan(kept);
    plan.map(|plan| plan.first())
        .map_err(|why| anyhow::anyhow!("{why:?}"))
}

async fn explained(platform: &Platform, statement: &Statement) -> Result<Value> {
    let row = platform
        .owner
        .query_one(
            &format!("EXPLAIN (FORMAT JSON) {}", statement.sql()),
            &statement.param_refs(),
        )
        .await
        .with_context(|| statement.sql().to_owned())?;
    Ok(row.get(0))
}

/// The tables that a plan reads, partitions and chunks by the name of what they are part of.
async fn relations(platform: &Platform, statement: &Statement) -> Result<BTreeSet<String>> {
    let plan = explained(platform, statement).await?;
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
