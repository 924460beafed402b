//! What the broker gave up on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::malformed;
use e2e::oracle::assert_stored;
use e2e::publisher::{Publisher, Queues};
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;
use time::OffsetDateTime;

use crate::operator::{Said, run, run_with};
use crate::platform::{Flavor, Platform, setting};
use crate::rollups;

crate::in_both_flavors!(
    what_the_broker_gave_up_on_is_collected,
    a_collection_that_is_killed_is_finished_by_the_next,
);

fn events(seed: u64, count: usize) -> Vec<Event> {
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed,
        organizations: 4,
        start: end - time::Duration::hours(1),
        end,
    };
    Generator::new(&shape).take(count).collect()
}

/// A platform whose queues a worker has declared, and that dead-letter queue.
async fn with_queues(flavor: Flavor) -> Result<(Platform, String)> {
    let platform = Platform::new(flavor).await?;
    let mut worker = platform.worker(&[]).await?;
    worker.terminate(Duration::from_secs(20)).await?;
    let dead_letter = format!("{}.dead-letter", platform.queue);
    Ok((platform, dead_letter))
}

async fn collect(platform: &Platform) -> Result<Said> {
    run(platform, &["collect"]).await
}

fn tally(said: &Said) -> Result<(u64, u64, u64)> {
    Ok((
        said.number("stored")?,
        said.number("duplicate")?,
        said.number("dead letters")?,
    ))
}

/// Rejects everything that is ready in a queue, as a client would that cannot bear it.
async fn reject_all(queue: &str) -> Result<u32> {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&setting("E2E_RABBITMQ_URL")?, properties).await?;
    let channel = connection.create_channel().await?;
    let mut rejected = 0;
    while let Some(message) = channel
        .basic_get(queue.into(), BasicGetOptions::default())
        .await?
    {
        message.reject(BasicRejectOptions { requeue: false }).await?;
        rejected += 1;
    }
    connection.close(200, "done".into()).await?;
    Ok(rejected)
}

