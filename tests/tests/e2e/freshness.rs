//! Freshness is measured: it follows the queue, stands still over a backlog, and ages without workers.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail, ensure};
use e2e::api::Client;
use e2e::generator::{Event, Generator, Shape};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::platform::{Flavor, Platform, system_admin};

crate::in_both_flavors!(
    freshness_follows_the_queue,
    a_backlog_in_memory_is_not_counted,
    a_late_event_is_answered_at_its_commit,
    a_report_that_is_late_says_what_was_true
);

async fn ask(admin: &Client) -> Result<Value> {
    Ok(admin.get("system/usage", &[("period", "last_7d")]).await?["freshness"].clone())
}

fn counted_through(freshness: &Value) -> Result<Option<OffsetDateTime>> {
    Ok(match freshness["counted_through"].as_str() {
        None => None,
        Some(text) => Some(OffsetDateTime::parse(text, &Rfc3339)?),
    })
}

async fn wait_counted(admin: &Client, moment: OffsetDateTime) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let freshness = ask(admin).await?;
        if counted_through(&freshness)?.is_some_and(|through| through > moment) {
            return Ok(freshness);
        }
        if Instant::now() > deadline {
            bail!("counted through {moment} was never said: {freshness}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn freshness_follows_the_queue(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let api = platform.api(&[("FRESHNESS_DELAYED_SECONDS", "5")]).await?;
    let admin = system_admin(&api)?;
    let nothing = ask(&admin).await?;
    ensure!(
        nothing["state"] == "no_data"
            && nothing["counted_through"].is_null()
            && nothing["age_seconds"].is_null(),
        "{nothing}"
    );

    let mut worker = platform.worker(&[]).await?;
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 21,
        organizations: 3,
        start: end - time::Duration::days(2),
        end,
    };
    let events: Vec<Event> = Generator::new(&shape).take(500).collect();
    let publisher = platform.publisher().await?;
    publisher
        .publish(events[..400].iter().map(|event| &event.body))
        .await?;
    let published = OffsetDateTime::now_utc();
    let fresh = wait_counted(&admin, published).await?;
    ensure!(
        fresh["state"] == "live" && fresh["age_seconds"].as_f64().is_some_and(|age| age < 5.0),
        "{fresh}"
    );
    // What is said to be counted is counted.
    ensure!(platform.count("SELECT count(*) FROM usage_events").await? == 400);

    // A locked table holds the next events back: the moment must not pass their publication.
    let lock = e2e::servers::connect(&platform.owner_url()?).await?;
    lock.batch_execute("BEGIN; LOCK TABLE usage_events IN EXCLUSIVE MODE")
        .await?;
    let before = OffsetDateTime::now_utc();
    publisher
        .publish(events[400..].iter().map(|event| &event.body))
        .await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let delayed = loop {
        let freshness = ask(&admin).await?;
        ensure!(
            counted_through(&freshness)?.is_some_and(|through| through <= before),
            "{freshness} while events of {before} wait"
        );
        if freshness["state"] == "delayed" {
            break freshness;
        }
        ensure!(Instant::now() < deadline, "never delayed: {freshness}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    ensure!(
        delayed["age_seconds"].as_f64().is_some_and(|age| age > 5.0),
        "{delayed}"
    );
    lock.batch_execute("ROLLBACK").await?;
    platform.wait_stored(500, 0).await?;
    let after = OffsetDateTime::now_utc();
    wait_counted(&admin, after).await?;

    // Without a worker nobody looks: the claim stands still and ages.
    worker.kill().await?;
    let died = OffsetDateTime::now_utc();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let orphaned = ask(&admin).await?;
    ensure!(orphaned["state"] == "delayed", "{orphaned}");
    ensure!(
        counted_through(&orphaned)?.is_some_and(|through| through <= died),
        "{orphaned}"
    );
    Ok(())
}

/// All of a backlog fits into the workers' prefetch: the queue is empty, and nothing is counted.
async fn a_backlog_in_memory_is_not_counted(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let api = platform.api(&[]).await?;
    let admin = system_admin(&api)?;
    let queues = e2e::publisher::Queues::connect(&crate::platform::setting("E2E_RABBITMQ_URL")?).await?;
    queues.declare_quorum(&platform.queue, &[]).await?;
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 22,
        organizations: 3,
        start: end - time::Duration::hours(3),
        end,
    };
    let events: Vec<Event> = Generator::new(&shape).take(1_000).collect();
    let publisher = platform.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    let published = OffsetDateTime::now_utc();

    let lock = e2e::servers::connect(&platform.owner_url()?).await?;
    lock.batch_execute("BEGIN; LOCK TABLE usage_events IN EXCLUSIVE MODE")
        .await?;
    let mut worker = platform.worker(&[]).await?;
    queues
        .wait_ready(&platform.queue, 0, Duration::from_secs(10))
        .await?;
    let reports = "SELECT count(*) FROM ingest_workers WHERE beat_at > started_at + interval '4 seconds' \
                   AND oldest_unacked_at IS NOT NULL";
    while platform.count(reports).await? == 0 {
        let freshness = ask(&admin).await?;
        ensure!(
            freshness["counted_through"].is_null(),
            "{freshness} while nothing is stored"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    lock.batch_execute("ROLLBACK").await?;
    platform.wait_stored(1_000, 0).await?;
    wait_counted(&admin, published).await?;

    // One that ends in order takes nothing back, and its successor begins where it stood.
    let (status, _) = worker.terminate(Duration::from_secs(10)).await?;
    ensure!(status.success());
    ensure!(
        platform
            .count("SELECT count(*) FROM ingest_workers WHERE stopped")
            .await?
            == 1
    );
    let before = counted_through(&ask(&admin).await?)?;
    let _next = platform.worker(&[]).await?;
    ensure!(
        before.is_some() && counted_through(&ask(&admin).await?)? >= before,
        "it went back from {before:?}"
    );
    wait_counted(&admin, OffsetDateTime::now_utc()).await?;
    Ok(())
}

/// A late event is in every answer from its commit on, whichever rollup answers: the moment does not wait for anything.
async fn a_late_event_is_answered_at_its_commit(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let api = platform.api(&[]).await?;
    let admin = system_admin(&api)?;
    let _worker = platform.worker(&[]).await?;
    let now = OffsetDateTime::now_utc();
    let shape = |seed, days: std::ops::Range<i64>| Shape {
        seed,
        organizations: 3,
        start: now - time::Duration::days(days.end),
        end: now - time::Duration::days(days.start),
    };
    let publisher = platform.publisher().await?;
    let publish = async |events: Vec<Event>| -> Result<OffsetDateTime> {
        publisher.publish(events.iter().map(|event| &event.body)).await?;
        Ok(OffsetDateTime::now_utc())
    };
    publish(Generator::new(&shape(23, 0..4)).take(300).collect()).await?;
    platform.wait_stored(300, 0).await?;
    // Quarters of an hour, hours and days that have ended are closed now.
    platform.maintain().await?;

    let published = publish(Generator::new(&shape(24, 2..4)).take(200).collect()).await?;
    wait_counted(&admin, published).await?;
    for width in ["15m", "1h", "1d", "all"] {
        let question = [("period", "last_7d"), ("bucket_width", width), ("limit", "1000")];
        let answer = admin.get("system/usage", &question).await?;
        ensure!(answer["totals"]["requests"] == 500, "by {width}: {answer}");
    }
    Ok(())
}

async fn a_report_that_is_late_says_what_was_true(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    // The next report follows at once, so that each is written down.
    let keep = "CREATE TABLE beats (beat_at timestamptz, written_at timestamptz);
        CREATE FUNCTION keep_beat() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN INSERT INTO public.beats VALUES (NEW.beat_at, clock_timestamp()); RETURN NULL; END $$;
        CREATE TRIGGER keep_beat AFTER INSERT OR UPDATE ON ingest_workers
            FOR EACH ROW EXECUTE FUNCTION keep_beat()";
    platform.owner.batch_execute(keep).await?;
    let lock = e2e::servers::connect(&platform.owner_url()?).await?;
    lock.batch_execute("BEGIN; LOCK TABLE ingest_workers IN EXCLUSIVE MODE")
        .await?;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock' AND query LIKE '-- report%'";
    let deadline = Instant::now() + Duration::from_secs(20);
    while platform.count(waiting).await? == 0 {
        ensure!(Instant::now() < deadline, "no report came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It was true before now. A second must pass for the difference to show.
    let sent_by: SystemTime = platform
        .owner
        .query_one("SELECT clock_timestamp()", &[])
        .await?
        .get(0);
    lock.batch_execute("SELECT pg_sleep(1); COMMIT").await?;
    let late = "SELECT beat_at FROM beats WHERE written_at > $1 ORDER BY written_at LIMIT 1";
    let said: SystemTime = loop {
        if let Some(row) = platform.owner.query_opt(late, &[&sent_by]).await? {
            break row.get(0);
        }
        ensure!(Instant::now() < deadline, "the report was never written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    ensure!(
        said <= sent_by,
        "a report that was sent by {sent_by:?} says {said:?}"
    );
    Ok(())
}
