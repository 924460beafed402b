//! The dashboard in a real browser: what it shows is what was published. The browser's side is in `web/browser`.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use e2e::generator::{Event, Fact, Generator, Shape};
use e2e::local;
use e2e::process::Service;
use e2e::servers::place;
use e2e::token::{Claims, SECRET};
use e2e::truth::{Counted, Measures, Question, Truth};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, ZonedDateTime};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use uuid::Uuid;

use crate::platform::{self, Flavor, Platform};

crate::in_both_flavors!(figures_are_the_generators, roles_links_and_back);

/// The running month, and the same days of the one before.
const DAYS: i64 = 62;
const EVENTS: usize = 6_000;
const ZONES: [&str; 3] = ["UTC", "Asia/Kolkata", "America/New_York"];

/// The browser to test with; `make test` says loudly if there is none.
fn browser() -> Option<String> {
    platform::setting("E2E_BROWSER").ok()
}

/// Runs a part of the browser's side; `act` does what it asks for.
async fn run<F: AsyncFnMut(&str) -> Result<String>>(
    part: &str,
    api: &Service,
    told: &Value,
    mut act: F,
) -> Result<()> {
    let mut child = Command::new("node")
        .args(["web/browser/run.mjs", part])
        .current_dir(place::clone_root())
        .env("API_URL", api.url(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("running node")?;
    let mut input = child.stdin.take().context("a pipe")?;
    let mut output = BufReader::new(child.stdout.take().context("a pipe")?).lines();
    input.write_all(format!("{told}\n").as_bytes()).await?;
    while let Some(line) = output.next_line().await? {
        if let Some(wanted) = line.strip_prefix("ask ") {
            let answer = act(wanted).await?;
            input.write_all(format!("{answer}\n").as_bytes()).await?;
        }
    }
    let ended = child.wait_with_output().await?;
    ensure!(
        ended.status.success(),
        "{part}: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    Ok(())
}

async fn nothing_to_do(wanted: &str) -> Result<String> {
    bail!("nobody knows how to do {wanted}")
}

struct Published {
    platform: Platform,
    truth: Truth,
    organizations: Vec<Uuid>,
    now: OffsetDateTime,
}

async fn publish(flavor: Flavor, seed: u64) -> Result<Published> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    let now = OffsetDateTime::now_utc();
    let mut generator = Generator::new(&Shape {
        seed,
        organizations: 12,
        start: now - time::Duration::days(DAYS),
        end: now,
    });
    let events: Vec<Event> = generator.by_ref().take(EVENTS).collect();
    let bodies = events.iter().map(|event| &event.body);
    platform.publisher().await?.publish(bodies).await?;
    platform.wait_stored(i64::try_from(EVENTS)?, 0).await?;
    // Late events show on the timescaledb flavor after this.
    platform.maintain().await?;
    let mut truth = Truth::default();
    truth.extend(events.iter().map(|event| &event.fact));
    Ok(Published {
        platform,
        truth,
        organizations: generator.organizations(),
        now,
    })
}

fn spelled(measures: &Measures) -> Value {
    json!({
        "total_tokens": measures.total_tokens.to_string(),
        "cost": measures.cost(),
        "requests": measures.requests.to_string(),
        "errors": measures.errors.to_string(),
    })
}

fn all_spelled<K: ToString>(groups: BTreeMap<K, Measures>) -> Value {
    let spelled = groups
        .into_iter()
        .map(|(key, measures)| (key.to_string(), spelled(&measures)));
    Value::Object(spelled.collect())
}

/// What the page must show by the calendar of a zone.
fn expected(truth: &Truth, org_id: Uuid, name: &str, now: OffsetDateTime) -> Result<Value> {
    let zone = local::zone(name)?;
    let at = Timestamp::from_nanosecond(now.unix_timestamp_nanos())?.to_zoned_datetime(zone.clone());
    let instant =
        |at: &ZonedDateTime| OffsetDateTime::from_unix_timestamp_nanos(at.timestamp().as_nanosecond());
    let month = at.first_of_month()?.start_of_day()?;
    let last_month = month.checked_sub(1.month())?;
    let midnight = at.start_of_day()?;
    let tomorrow = midnight.checked_add(1.day())?;
    let thirty_days_ago = tomorrow.checked_sub(30.days())?;
    let of = |from: &ZonedDateTime, until: &ZonedDateTime| -> Result<Question> {
        Ok(Question::of(org_id).between(instant(from)?, instant(until)?))
    };
    let range = of(&thirty_days_ago, &tomorrow)?;
    let before = [at.clone(), at.checked_add(15.minutes())?]
        .iter()
        .map(|at| {
            let until = same_time_of_last_month(at, &last_month, &month)?;
            Ok(spelled(&truth.total(&of(&last_month, &until)?)))
        })
        .collect::<Result<Vec<Value>>>()?;
    let days = (0..30)
        .map(|day| {
            Ok(thirty_days_ago
                .checked_add(i64::from(day).days())?
                .timestamp()
                .as_microsecond())
        })
        .collect::<Result<Vec<i64>>>()?;
    let top = top_models(truth, &range);
    let model = |event: &Counted| {
        let has_a_layer = top.contains(&event.model);
        if has_a_layer { event.model } else { "all others" }
    };
    let by_day = |group: &dyn Fn(&Counted) -> &'static str, amount: fn(&Measures) -> String| {
        by_day(truth, &range, &zone, &days, group, amount)
    };
    Ok(json!({
        "zone": name,
        "month": spelled(&truth.total(&of(&month, &tomorrow)?)),
        "before": before,
        "range": spelled(&truth.total(&range)),
        "models": all_spelled(truth.by_model(&range)),
        "users": all_spelled(truth.by_user(&range)),
        "keys": all_spelled(truth.by_key(&range)),
        "tokens": by_day(&model, |measures| measures.total_tokens.to_string())?,
        "costs": by_day(&model, Measures::cost)?,
        "errors": by_day(&|event| event.status, |measures| measures.errors.to_string())?,
    }))
}

/// The models that have a layer of the chart; all others are one.
fn top_models(truth: &Truth, range: &Question) -> Vec<&'static str> {
    let mut models: Vec<_> = truth.by_model(range).into_iter().collect();
    models.sort_by_key(|(_, measures)| std::cmp::Reverse(measures.total_tokens));
    models.into_iter().take(6).map(|(model, _)| model).collect()
}

