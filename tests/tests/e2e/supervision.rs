//! The worker over its broker: what kills a session, what is given back, and what stops the worker.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::malformed;
use e2e::process::Service;
use e2e::publisher::Queues;
use e2e::raw;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};
use serde_json::Value;
use time::OffsetDateTime;

use crate::platform::{Flavor, Platform, setting};

const SOON: Duration = Duration::from_secs(30);

fn events(seed: u64, count: usize) -> Vec<Event> {
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed,
        organizations: 10,
        start: end - time::Duration::minutes(50),
        end,
    };
    Generator::new(&shape).take(count).collect()
}

async fn publish(platform: &Platform, events: &[Event]) -> Result<()> {
    let publisher = platform.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    publisher.close().await
}

async fn queues() -> Result<Queues> {
    Queues::connect(&setting("E2E_RABBITMQ_URL")?).await
}

/// What `/ready` says is missing, with the reasons.
async fn missing(worker: &Service) -> Result<Value> {
    let answer = reqwest::get(worker.url("/ready")).await?;
    Ok(serde_json::from_str::<Value>(&answer.text().await?)?["because"].clone())
}

async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !is_so().await? {
        if Instant::now() > deadline {
            bail!("{what}: not within {SOON:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A header that is not UTF-8 ends the connection of whoever it is delivered to. The broker gives up on that
/// message, and on none of those that were delivered beside it.
#[tokio::test]
async fn a_message_that_cannot_be_decoded_harms_no_neighbour() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let queues = queues().await?;
    // A limit that neighbours would exceed if they were delivered beside the offenders each time.
    let dead_letter = format!("{}.dead-letter", platform.queue);
    queues.declare_quorum(&dead_letter, &[]).await?;
    let long = |text: &str| AMQPValue::LongString(text.into());
    let arguments = [
        ("x-delivery-limit", AMQPValue::LongLongInt(20)),
        ("x-dead-letter-exchange", long("")),
        ("x-dead-letter-routing-key", long(&dead_letter)),
    ];
    queues.declare_quorum(&platform.queue, &arguments).await?;
    let events = events(61, 2_000);
    for (number, part) in events.chunks(500).enumerate() {
        publish(&platform, part).await?;
        if number == 0 || number == 2 {
            let mut headers = FieldTable::default();
            let not_utf8 = LongString::from(b"\xff\xfe".to_vec());
            headers.insert("x-origin".into(), AMQPValue::LongString(not_utf8));
            let properties = BasicProperties::default().with_headers(headers);
            let publisher = platform.publisher().await?;
            publisher.publish_with(b"{}", properties).await?;
            publisher.close().await?;
        }
    }
    let worker = platform.worker(&[]).await?;
    platform.wait_stored(2_000, 0).await?;
    queues.wait_ready(&dead_letter, 2, SOON).await?;
    let log = worker.log();
    ensure!(log.contains("Narrow(1)"), "it was never careful: {log}");
    // It is as fast as before.
    let more = self::events(62, 500);
    publish(&platform, &more).await?;
    platform.wait_stored(2_500, 0).await?;
    wait_until("the full window", async || {
        let more = Generator::new(&Shape {
            seed: rand_seed(),
            organizations: 3,
            start: OffsetDateTime::now_utc() - time::Duration::minutes(5),
            end: OffsetDateTime::now_utc(),
        });
        publish(&platform, &more.take(10).collect::<Vec<_>>()).await?;
        Ok(worker.metric("usage_ingest_window_deliveries").await? >= 20_000.0)
    })
    .await?;
    ensure!(queues.ready(&dead_letter).await? == Some(2));
    Ok(())
}

fn rand_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// Headers as deep as a frame allows: the worker lives, keeps as much of them as is readable, and stores the event
/// that is below them.
#[tokio::test]
async fn headers_nested_without_end_harm_nobody() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let url = setting("E2E_RABBITMQ_URL")?;
    platform.declare_queue().await?;
    let events = events(68, 400);
    publish(&platform, &events[..200]).await?;
    let (deep, deepest) = (raw::nested_tables(10_000), raw::deepest_arrays());
    raw::publish(&url, &platform.queue, &deep, b"no event").await?;
    raw::publish(&url, &platform.queue, &deepest, b"nor this").await?;
    raw::publish(&url, &platform.queue, &deepest, &events[200].body).await?;
    publish(&platform, &events[201..]).await?;
    let mut worker = platform.worker(&[]).await?;
    platform.wait_stored(400, 2).await?;
    ensure!(worker.ended()?.is_none(), "{}", worker.log());
    ensure!(worker.metric("usage_ingest_broker_connections_total").await? == 1.0);
    let kept = "SELECT max(length(headers::text))::bigint FROM dead_letters WHERE headers::text LIKE '%…%'";
    let kept = platform.count(kept).await?;
    ensure!(
        (60..1_000).contains(&kept),
        "{kept} characters of headers are kept"
    );
    let peak = worker.peak_rss_bytes().context("it runs")? >> 20;
    ensure!(peak < 256, "it took {peak} MiB");
    let (status, _) = worker.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// What an earlier process was given may be what it died of: a new one begins with one such message, and widens its
/// window from commit to commit.
#[tokio::test]
async fn what_was_delivered_before_is_begun_with_one_message() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let queues = queues().await?;
    let mut first = platform.worker(&[]).await?;
    let lock = e2e::servers::connect(&platform.owner_url()?).await?;
    lock.batch_execute("BEGIN; LOCK TABLE usage_events IN EXCLUSIVE MODE")
        .await?;
    publish(&platform, &events(69, 300)).await?;
    wait_until("deliveries are held", async || {
        Ok(first.metric("usage_ingest_unacked_deliveries").await? >= 300.0)
    })
    .await?;
    first.kill().await?;
    queues.wait_ready(&platform.queue, 300, SOON).await?;
    let second = platform.worker(&[]).await?;
    wait_until("one is held", async || {
        Ok(second.metric("usage_ingest_unacked_deliveries").await? == 1.0)
    })
    .await?;
    ensure!(queues.ready(&platform.queue).await? == Some(299));
    lock.batch_execute("ROLLBACK").await?;
    platform.wait_stored(300, 0).await?;
    // With 1, 4, 16, 64 and 215.
    let connections = second.metric("usage_ingest_broker_connections_total").await?;
    ensure!(
        connections >= 5.0,
        "{connections} connections: it took all that was left"
    );
    Ok(())
}

/// Without its database the worker holds what it has for so long, gives it back once, and waits.
#[tokio::test]
async fn without_a_database_deliveries_are_given_back_once() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let queues = queues().await?;
    let worker = platform.worker(&[("MAX_HOLD_SECONDS", "2")]).await?;
    platform.lock_out_the_writer(true).await?;
    wait_until("readiness", async || {
        Ok(missing(&worker).await?["database"].is_string())
    })
    .await?;
    let events = events(63, 300);
    publish(&platform, &events).await?;
    wait_until("deliveries are held", async || {
        Ok(worker.metric("usage_ingest_unacked_deliveries").await? >= 300.0)
    })
    .await?;
    queues.wait_ready(&platform.queue, 300, SOON).await?;
    let connections = worker.metric("usage_ingest_broker_connections_total").await?;
    ensure!(connections == 1.0, "{connections} connections");
    ensure!(worker.metric("usage_ingest_sessions_given_up_total").await? == 1.0);
    // Longer than it held them before: it does not take them again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(queues.ready(&platform.queue).await? == Some(300));
    ensure!(worker.metric("usage_ingest_broker_connections_total").await? == 1.0);
    let live = reqwest::get(worker.url("/health")).await?;
    ensure!(live.status() == 200, "liveness depends on the database");
    platform.lock_out_the_writer(false).await?;
    platform.wait_stored(300, 0).await
}

