//! What the API does not answer: what is no longer kept, and what would be too much. Each refusal says what can
//! be asked instead, or what the limit is.

use anyhow::{Context, Result, ensure};
use e2e::api::Client;
use e2e::truth::Question;
use reqwest::StatusCode;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, Time};

use crate::platform::{Flavor, system_admin};
use crate::questions::{Published, publish};

crate::in_both_flavors!(what_is_gone_or_too_much_is_refused);

async fn what_is_gone_or_too_much_is_refused(flavor: Flavor) -> Result<()> {
    let Published {
        platform,
        truth,
        organizations,
        now,
    } = publish(flavor, 74, 4_000, 80).await?;
    let service = platform.api(&[]).await?;
    let admin = system_admin(&service)?;
    let org_id = organizations[0];
    let (usage, users) = (format!("orgs/{org_id}/usage"), format!("orgs/{org_id}/users"));
    let midnight = now.replace_time(Time::MIDNIGHT);
    let days_ago = |days: i64| midnight - Duration::days(days);
    let written = |instant: OffsetDateTime| instant.format(&Rfc3339);

    platform.maintain().await?;

    // Everything is there: a user's local days are counted from quarters of an hour.
    let (start, end) = (
        days_ago(50) - Duration::hours(5),
        days_ago(30) - Duration::hours(5),
    );
    let (from, until) = (written(start)?, written(end)?);
    let local = [
        ("start_time", &*from),
        ("end_time", &*until),
        ("time_zone", "Asia/Karachi"),
        ("limit", "1000"),
    ];
    let answer = admin.get(&users, &local).await?;
    ensure!(
        e2e::api::measures(&answer["totals"])? == truth.total(&Question::of(org_id).between(start, end)),
        "{answer}"
    );

    // Then what is as fine as that is dropped after forty days, and other rollups after seventy.
    let (raw_since, rollups_since) = (days_ago(40), days_ago(70));
    platform
        .owner
        .execute(
            "UPDATE ingest_window SET floor = $1, rollups_since = $2",
            &[&raw_since, &rollups_since],
        )
        .await?;
    let error = refused(&admin, &users, &local).await?;
    ensure!(error["parameter"] == "start_time", "{error}");
    ensure!(detail(&error).contains(&written(raw_since)?), "{error}");
    ensure!(error["allowed"][0] == written(days_ago(51))?, "{error}");
    let nearest = written(days_ago(51))?;
    let whole_days = [
        ("start_time", &*nearest),
        ("end_time", &*until),
        ("time_zone", "Asia/Karachi"),
    ];
    admin.get(&users, &whole_days).await?;
    // Models have quarters of an hour for longer.
    admin.get(&format!("orgs/{org_id}/models"), &local).await?;

    let too_old = written(days_ago(71))?;
    let error = refused(&admin, "system/usage", &[("start_time", &too_old)]).await?;
    ensure!(error["parameter"] == "start_time", "{error}");
    ensure!(detail(&error).contains(&written(rollups_since)?), "{error}");
    ensure!(error["allowed"][0] == written(rollups_since)?, "{error}");
    let kept = written(rollups_since)?;
    let answer = admin.get("system/usage", &[("start_time", &kept)]).await?;
    // A bucket is final once a late event of it would be refused.
    for bucket in answer["data"].as_array().context("data")? {
        let end = bucket["end_time"].as_str().context("an end")?;
        let end = OffsetDateTime::parse(end, &Rfc3339)?;
        let state = match end {
            end if end + Duration::HOUR <= raw_since => "final",
            end if end <= now => "closed",
            _ => "open",
        };
        ensure!(bucket["state"] == state, "{bucket}");
    }

    // A period that cannot be answered is named as that. Last month began four weeks ago or earlier.
    platform
        .owner
        .execute("UPDATE ingest_window SET floor = $1", &[&days_ago(20)])
        .await?;
    let by_user_and_zone = [
        ("period", "last_month"),
        ("time_zone", "Asia/Karachi"),
        ("user_id", USER),
    ];
    let error = refused(&admin, "system/models", &by_user_and_zone).await?;
    ensure!(error["parameter"] == "period", "{error}");
    ensure!(
        error["allowed"][0]
            .as_str()
            .is_some_and(|text| text.starts_with("start_time="))
    );

    // What would be too much says how much there may be.
    let groups = [
        ("group_by", "api_key_id"),
        ("group_by", "model"),
        ("fill", "zero"),
        ("start_time", &*kept),
    ];
    let error = refused(&admin, &usage, &groups).await?;
    ensure!(
        error["parameter"] == "group_by" && detail(&error).contains("10000"),
        "{error}"
    );
    let month = written(days_ago(31))?;
    let minutes = [("bucket_width", "1m"), ("start_time", &*month)];
    let error = refused(&admin, &usage, &minutes).await?;
    ensure!(
        error["parameter"] == "bucket_width" && detail(&error).contains("24 hours"),
        "{error}"
    );
    let error = refused(
        &admin,
        "system/usage",
        &[("bucket_width", "1m"), ("period", "last_24h")],
    )
    .await?;
    ensure!(error["parameter"] == "bucket_width", "{error}");
    Ok(())
}

const USER: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";

fn detail(error: &Value) -> &str {
    error["detail"].as_str().unwrap_or_default()
}

/// The first thing that is wrong.
async fn refused(client: &Client, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
    let (status, body) = client.ask(path, parameters).await?;
    ensure!(
        status == StatusCode::BAD_REQUEST,
        "{path} {parameters:?}: {status} {body}"
    );
    Ok(body["errors"][0].clone())
}