/// The same time of the same day, to the end of its quarter of an hour, but within that month.
fn same_time_of_last_month(
    now: &ZonedDateTime,
    last_month: &ZonedDateTime,
    month: &ZonedDateTime,
) -> Result<ZonedDateTime> {
    let quarter = 15 * 60;
    let second = now.timestamp().as_second().div_euclid(quarter) * quarter + quarter;
    let ceiling = Timestamp::from_second(second)?.to_zoned_datetime(now.time_zone().clone());
    let since = ceiling.datetime().since(
        now.first_of_month()?
            .date()
            .to_datetime(jiff::civil::Time::midnight()),
    )?;
    let moved = last_month
        .datetime()
        .checked_add(since)?
        .to_zoned_datetime(now.time_zone().clone())?;
    Ok(if moved > *month { month.clone() } else { moved })
}

/// For each day, the groups that have something.
fn by_day(
    truth: &Truth,
    range: &Question,
    zone: &TimeZone,
    days: &[i64],
    group: &dyn Fn(&Counted) -> &'static str,
    amount: fn(&Measures) -> String,
) -> Result<Value> {
    let groups = truth.grouped(range, |_, event| {
        (local::bucket(event.time_us, "1d", zone).ok(), group(event))
    });
    let mut found = vec![serde_json::Map::new(); days.len()];
    for ((start, group), measures) in groups {
        let start = start.context("an instant of the zone")?;
        let place = days.binary_search(&start).ok().context("a day of the range")?;
        let text = amount(&measures);
        if text != "0" {
            found[place].insert(group.to_owned(), Value::String(text));
        }
    }
    Ok(json!(found))
}

async fn figures_are_the_generators(flavor: Flavor) -> Result<()> {
    if browser().is_none() {
        return Ok(());
    }
    let published = publish(flavor, 31).await?;
    let api = published.platform.api(&[]).await?;
    // Small enough for all of its users to have a line each.
    let organization = published.organizations[5];
    let zones = ZONES
        .iter()
        .map(|zone| expected(&published.truth, organization, zone, published.now))
        .collect::<Result<Vec<Value>>>()?;
    let told = json!({
        "organization": organization,
        "token": Claims::org_admin(organization).sign(SECRET)?,
        "zones": zones,
    });
    run("figures", &api, &told, nothing_to_do).await
}