async fn what_the_broker_gave_up_on_is_collected(flavor: Flavor) -> Result<()> {
    let (platform, dead_letter) = with_queues(flavor).await?;
    let queues = Queues::connect(&setting("E2E_RABBITMQ_URL")?).await?;
    let events = events(81, 700);
    let wrong = malformed::twenty(OffsetDateTime::now_utc());

    // A hundred events are stored by now.
    let mut worker = platform.worker(&[]).await?;
    let publisher = platform.publisher().await?;
    publisher
        .publish(events[..100].iter().map(|event| &event.body))
        .await?;
    platform.wait_stored(100, 0).await?;
    // Else they would come again.
    worker.terminate(Duration::from_secs(20)).await?;

    // The broker itself moves these; one has a header that ends the worker's connection.
    publisher
        .publish(events[50..640].iter().map(|event| &event.body))
        .await?;
    publisher
        .publish(wrong.iter().map(|message| &message.body))
        .await?;
    let mut headers = FieldTable::default();
    headers.insert("who".into(), AMQPValue::LongString(b"na\xefve\xff"[..].into()));
    let unreadable = BasicProperties::default().with_headers(headers);
    publisher
        .publish_with(&events[640].body, unreadable.clone())
        .await?;
    publisher.publish_with(b"{\"no\":\"event\"}", unreadable).await?;
    // A quorum queue hands out what it has once it has a leader.
    queues
        .wait_ready(&platform.queue, 612, Duration::from_secs(30))
        .await?;
    ensure!(reject_all(&platform.queue).await? == 612);
    queues
        .wait_ready(&dead_letter, 612, Duration::from_secs(30))
        .await?;
    // And these somebody has put there.
    let by_hand = Publisher::connect(&setting("E2E_RABBITMQ_URL")?, &dead_letter).await?;
    by_hand
        .publish(events[641..].iter().map(|event| &event.body))
        .await?;

    let said = collect(&platform).await?;
    ensure!(tally(&said)? == (600, 50, 21), "{said:#?}");
    said.with_code(0)?;
    platform.wait_stored(700, 21).await?;
    assert_stored(&platform.owner, events.iter().map(|event| &event.fact)).await?;
    rollups::assert_equal_raw(&platform).await?;
    ensure!(queues.ready(&dead_letter).await? == Some(0), "messages are left");

    for message in &wrong {
        let row = platform
            .owner
            .query_opt(
                "SELECT reason, field, detail, queue, headers FROM dead_letters WHERE body = $1",
                &[&message.body],
            )
            .await?
            .with_context(|| format!("{} is no dead letter", message.what))?;
        ensure!(row.get::<_, &str>(0) == message.reason && row.get::<_, Option<&str>>(1) == message.field);
        let (detail, queue, headers): (&str, &str, Value) = (row.get(2), row.get(3), row.get(4));
        ensure!(
            detail.ends_with("; the broker gave up on it: rejected"),
            "{detail}"
        );
        ensure!(
            queue == dead_letter && headers["content_type"] == "application/json",
            "{queue} {headers}"
        );
        let death = &headers["headers"]["x-death"][0];
        ensure!(
            death["queue"] == *platform.queue && death["count"] == 1,
            "{headers}"
        );
    }
    let who: String = platform
        .owner
        .query_one(
            "SELECT headers #>> '{headers,who}' FROM dead_letters WHERE body = $1",
            &[&&b"{\"no\":\"event\"}"[..]],
        )
        .await?
        .get(0);
    ensure!(who == "na\u{fffd}ve\u{fffd}", "{who}");

    // Nothing is left, and there are queues that are not there.
    let said = collect(&platform).await?;
    ensure!(
        said.err.contains("is empty") && tally(&said)? == (0, 0, 0),
        "{said:#?}"
    );
    said.with_code(0)?;
    let said = run_with(&platform, &["collect"], &[("QUEUE_NAME", "no-such-queue")], None).await?;
    ensure!(
        said.code == Some(1) && said.err.contains("NOT_FOUND"),
        "{said:#?}"
    );
    let stranger = setting("E2E_RABBITMQ_URL")?.replace("guest:guest", "guest:stranger");
    let said = run_with(&platform, &["collect"], &[("RABBITMQ_URL", &stranger)], None).await?;
    ensure!(
        said.code == Some(1) && said.err.contains("ACCESS_REFUSED"),
        "{said:#?}"
    );
    ensure!(!said.err.contains("stranger"), "{said:#?}");
    Ok(())
}

/// Killed when the events are committed and their messages not acknowledged, which a letter holds open.
async fn a_collection_that_is_killed_is_finished_by_the_next(flavor: Flavor) -> Result<()> {
    let (platform, dead_letter) = with_queues(flavor).await?;
    let events = events(82, 150);
    let by_hand = Publisher::connect(&setting("E2E_RABBITMQ_URL")?, &dead_letter).await?;
    by_hand.publish(events.iter().map(|event| &event.body)).await?;
    by_hand.publish(["no event"]).await?;
    let lock = e2e::servers::connect(&platform.owner_url()?).await?;
    // Whoever keeps the same letter waits for what becomes of this one.
    lock.batch_execute(
        "BEGIN; INSERT INTO dead_letters (queue, body, headers, reason, detail) VALUES ('q', 'no event', '{}', 'r', 'd')",
    )
    .await?;
    let mut collecting = platform.operator(&["collect"], &[])?.spawn()?;
    platform.wait_stored(150, 0).await?;
    platform.wait_for_a_lock_waiter().await?;
    collecting.kill().await?;
    platform
        .owner
        .batch_execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await?;
    lock.batch_execute("ROLLBACK").await?;
    let queues = Queues::connect(&setting("E2E_RABBITMQ_URL")?).await?;
    queues
        .wait_ready(&dead_letter, 151, Duration::from_secs(60))
        .await?;
    let said = collect(&platform).await?;
    ensure!(tally(&said)? == (0, 150, 1), "{said:#?}");
    said.with_code(0)?;
    platform.wait_stored(150, 1).await?;
    ensure!(queues.ready(&dead_letter).await? == Some(0));
    rollups::assert_equal_raw(&platform).await
}
