//! Raw events against rollups: faults of every kind are found, and mended while a worker ingests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::operator::run;
use crate::platform::{Flavor, Platform};
use crate::rollups;

crate::in_both_flavors!(
    faults_are_found_and_mended_while_a_worker_ingests,
    a_batch_that_commits_during_a_repair_is_not_lost,
    what_has_no_raw_events_any_more_is_left_alone,
    event_ids_with_two_times_or_organizations_are_reported,
);

fn generator(seed: u64, days: i64) -> Generator {
    let end = OffsetDateTime::now_utc();
    Generator::new(&Shape {
        seed,
        organizations: 6,
        start: end - Duration::days(days),
        end,
    })
}

async fn stored(platform: &Platform, events: &[Event]) -> Result<()> {
    let bodies = events.iter().map(|event| &event.body);
    platform.publisher().await?.publish(bodies).await?;
    platform.wait_stored(i64::try_from(events.len())?, 0).await
}

fn day(days_ago: i64) -> String {
    (OffsetDateTime::now_utc().date() - Duration::days(days_ago)).to_string()
}

/// The differences that were printed, as (rollup, missing, surplus, other).
fn found(report: &Value) -> Result<Vec<(String, i64, i64, i64)>> {
    let shown = report["shown"].as_array().context("differences")?;
    shown
        .iter()
        .map(|difference| {
            let rows = |kind: &str| difference["rows"][kind].as_i64().context("rows");
            let rollup = difference["rollup"].as_str().context("a rollup")?;
            Ok((
                rollup.to_owned(),
                rows("missing")?,
                rows("surplus")?,
                rows("other")?,
            ))
        })
        .collect()
}

/// Faults on several days, old and new.
async fn spoil(platform: &Platform) -> Result<()> {
    // A row that went in past the triggers, four days ago.
    let child: String = platform
        .owner
        .query_one(
            "SELECT tableoid::regclass::text FROM usage_events WHERE time < now() - interval '4 days' \
             ORDER BY time DESC LIMIT 1",
            &[],
        )
        .await?
        .get(0);
    let mut statements = vec![
        format!(
            "INSERT INTO {child} SELECT time, gen_random_uuid(), org_id, user_id, api_key_id, model_name, \
             input_tokens, output_tokens, total_tokens, cost, latency_ms, status FROM usage_events \
             WHERE time < now() - interval '4 days' ORDER BY time DESC LIMIT 1"
        ),
        // A row changed by hand, one that is missing, and one without events.
        "UPDATE usage_quarter_hourly SET request_count = request_count + 7, total_cost_e10 = 1, latency_to_25ms = 99 \
         WHERE (org_id, bucket) = (SELECT org_id, bucket FROM usage_quarter_hourly \
         WHERE bucket < now() - interval '6 days' ORDER BY bucket DESC, org_id LIMIT 1)"
            .to_owned(),
        "DELETE FROM closed_daily_by_user WHERE (org_id, day, user_id) = (SELECT org_id, day, user_id \
         FROM closed_daily_by_user WHERE day < now() - interval '3 days' ORDER BY day DESC, org_id, user_id LIMIT 1)"
            .to_owned(),
        "INSERT INTO closed_daily_by_user SELECT day, gen_random_uuid(), user_id, api_key_id, \
         5, 5, 5, 5, 5, 5, 5, 5, 5, false, model_name, status FROM closed_daily_by_user WHERE day < now() - interval '2 days' ORDER BY day DESC LIMIT 1"
            .to_owned(),
        // Today, where the worker is at it: a request too many for one model.
        "UPDATE usage_quarter_hourly SET request_count = request_count + 1 WHERE bucket = \
         (SELECT max(bucket) FROM usage_quarter_hourly)"
            .to_owned(),
    ];
    // Each on another day: a rung is held against the one below it.
    for (rung, time, days) in [
        ("closed_hourly", "hour", 7),
        ("closed_daily", "day", 9),
        ("closed_system_quarter_hourly", "bucket", 5),
    ] {
        statements.push(format!(
            "DELETE FROM {rung} WHERE {time} = (SELECT max({time}) FROM {rung} \
             WHERE {time} < now() - interval '{days} days')"
        ));
    }
    statements.push(
        "UPDATE closed_weekly_by_key SET total_cost_e10 = total_cost_e10 + 1 WHERE (org_id, week) = \
         (SELECT org_id, week FROM closed_weekly_by_key WHERE week < now() - interval '7 days' ORDER BY week DESC, org_id LIMIT 1)"
            .to_owned(),
    );
    for statement in statements {
        let changed = platform.owner.execute(&statement, &[]).await?;
        ensure!(changed > 0, "nothing was spoilt by {statement}");
    }
    Ok(())
}

