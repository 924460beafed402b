//! Death at the two narrow moments, and rules broken on purpose: what the promise rests on is seen to
//! matter.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::malformed;
use e2e::process::Service;
use e2e::publisher::Queues;
use nix::sys::signal::Signal;
use time::OffsetDateTime;

use crate::platform::{Flavor, Platform, setting};

crate::in_both_flavors!(death_before_the_commit, death_between_commit_and_ack);

const SMALL: (&str, &str) = ("BATCH_SIZE", "100");

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

async fn wait_aborted(worker: &mut Service) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = worker.ended()? {
            ensure!(
                status.signal() == Some(Signal::SIGABRT as i32) && worker.log().contains("failpoint reached"),
                "ended with {status}: {}",
                worker.log()
            );
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the failpoint was never reached: {}", worker.log());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// 2,000 events and 20 malformed messages, through a worker that dies at its third batch and one that
/// takes over. Returns what was stored at the death, and how many duplicates the second one met.
async fn die_and_recover(platform: &Platform, failpoints: &str) -> Result<(i64, f64)> {
    let mut dying = platform.worker(&[("FAILPOINTS", failpoints), SMALL]).await?;
    let events = events(51, 2_000);
    let malformed = malformed::twenty(OffsetDateTime::now_utc());
    let mut bodies: Vec<&[u8]> = events.iter().map(|event| &*event.body).collect();
    for (number, message) in malformed.iter().enumerate() {
        bodies.insert(number * 101, &message.body);
    }
    platform.publisher().await?.publish(bodies).await?;
    wait_aborted(&mut dying).await?;
    let stored = platform
        .count("SELECT (SELECT count(*) FROM usage_events) + (SELECT count(*) FROM dead_letters)")
        .await?;
    let next = platform.worker(&[SMALL]).await?;
    platform.wait_stored(2_000, 20).await?;
    crate::rollups::assert_equal_raw(platform).await?;
    next.wait_acknowledged().await?;
    Ok((stored, next.metric("usage_ingest_events_duplicate_total").await?))
}

async fn death_before_the_commit(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let (stored, _) = die_and_recover(&platform, "before_commit=abort@3").await?;
    ensure!((1..2_020).contains(&stored), "{stored} were stored at the death");
    Ok(())
}

async fn death_between_commit_and_ack(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let (stored, duplicates) = die_and_recover(&platform, "before_ack=abort@3").await?;
    ensure!((1..2_020).contains(&stored), "{stored} were stored at the death");
    ensure!(duplicates >= 1.0, "nothing that was committed came again");
    Ok(())
}

/// What is left in database and queue after a worker died that broke a rule: less than was published.
async fn lose_some(environment: &[(&str, &str)]) -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let mut worker = platform
        .worker(&[environment, &[SMALL, ("WRITER_LANES", "2")]].concat())
        .await?;
    let events = events(52, 2_000);
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    // A lane that is held has reached its failpoint, and the other one is done.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut quiet_since = (Instant::now(), -1);
    while worker.ended()?.is_none() {
        ensure!(Instant::now() < deadline, "the worker goes on: {}", worker.log());
        let stored = platform.count("SELECT count(*) FROM usage_events").await?;
        if stored != quiet_since.1 {
            quiet_since = (Instant::now(), stored);
        } else if worker.log().contains("failpoint reached")
            && quiet_since.0.elapsed() > Duration::from_secs(2)
        {
            worker.kill().await?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Another one takes what the broker still has, and has stored all of it when it ends.
    let mut next = platform.worker(&[]).await?;
    let queues = Queues::connect(&setting("E2E_RABBITMQ_URL")?).await?;
    queues
        .wait_ready(&platform.queue, 0, Duration::from_secs(30))
        .await?;
    let (status, _) = next.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success(), "the worker ended with {status}");
    ensure!(queues.ready(&platform.queue).await? == Some(0));
    let stored = platform.count("SELECT count(*) FROM usage_events").await?;
    ensure!(stored < 2_000, "nothing was lost");
    Ok(())
}

#[tokio::test]
async fn acknowledging_before_the_commit_would_lose_events() -> Result<()> {
    lose_some(&[
        ("BROKEN_RULE", "ack_before_commit"),
        ("FAILPOINTS", "before_commit=pause@2"),
    ])
    .await
}

#[tokio::test]
async fn acknowledging_past_the_watermark_would_lose_events() -> Result<()> {
    lose_some(&[
        ("BROKEN_RULE", "ack_past_unresolved"),
        ("FAILPOINTS", "before_commit=pause@2"),
    ])
    .await
}

#[tokio::test]
async fn with_every_rule_kept_the_same_death_loses_nothing() -> Result<()> {
    let lost = lose_some(&[("FAILPOINTS", "before_commit=pause@2")]).await;
    ensure!(lost.is_err_and(|error| error.to_string() == "nothing was lost"));
    Ok(())
}
