//! From the queue to the dashboard: the main job.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::api::compare_all;
use e2e::generator::{ERROR_MESSAGE_CANARY, Event, Generator, Shape};
use e2e::malformed;
use e2e::oracle::assert_stored;
use e2e::publisher::Queues;
use e2e::token::SECRET;
use e2e::truth::Truth;
use lapin::types::AMQPValue;
use time::{OffsetDateTime, Time};

use crate::platform::{Flavor, Platform, setting, system_admin};
use crate::rollups;

crate::in_both_flavors!(
    everything_published_is_stored_and_answered_once,
    late_events_and_duplicates_after_the_columnstore,
    a_queue_that_is_missing_is_declared_and_one_that_exists_is_used,
    sigterm_under_load_loses_nothing,
);

fn shape(seed: u64, days: i64) -> Shape {
    let end = OffsetDateTime::now_utc();
    Shape {
        seed,
        organizations: 30,
        start: end - time::Duration::days(days),
        end,
    }
}

/// Whole UTC days around a shape.
fn span(shape: &Shape) -> (OffsetDateTime, OffsetDateTime) {
    let midnight = |instant: OffsetDateTime| instant.replace_time(Time::MIDNIGHT);
    (midnight(shape.start), midnight(shape.end) + time::Duration::DAY)
}

async fn everything_published_is_stored_and_answered_once(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let mut worker = platform.worker(&[]).await?;
    let api = platform.api(&[]).await?;
    let shape = shape(1, 60);
    let events: Vec<Event> = Generator::new(&shape).take(20_000).collect();
    let malformed = malformed::twenty(OffsetDateTime::now_utc());

    // Every tenth event is published again, somewhere later; a malformed message stands every thousand.
    let mut messages: Vec<&[u8]> = Vec::new();
    for (number, event) in events.iter().enumerate() {
        messages.push(&event.body);
        if number % 10 == 9 {
            messages.push(&events[number / 2].body);
        }
        if number % 1000 == 500 {
            messages.push(&malformed[number / 1000].body);
        }
    }
    ensure!(messages.len() == 22_020);
    let publisher = platform.publisher().await?;
    publisher.publish(messages).await?;

    platform.wait_stored(20_000, 20).await?;
    assert_stored(&platform.owner, events.iter().map(|event| &event.fact)).await?;
    for message in &malformed {
        let row = platform
            .owner
            .query_opt(
                "SELECT reason, field, queue, detail FROM dead_letters WHERE body = $1",
                &[&message.body],
            )
            .await?
            .with_context(|| format!("{} is no dead letter", message.what))?;
        let found: (&str, Option<&str>) = (row.get(0), row.get(1));
        ensure!(
            found == (message.reason, message.field),
            "{}: {found:?}",
            message.what
        );
        ensure!(row.get::<_, &str>(2) == platform.queue && !row.get::<_, &str>(3).is_empty());
    }
    rollups::assert_equal_raw(&platform).await?;

    let mut truth = Truth::default();
    truth.extend(events.iter().map(|event| &event.fact));
    let (start, end) = span(&shape);
    let verdict = compare_all(&system_admin(&api)?, &truth, start, end).await?;
    ensure!(verdict.differences.is_empty(), "{:#?}", verdict.differences);
    ensure!(
        verdict.compared > 1000,
        "only {} sums were compared",
        verdict.compared
    );

    let (status, _) = worker.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "the worker ended with {status}");
    let queues = Queues::connect(&setting("E2E_RABBITMQ_URL")?).await?;
    queues
        .wait_ready(&platform.queue, 0, Duration::from_secs(10))
        .await?;
    for log in [worker.log(), api.log()] {
        for secret in [ERROR_MESSAGE_CANARY, SECRET, "guest:guest", "Bearer "] {
            ensure!(!log.contains(secret), "a log holds {secret}");
        }
    }
    Ok(())
}