/// A database that answers and takes nothing: one message at a time is tried, the others stay in the queue.
#[tokio::test]
async fn behind_a_locked_table_one_message_is_risked_and_no_more() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let queues = queues().await?;
    let worker = platform.worker(&[("MAX_HOLD_SECONDS", "1")]).await?;
    let lock = e2e::servers::connect(&platform.owner_url()?).await?;
    lock.batch_execute("BEGIN; LOCK TABLE usage_events IN EXCLUSIVE MODE")
        .await?;
    let events = events(64, 300);
    publish(&platform, &events).await?;
    wait_until("most is given back", async || {
        Ok(
            worker.metric("usage_ingest_sessions_given_up_total").await? >= 3.0
                && queues.ready(&platform.queue).await?.unwrap_or(0) >= 299,
        )
    })
    .await?;
    ensure!(worker.metric("usage_ingest_window_deliveries").await? == 1.0);
    lock.batch_execute("ROLLBACK").await?;
    platform.wait_stored(300, 0).await
}

#[tokio::test]
async fn a_queue_that_is_deleted_is_declared_again() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let queues = queues().await?;
    let worker = platform.worker(&[]).await?;
    publish(&platform, &events(65, 100)).await?;
    platform.wait_stored(100, 0).await?;
    queues.delete(&platform.queue).await?;
    wait_until("a queue", async || {
        Ok(queues.ready(&platform.queue).await?.is_some())
    })
    .await?;
    ensure!(worker.log().contains("its queue is gone"), "{}", worker.log());
    publish(&platform, &events(66, 100)).await?;
    platform.wait_stored(200, 0).await
}

