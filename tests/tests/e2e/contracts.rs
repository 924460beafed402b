//! `contracts/dashboard-queries.sql`: each query runs by psql on the migrated schema, and says what the
//! API says.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use e2e::api;
use e2e::generator::{Event, Generator, Shape, decimal};
use e2e::servers::place::clone_root;
use e2e::truth::Measures;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, Time};

use crate::platform::{Flavor, Platform, system_admin};

crate::in_both_flavors!(dashboard_queries_say_what_the_api_says);

/// The named queries of the contract: `-- name: x`, up to the next.
fn queries() -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(clone_root().join("contracts/dashboard-queries.sql"))?;
    let named = text.split("\n-- name: ").skip(1).map(|part| {
        let (name, sql) = part.split_once('\n').context("a query has a name and a text")?;
        Ok((name.trim().to_owned(), sql.to_owned()))
    });
    named.collect()
}

/// What psql prints of a query: a row a line, columns by name.
async fn psql(url: &str, sql: &str, variables: &[(&str, &str)]) -> Result<Vec<BTreeMap<String, String>>> {
    let mut command = tokio::process::Command::new("psql");
    command.args([
        "-X",
        "-q",
        "-A",
        "-F",
        "|",
        "-P",
        "footer=off",
        "-v",
        "ON_ERROR_STOP=1",
    ]);
    for (name, value) in variables {
        command.arg("-v").arg(format!("{name}={value}"));
    }
    let mut child = command
        .arg(url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe to psql")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, format!("SET timezone = 'UTC';\n{sql}").as_bytes())
        .await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "psql: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().context("a header")?.split('|').collect();
    Ok(lines
        .map(|line| {
            header
                .iter()
                .map(ToString::to_string)
                .zip(line.split('|').map(str::to_owned))
                .collect()
        })
        .collect())
}

fn measures(row: &BTreeMap<String, String>) -> Result<Measures> {
    let number = |name: &str| -> Result<i64> { Ok(row.get(name).with_context(|| name.to_owned())?.parse()?) };
    Ok(Measures {
        requests: number("requests")?,
        errors: number("errors")?,
        input_tokens: number("input_tokens")?,
        output_tokens: number("output_tokens")?,
        total_tokens: number("total_tokens")?,
        cost_e10: decimal::e10(row.get("cost").context("cost")?).context("cost")?,
    })
}

async fn dashboard_queries_say_what_the_api_says(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    let now = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 61,
        organizations: 4,
        start: now - Duration::days(40),
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
    let service = platform.api(&[]).await?;
    let admin = system_admin(&service)?;

    let midnight = now.replace_time(Time::MIDNIGHT);
    let org_id = generator.organizations()[0].to_string();
    let (start, end) = (
        (midnight - Duration::days(29)).format(&Rfc3339)?,
        (midnight + Duration::DAY).format(&Rfc3339)?,
    );
    let variables = [("org_id", &*org_id), ("start_time", &*start), ("end_time", &*end)];
    let span = [("start_time", &*start), ("end_time", &*end), ("limit", "1000")];
    let reader = platform.url_of("reader")?;
    let expected: BTreeMap<&str, (String, &str)> = BTreeMap::from([
        ("tokens_by_day", (format!("orgs/{org_id}/usage"), "day")),
        ("tokens_by_user", (format!("orgs/{org_id}/users"), "user_id")),
        ("org_usage", (format!("orgs/{org_id}/usage"), "day")),
        ("org_users", (format!("orgs/{org_id}/users"), "user_id")),
        ("org_models", (format!("orgs/{org_id}/models"), "model")),
        ("system_usage", ("system/usage".to_owned(), "day")),
        ("system_orgs", ("system/orgs".to_owned(), "org_id")),
        ("system_models", ("system/models".to_owned(), "model")),
    ]);
    let queries = queries()?;
    let names: Vec<&str> = queries
        .keys()
        .map(String::as_str)
        .filter(|name| *name != "freshness")
        .collect();
    ensure!(names == expected.keys().copied().collect::<Vec<_>>(), "{names:?}");
    for (name, (path, key)) in &expected {
        let rows = psql(&reader, &queries[*name], &variables).await?;
        let answer = admin.get(path, &span).await?;
        let answered: BTreeMap<String, Measures> = match *key {
            "day" => api::buckets(&answer)?
                .into_iter()
                .map(|(day, measures)| (day.date().to_string(), measures))
                .collect(),
            key => api::rows(&answer, key)?,
        };
        let mut by_query = BTreeMap::new();
        for row in &rows {
            let id = row
                .get(*key)
                .with_context(|| format!("{name} has no column {key}"))?;
            let id = if *key == "day" {
                id.get(..10).unwrap_or_default()
            } else {
                id
            };
            by_query.insert(id.to_owned(), measures(row)?);
        }
        ensure!(
            !by_query.is_empty() && by_query.len() == rows.len(),
            "{name}: {} rows",
            rows.len()
        );
        ensure!(
            by_query == answered,
            "{name}: psql says {by_query:?}, the API {answered:?}"
        );
    }
    let freshness = psql(&reader, &queries["freshness"], &[]).await?;
    ensure!(
        freshness.len() == 1 && freshness[0].contains_key("counted_through"),
        "{freshness:?}"
    );
    let api_says: &Value = &admin.get("system/usage", &span).await?["freshness"];
    ensure!(
        api_says["counted_through"].is_string() != freshness[0]["counted_through"].is_empty(),
        "{api_says} {freshness:?}"
    );
    Ok(())
}
