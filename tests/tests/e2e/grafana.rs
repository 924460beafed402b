//! Each SQL panel of the dashboard on the database runs with the reader's rights, and sums what was published.

use anyhow::{Context, Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::servers::connect;
use e2e::servers::place::clone_root;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::platform::{Flavor, Platform};

crate::in_both_flavors!(sql_panels_say_what_was_published);

/// What Grafana makes of a statement: its macros for the range, and every value of its variables.
fn expanded(sql: &str) -> String {
    sql.replace("$__timeFrom()", "now() - interval '30 days'")
        .replace("$__timeTo()", "now() + interval '1 hour'")
        .replace(
            "${organization:sqlstring}",
            "SELECT org_id::text FROM usage_daily",
        )
        .replace("${model:sqlstring}", "SELECT model_name FROM usage_daily")
}

async fn sql_panels_say_what_was_published(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 177,
        organizations: 3,
        start: end - Duration::minutes(5),
        end,
    };
    let events: Vec<Event> = Generator::new(&shape).take(500).collect();
    let publisher = platform.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    platform.wait_stored(500, 0).await?;

    let text = std::fs::read_to_string(clone_root().join("deploy/grafana/usage.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let reader = connect(&platform.url_of("reader")?).await?;
    let raw = "SELECT sum(total_tokens)::float8, sum(cost)::float8, count(*)::float8 FROM usage_events";
    let raw = reader.query_one(raw, &[]).await?;
    let (tokens, cost, requests): (f64, f64, f64) = (raw.get(0), raw.get(1), raw.get(2));
    let mut panels = 0;
    for panel in dashboard["panels"].as_array().context("panels")? {
        let Some(sql) = panel["targets"][0]["rawSql"].as_str() else {
            continue;
        };
        let title = panel["title"].as_str().context("a title")?;
        let (measure, expected) = match title {
            _ if title.starts_with("Tokens") => ("value", tokens),
            _ if title.starts_with("Cost") => ("value", cost),
            _ => ("requests", requests),
        };
        let summed = format!("SELECT sum({measure})::float8 FROM ({}) AS panel", expanded(sql));
        let found: f64 = reader
            .query_one(&summed, &[])
            .await
            .context(title.to_owned())?
            .get(0);
        ensure!(
            (found - expected).abs() < 1e-6,
            "{title}: {found}, not {expected}"
        );
        panels += 1;
    }
    ensure!(panels == 6, "{panels} panels");
    for variable in dashboard["templating"]["list"].as_array().context("variables")? {
        if let Some(sql) = variable["query"].as_str().filter(|sql| sql.starts_with("SELECT")) {
            ensure!(!reader.query(&expanded(sql), &[]).await?.is_empty(), "{sql}");
        }
    }
    Ok(())
}