async fn roles_links_and_back(flavor: Flavor) -> Result<()> {
    if browser().is_none() {
        return Ok(());
    }
    let published = publish(flavor, 32).await?;
    let api = published.platform.api(&[]).await?;
    let organization = published.organizations[4];
    let tomorrow = published.now.replace_time(time::Time::MIDNIGHT) + time::Duration::DAY;
    let range = Question::of(organization).between(tomorrow - time::Duration::days(30), tomorrow);
    let (user, measures) = published
        .truth
        .by_user(&range)
        .into_iter()
        .next()
        .context("a user")?;
    let totals = json!([
        measures.total_tokens.to_string(),
        measures.cost(),
        measures.requests.to_string(),
        measures.errors.to_string()
    ]);
    let told = json!({
        "organization": organization,
        "other": published.organizations[0],
        "user": user,
        "system": Claims::system_admin().sign(SECRET)?,
        "admin": Claims::org_admin(organization).sign(SECRET)?,
        "member": Claims::org_user(organization, user).sign(SECRET)?,
        "own": totals,
        "ofUser": totals,
    });
    run("roles", &api, &told, nothing_to_do).await
}

#[tokio::test]
async fn states_are_shown_as_what_they_are() -> Result<()> {
    if browser().is_none() {
        return Ok(());
    }
    let published = publish(Flavor::Postgres, 33).await?;
    let platform = &published.platform;
    let api = platform.api(&[("JWT_LEEWAY_SECONDS", "0")]).await?;
    let limited = platform.api(&[("RATE_LIMIT_PER_SECOND", "1")]).await?;
    let organization = published.organizations[0];
    let users = published.truth.by_user(&Question::of(organization));
    let month = published.now - time::Duration::days(150);
    let told = json!({
        "admin": Claims::org_admin(organization).sign(SECRET)?,
        "system": Claims::system_admin().sign(SECRET)?,
        "forged": Claims::system_admin().sign(&SECRET.replace('a', "b"))?,
        "user": users.keys().next().context("a user")?,
        "empty": Uuid::new_v4(),
        "month": format!("{}-{:02}", month.year(), u8::from(month.month())),
        "limited": limited.url(""),
    });
    run("states", &api, &told, async |wanted| {
        match wanted {
            "database away" => platform.lock_out("reader", true).await?,
            "database back" => platform.lock_out("reader", false).await?,
            "token of seconds" => {
                let mut claims = Claims::org_admin(organization);
                claims.exp = OffsetDateTime::now_utc().unix_timestamp() + 4;
                return claims.sign(SECRET);
            }
            _ => return nothing_to_do(wanted).await,
        }
        Ok("done".to_owned())
    })
    .await
}

#[tokio::test]
async fn hostile_names_are_text() -> Result<()> {
    if browser().is_none() {
        return Ok(());
    }
    let platform = Platform::new(Flavor::Postgres).await?;
    let _worker = platform.worker(&[]).await?;
    let names = [
        "<img src=x onerror=alert(1)>".to_owned(),
        "</td><script>alert(document.domain)</script>".to_owned(),
        "=cmd|' /C calc'!A0".to_owned(),
        "\u{202e}txt.exe مرحبا".to_owned(),
        "🦙👩‍👩‍👧‍👦 model".to_owned(),
        "m&amp;\"'`${7*7}{{7*7}}".to_owned(),
        "W".repeat(255),
    ];
    let now = OffsetDateTime::now_utc();
    let mut generator = Generator::new(&Shape {
        seed: 34,
        organizations: 1,
        start: now - time::Duration::days(1),
        end: now,
    });
    let mut bodies = Vec::new();
    for name in &names {
        let fact: Fact = generator.at(now - time::Duration::hours(1)).fact;
        bodies.push(serde_json::to_vec(&json!({
            "event_id": fact.event_id,
            "time": (now - time::Duration::hours(1)).format(&Rfc3339)?,
            "org_id": fact.org_id,
            "user_id": fact.user_id,
            "api_key_id": fact.api_key_id,
            "model": name,
            "input_tokens": 10,
            "output_tokens": 5,
            "cost": "0.01",
            "latency_ms": 7,
            "status": "success",
        }))?);
    }
    platform.publisher().await?.publish(&bodies).await?;
    platform.wait_stored(i64::try_from(names.len())?, 0).await?;
    platform.maintain().await?;
    let api = platform.api(&[]).await?;
    let token = Claims::org_admin(generator.organizations()[0]).sign(SECRET)?;
    let told = json!({ "token": token, "names": names });
    run("hostile", &api, &told, nothing_to_do).await
}

#[tokio::test]
async fn axe_finds_nothing() -> Result<()> {
    if browser().is_none() {
        return Ok(());
    }
    let published = publish(Flavor::Postgres, 35).await?;
    let api = published.platform.api(&[]).await?;
    let told = json!({
        "system": Claims::system_admin().sign(SECRET)?,
        "admin": Claims::org_admin(published.organizations[0]).sign(SECRET)?,
    });
    run("accessible", &api, &told, nothing_to_do).await
}