async fn faults_are_found_and_mended_while_a_worker_ingests(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    let events: Vec<Event> = generator(71, 12).take(4_000).collect();
    stored(&platform, &events).await?;
    // Some of it is in the columnstore then, and closed.
    platform.maintain().await?;
    // Late events reach back two days.
    let (mut late, mut now) = (generator(76, 2), generator(72, 1));
    let fresh: Vec<Event> = (0..50).map(|_| now.at(OffsetDateTime::now_utc())).collect();
    let publisher = platform.publisher().await?;
    publisher.publish(fresh.iter().map(|event| &event.body)).await?;
    platform.wait_stored(4_050, 0).await?;
    let clean = run(&platform, &["reconcile", "--json"]).await?.json()?;
    ensure!(clean["differences"] == 0, "{clean}");

    spoil(&platform).await?;
    // From here on events arrive all the time, current ones and late ones.
    let stop = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&stop);
    let ingest = tokio::spawn(async move {
        let mut published = 0_i64;
        while !until.load(Ordering::Relaxed) {
            let mut bodies: Vec<Vec<u8>> = late.by_ref().take(20).map(|event| event.body).collect();
            bodies.extend((0..30).map(|_| now.at(OffsetDateTime::now_utc()).body));
            published += i64::try_from(publisher.publish(bodies).await?)?;
        }
        anyhow::Ok(published)
    });
    let said = run(&platform, &["reconcile", "--json", "--limit", "1000"]).await?;
    ensure!(said.code == Some(3), "{said:#?}");
    let differences = found(&serde_json::from_str(&said.out)?)?;
    for (rollup, kind) in [
        ("closed_daily_by_user", "missing"),
        ("closed_daily_by_user", "surplus"),
        ("usage_quarter_hourly_by_user", "other"),
        ("usage_quarter_hourly", "other"),
        ("closed_weekly_by_key", "other"),
        ("closed_hourly", "missing"),
        ("closed_daily", "missing"),
        ("closed_system_quarter_hourly", "missing"),
    ] {
        let is_there = differences.iter().any(|(name, missing, surplus, other)| {
            name == rollup
                && match kind {
                    "missing" => *missing > 0,
                    "surplus" => *surplus > 0,
                    _ => *other > 0,
                }
        });
        ensure!(is_there, "no {kind} rows of {rollup} in {differences:#?}");
    }
    let table = run(&platform, &["reconcile", "--limit", "2"]).await?;
    let more = differences.len() - 2;
    ensure!(
        table.out.contains("requests raw / rollup") && table.out.contains(&format!("and {more} more")),
        "{table:#?}"
    );
    table.with_code(3)?;

    let mended = run(&platform, &["reconcile", "--repair"]).await?;
    ensure!(
        mended.number("rows mended")? > 5 && mended.number("differences left")? == 0,
        "{mended:#?}"
    );
    mended.with_code(0)?;
    stop.store(true, Ordering::Relaxed);
    let published = ingest.await??;
    ensure!(published > 0);
    // One row was inserted past the worker.
    platform.wait_stored(4_051 + published, 0).await?;
    let clean = run(&platform, &["reconcile", "--json"]).await?.json()?;
    ensure!(clean["differences"] == 0, "{clean}");
    rollups::assert_equal_raw(&platform).await
}