async fn late_events_and_duplicates_after_the_columnstore(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    let api = platform.api(&[]).await?;
    let shape = shape(2, 80);
    let mut generator = Generator::new(&shape);
    let mut events: Vec<Event> = generator.by_ref().take(4_000).collect();
    let publisher = platform.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    platform.wait_stored(4_000, 0).await?;
    platform.maintain().await?;
    rollups::assert_equal_raw(&platform).await?;

    // New events of the whole span, three in four of them late, mixed with some that are stored already.
    let late: Vec<Event> = generator.by_ref().take(1_500).collect();
    let mixed = late
        .iter()
        .chain(events.iter().step_by(4))
        .map(|event| &event.body);
    publisher.publish(mixed).await?;
    platform.wait_stored(5_500, 0).await?;
    events.extend(late);
    let said = platform.maintain().await?;
    if flavor == Flavor::TimescaleDb {
        let compressed = platform
            .count("SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed")
            .await?;
        ensure!(
            compressed > 60,
            "{compressed} chunks are in the columnstore; {said}"
        );
        // Charts of leaders take it that weeks of days begin on Thursdays, and are there 25 hours after their end.
        let taken_for_granted = platform
            .count(
                "SELECT count(*) FROM timescaledb_information.chunks \
                 WHERE hypertable_name = 'closed_daily_by_user' AND is_compressed AND range_end = \
                 date_trunc('week', now() - interval '97 hours', 'UTC') + interval '72 hours'",
            )
            .await?;
        ensure!(taken_for_granted == 1, "the last week that is over is not there");
    }
    rollups::assert_equal_raw(&platform).await?;
    assert_stored(&platform.owner, events.iter().map(|event| &event.fact)).await?;
    let mut truth = Truth::default();
    truth.extend(events.iter().map(|event| &event.fact));
    let (start, end) = span(&shape);
    let verdict = compare_all(&system_admin(&api)?, &truth, start, end).await?;
    ensure!(verdict.differences.is_empty(), "{:#?}", verdict.differences);
    Ok(())
}

async fn a_queue_that_is_missing_is_declared_and_one_that_exists_is_used(flavor: Flavor) -> Result<()> {
    let queues = Queues::connect(&setting("E2E_RABBITMQ_URL")?).await?;
    let platform = Platform::new(flavor).await?;
    let worker = platform.worker(&[]).await?;
    ensure!(
        queues.ready(&platform.queue).await? == Some(0),
        "ready without a queue"
    );
    ensure!(queues.ready(&format!("{}.dead-letter", platform.queue)).await? == Some(0));
    // Declaring it again with the documented arguments is no error to the broker, with others it is.
    let dead_letter = format!("{}.dead-letter", platform.queue);
    let arguments = |limit: i64| {
        [
            ("x-delivery-limit", AMQPValue::LongLongInt(limit)),
            (
                "x-dead-letter-exchange",
                AMQPValue::LongString(dead_letter.as_str().into()),
            ),
            (
                "x-dead-letter-strategy",
                AMQPValue::LongString("at-least-once".into()),
            ),
            ("x-overflow", AMQPValue::LongString("reject-publish".into())),
        ]
    };
    queues.declare_quorum(&platform.queue, &arguments(100)).await?;
    ensure!(
        queues
            .declare_quorum(&platform.queue, &arguments(20))
            .await
            .is_err()
    );
    // A queue of another make, declared with other arguments, is taken as it is.
    let mut other = Platform::new(flavor).await?;
    other.queue = e2e::publisher::unique_queue("classic");
    queues.declare_classic(&other.queue).await?;
    let _other_worker = other.worker(&[]).await?;
    for platform in [&platform, &other] {
        let events: Vec<Event> = Generator::new(&shape(3, 1)).take(100).collect();
        platform
            .publisher()
            .await?
            .publish(events.iter().map(|event| &event.body))
            .await?;
        platform.wait_stored(100, 0).await?;
    }
    drop(worker);
    Ok(())
}

async fn sigterm_under_load_loses_nothing(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let mut worker = platform.worker(&[]).await?;
    let events: Vec<Event> = Generator::new(&shape(4, 3)).take(30_000).collect();
    let publisher = platform.publisher().await?;
    let bodies: Vec<Vec<u8>> = events.iter().map(|event| event.body.clone()).collect();
    let publishing = tokio::spawn(async move { publisher.publish(bodies).await });
    while platform.count("SELECT count(*) FROM usage_events").await? == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (status, elapsed) = worker.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "the worker ended with {status}");
    ensure!(!worker.log().contains("panicked"), "{}", worker.log());
    publishing.await??;
    let stored = platform.count("SELECT count(*) FROM usage_events").await?;
    ensure!(
        stored < 30_000,
        "the worker was done before it was stopped, after {elapsed:?}"
    );
    let _next = platform.worker(&[]).await?;
    platform.wait_stored(30_000, 0).await?;
    assert_stored(&platform.owner, events.iter().map(|event| &event.fact)).await?;
    rollups::assert_equal_raw(&platform).await
}