/// Where something is in the way of the topology, readiness has the broker's own words.
#[tokio::test]
async fn a_refusal_of_the_broker_is_told_in_its_words() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let queues = queues().await?;
    let in_the_way = format!("{}.dead-letter", platform.queue);
    queues.declare_classic(&in_the_way).await?;
    let worker = platform.launch_worker(&[])?;
    wait_until("the broker's words", async || {
        let Ok(missing) = missing(&worker).await else {
            return Ok(false);
        };
        let said = missing["broker"].as_str().unwrap_or_default().to_owned();
        Ok(said.contains("dead-letter") && said.contains("PRECONDITION_FAILED"))
    })
    .await?;
    // Once it is out of the way, the worker goes on by itself.
    queues.delete(&in_the_way).await?;
    wait_until("readiness", async || {
        Ok(reqwest::get(worker.url("/ready")).await?.status() == 200)
    })
    .await
}

/// A refused login is not "connection reset by peer"; and of several hosts, the one that is there is taken.
#[tokio::test]
async fn a_wrong_password_is_told_in_the_brokers_words() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let right = setting("E2E_RABBITMQ_URL")?;
    let wrong = right.replace("guest:guest", "guest:stranger");
    let worker = platform.launch_worker(&[("RABBITMQ_URL", &wrong)])?;
    wait_until("the broker's words", async || {
        let Ok(missing) = missing(&worker).await else {
            return Ok(false);
        };
        Ok(missing["broker"]
            .as_str()
            .is_some_and(|said| said.contains("ACCESS_REFUSED")))
    })
    .await?;
    ensure!(!worker.log().contains("stranger"), "{}", worker.log());
    let (login, host) = right.rsplit_once('@').context("a login")?;
    let closed = e2e::ports::free()?;
    let several = format!("{login}@127.0.0.1:{closed},{host}?heartbeat=20");
    let _worker = platform.worker(&[("RABBITMQ_URL", &several)]).await?;
    Ok(())
}

#[tokio::test]
async fn the_brake_stops_a_flood_of_malformed_messages() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let queues = queues().await?;
    let mut worker = platform.worker(&[("BRAKE_MALFORMED_PERCENT", "20")]).await?;
    publish(&platform, &events(67, 1_000)).await?;
    platform.wait_stored(1_000, 0).await?;
    let one = malformed::twenty(OffsetDateTime::now_utc())
        .pop()
        .context("twenty")?;
    let flood: Vec<Vec<u8>> = (0..1_000)
        .map(|number: i32| [&one.body[..], number.to_string().as_bytes()].concat())
        .collect();
    platform.publisher().await?.publish(&flood).await?;
    wait_until("the brake", async || {
        Ok(worker.metric("usage_ingest_brake_pulled").await? == 1.0)
    })
    .await?;
    ensure!(missing(&worker).await?["brake"].is_string());
    let kept = platform.count("SELECT count(*) FROM dead_letters").await?;
    ensure!(kept < 1_000, "all of the flood became dead letters");
    // Nothing vanishes: it is a dead letter, or it is in the queue.
    let rest = u32::try_from(1_000 - kept)?;
    queues.wait_ready(&platform.queue, rest, SOON).await?;
    let (status, _) = worker.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success());
    let _without = platform.worker(&[]).await?;
    platform.wait_stored(1_000, 1_000).await
}