/// The repair has read the events and waits to write the row: what commits in between must stay.
async fn a_batch_that_commits_during_a_repair_is_not_lost(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let worker = platform.worker(&[]).await?;
    // For buckets that are closed: batch and repair then write the same rows.
    let mut past = generator(73, 1);
    let ten_days_ago = OffsetDateTime::now_utc() - Duration::days(10);
    let events: Vec<Event> = (0..10).map(|_| past.at(ten_days_ago)).collect();
    stored(&platform, &events).await?;
    drop(worker);
    platform.maintain().await?;
    let again = "INSERT INTO usage_events SELECT time, gen_random_uuid(), org_id, user_id, api_key_id, model_name, \
                 input_tokens, output_tokens, total_tokens, cost, latency_ms, status FROM usage_events";
    for spoilt in [
        "UPDATE usage_quarter_hourly_by_user SET total_output_tokens = total_output_tokens + 1000",
        "UPDATE usage_quarter_hourly SET total_output_tokens = total_output_tokens + 1000",
        "DELETE FROM usage_quarter_hourly_by_user",
        "DELETE FROM usage_quarter_hourly",
        "UPDATE closed_weekly_by_key SET total_output_tokens = total_output_tokens + 1000",
        "DELETE FROM closed_hourly_by_org",
    ] {
        platform.owner.batch_execute(spoilt).await?;
        let batch = e2e::servers::connect(&platform.owner_url()?).await?;
        batch.batch_execute(&format!("BEGIN; {again}")).await?;
        let from = day(12);
        let arguments = ["reconcile", "--repair", "--from", &from];
        let (repair, committed) = tokio::join!(run(&platform, &arguments), async {
            platform.wait_for_a_lock_waiter().await?;
            anyhow::Ok(batch.batch_execute("COMMIT").await?)
        });
        committed?;
        let repair = repair?;
        ensure!(repair.number("differences left")? == 0, "{spoilt}: {repair:#?}");
        repair.with_code(0)?;
        rollups::assert_equal_raw(&platform).await?;
    }
    Ok(())
}

async fn what_has_no_raw_events_any_more_is_left_alone(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let worker = platform.worker(&[]).await?;
    let events: Vec<Event> = generator(74, 60).take(2_000).collect();
    stored(&platform, &events).await?;
    drop(worker);
    platform.maintain().await?;
    platform
        .command(&["maintain"], &[("RAW_RETENTION_DAYS", "30")])
        .await?;
    let counted = "SELECT sum(request_count)::bigint FROM usage_daily";
    let days = "SELECT count(*) FROM usage_daily_by_user";
    let before = (platform.count(counted).await?, platform.count(days).await?);
    ensure!(before.0 == 2_000, "{before:?}");
    let said = run(&platform, &["reconcile", "--repair", "--from", &day(60)]).await?;
    ensure!(
        said.out
            .contains(&format!("not compared: {} until {}", day(60), day(29))),
        "{said:#?}"
    );
    ensure!(said.number("differences")? == 0, "{said:#?}");
    said.with_code(0)?;
    ensure!((platform.count(counted).await?, platform.count(days).await?) == before);
    let said = run(
        &platform,
        &["reconcile", "--repair", "--from", &day(60), "--to", &day(40)],
    )
    .await?;
    ensure!(
        said.code == Some(1) && said.err.contains("raw events are kept from"),
        "{said:#?}"
    );
    for misunderstood in [
        &["reconcile", "--from", "yesterday"],
        &["reconcile", "--to", "24.11.2026"],
    ] {
        run(&platform, misunderstood).await?.with_code(2)?;
    }
    Ok(())
}

async fn event_ids_with_two_times_or_organizations_are_reported(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let worker = platform.worker(&[]).await?;
    let events: Vec<Event> = generator(75, 5).take(300).collect();
    let mut bodies: Vec<Vec<u8>> = events.iter().map(|event| event.body.clone()).collect();
    let id_of = |number: usize| events[number].fact.event_id;
    let mut elsewhere: Value = serde_json::from_slice(&bodies[0])?;
    elsewhere["org_id"] = events[2].fact.event_id.to_string().into();
    let mut later: Value = serde_json::from_slice(&bodies[1])?;
    let second = OffsetDateTime::from_unix_timestamp(events[1].fact.time_us / 1_000_000)? - Duration::SECOND;
    later["time"] = second
        .format(&time::format_description::well_known::Rfc3339)?
        .into();
    bodies.extend([elsewhere, later].map(|event| event.to_string().into_bytes()));
    platform.publisher().await?.publish(&bodies).await?;
    platform.wait_stored(302, 0).await?;
    drop(worker);
    platform.maintain().await?;
    let said = run(&platform, &["reconcile", "--json"]).await?;
    let report: Value = serde_json::from_str(&said.out)?;
    ensure!(
        report["differences"] == 0 && report["repeated_event_ids"] == 2,
        "{report}"
    );
    let rows = report["repeated_events"].as_array().context("events")?;
    ensure!(rows.len() == 4, "{report}");
    for number in [0, 1] {
        let id = id_of(number).to_string();
        ensure!(
            rows.iter().filter(|row| row["event_id"] == *id).count() == 2,
            "{report}"
        );
    }
    said.with_code(3)?;
    let said = run(&platform, &["reconcile", "--no-ids"]).await?;
    said.with_code(0)?;
    Ok(())
}
