//! What a worker says about itself is what happened.

use anyhow::{Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::malformed;
use serde_json::Value;
use time::OffsetDateTime;

use crate::platform::{Flavor, Platform};

crate::in_both_flavors!(
    metrics_count_what_happened,
    an_event_id_with_another_time_or_organization_is_reported,
);

fn events(seed: u64, count: usize) -> Vec<Event> {
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed,
        organizations: 10,
        start: end - time::Duration::minutes(5),
        end,
    };
    Generator::new(&shape).take(count).collect()
}

async fn metrics_count_what_happened(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let worker = platform.worker(&[]).await?;
    let events = events(91, 1_000);
    let malformed = malformed::twenty(OffsetDateTime::now_utc());
    let publisher = platform.publisher().await?;
    let again = events.iter().step_by(10);
    publisher
        .publish(events.iter().chain(again).map(|event| &event.body))
        .await?;
    publisher
        .publish(malformed.iter().map(|message| &message.body))
        .await?;
    platform.wait_stored(1_000, 20).await?;
    worker.wait_acknowledged().await?;
    for (metric, expected) in [
        ("usage_ingest_events_stored_total", 1_000.0),
        ("usage_ingest_events_duplicate_total", 100.0),
        ("usage_ingest_dead_letters_total", 20.0),
        ("usage_ingest_deliveries_redelivered_total", 0.0),
        ("usage_ingest_batches_retried_total", 0.0),
        ("usage_ingest_batch_rows_sum", 1_120.0),
        ("usage_ingest_broker_connections_total", 1.0),
        ("usage_ingest_database_up", 1.0),
        ("usage_ingest_broker_up", 1.0),
        ("usage_ingest_brake_pulled", 0.0),
        ("usage_ingest_oldest_unacked_seconds", 0.0),
        ("usage_ingest_window_deliveries", 50_000.0),
    ] {
        let found = worker.metric(metric).await?;
        ensure!(found == expected, "{metric} is {found}, not {expected}");
    }
    let written = worker.metric("usage_ingest_commit_seconds_count").await?;
    ensure!(written > 0.0 && written == worker.metric("usage_ingest_copy_seconds_count").await?);
    let lag = worker.metric("usage_ingest_event_lag_seconds").await?;
    ensure!((0.0..330.0).contains(&lag), "events are {lag} s behind");
    let text = reqwest::get(worker.url("/metrics")).await?.text().await?;
    ensure!(
        text.contains(r#"usage_ingest_dead_letters_total{reason="invalid_uuid"} 1"#),
        "{text}"
    );

    worker
        .wait_metric("usage_ingest_counted_through_age_seconds", |age| {
            age > 0.0 && age < 5.0
        })
        .await?;
    // Each reason is there from the start, so that its first letter is seen as a rise.
    let letter = |reason: &str| format!("usage_ingest_dead_letters_total{{reason=\"{reason}\"}} 0");
    ensure!(text.contains(&letter("refused_by_database")), "{text}");

    // Without its database: what is held ages, and readiness says what is missing, and why.
    platform.lock_out_the_writer(true).await?;
    publisher.publish([&self::events(92, 1)[0].body]).await?;
    worker
        .wait_metric("usage_ingest_oldest_unacked_seconds", |age| age > 1.0)
        .await?;
    worker
        .wait_metric("usage_ingest_counted_through_age_seconds", |age| age > 5.0)
        .await?;
    worker
        .wait_metric("usage_ingest_batches_retried_total", |retried| retried > 0.0)
        .await?;
    worker
        .wait_metric("usage_ingest_database_up", |up| up == 0.0)
        .await?;
    let ready = reqwest::get(worker.url("/ready")).await?;
    ensure!(ready.status() == 503);
    let said: Value = serde_json::from_str(&ready.text().await?)?;
    let why = said["because"]["database"].as_str().unwrap_or_default();
    ensure!(
        said["missing"] == serde_json::json!(["database"]) && why.contains("not permitted to log in"),
        "{said}"
    );
    ensure!(reqwest::get(worker.url("/health")).await?.status() == 200);
    platform.lock_out_the_writer(false).await?;
    worker
        .wait_metric("usage_ingest_oldest_unacked_seconds", |age| age == 0.0)
        .await
}

async fn an_event_id_with_another_time_or_organization_is_reported(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    let events = events(93, 20);
    let changed = |field: &str, value: Value| -> Result<Vec<u8>> {
        let mut event: Value = serde_json::from_slice(&events[0].body)?;
        event[field] = value;
        Ok(event.to_string().into_bytes())
    };
    let publisher = platform.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    platform.wait_stored(20, 0).await?;
    let said = platform.maintain().await?;
    ensure!(said.contains("identities: 0 event ids"), "{said}");
    let now = OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339)?;
    let other = uuid::Uuid::new_v4().to_string();
    publisher
        .publish([changed("time", now.into())?, changed("org_id", other.into())?])
        .await?;
    platform.wait_stored(22, 0).await?;
    let said = platform.maintain().await?;
    let id = events[0].fact.event_id.to_string();
    ensure!(
        said.contains("identities: 1 event ids") && said.contains(&id),
        "{said}"
    );
    Ok(())
}
