//! Workers that die, stop, freeze, come and go.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::flow::Load;
use e2e::process::Service;
use e2e::publisher::Queues;
use nix::sys::signal::Signal;

use crate::ground::Flavor;
use crate::scene::Scene;

crate::in_both_flavors!(
    kill_9_mid_batch,
    death_between_commit_and_ack;
    once: sigterm_at_full_load;
    slow: kill_9_mid_batch_20_times,
    death_before_the_commit,
    frozen_for_90_seconds,
    twenty_fast_restarts,
    one_to_eight_to_one_and_a_rolling_restart,
    a_large_backlog_in_128_mib,
    clock_an_hour_ahead_and_behind,
    lost_between_consumer_and_lane,
);

pub(crate) const REDELIVERED: &str = "usage_ingest_deliveries_redelivered_total";
pub(crate) const DUPLICATES: &str = "usage_ingest_events_duplicate_total";
pub(crate) const RETRIED: &str = "usage_ingest_batches_retried_total";
/// Sessions that the watchdog ended.
const STALLED: &str = "usage_ingest_sessions_given_up_total{kind=\"stalled\"}";
pub(crate) const CONNECTIONS: &str = "usage_ingest_broker_connections_total";

async fn kill_9_mid_batch(flavor: Flavor) -> Result<()> {
    kill_rounds(flavor, 4).await
}

async fn kill_9_mid_batch_20_times(flavor: Flavor) -> Result<()> {
    kill_rounds(flavor, 20).await
}

async fn kill_rounds(flavor: Flavor, rounds: usize) -> Result<()> {
    let mut scene = Scene::begin(flavor, "kill -9 mid-batch").await?;
    let mut redelivered = 0.0;
    for _ in 0..rounds {
        scene.wait_up_to(Duration::from_millis(500)).await;
        let mut victim = scene.workers.pop().context("a worker runs")?;
        redelivered += victim.metric(REDELIVERED).await?;
        victim.kill().await?;
        scene.start_worker(&[]).await?;
    }
    scene.recovered().await?;
    redelivered += scene.metric(REDELIVERED).await?;
    scene
        .proof
        .add("deliveries that a dead worker had not acknowledged", redelivered);
    scene.verdict().await
}

/// The process ends at a moment that no signal would hit, and another one takes over. A message in ten is
/// malformed, so that every batch has some.
async fn die_at(flavor: Flavor, what: &'static str, failpoint: &str) -> Result<Scene> {
    let mut scene = Scene::calm(flavor, what).await?;
    scene.start_flow(Load {
        malformed_one_in: 10,
        ..Load::of(scene.seed())
    });
    for round in 0..3 {
        let hit = 1 + scene.random.below(8);
        let setting = format!("{failpoint}=abort@{hit}");
        let mut victim = scene.launch_worker(&[("FAILPOINTS", &setting)])?;
        let status = wait_ended(&mut victim).await?;
        ensure!(
            status.signal() == Some(Signal::SIGABRT as i32) && victim.log().contains("failpoint reached"),
            "round {round}: {status}; {}",
            victim.log()
        );
        scene.proof.add("death at the failpoint", 1.0);
    }
    scene.start_worker(&[]).await?;
    scene.recovered().await?;
    Ok(scene)
}

async fn wait_ended(worker: &mut Service) -> Result<std::process::ExitStatus> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = worker.ended()? {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "still running: {}", worker.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn death_between_commit_and_ack(flavor: Flavor) -> Result<()> {
    let mut scene = die_at(flavor, "death between COMMIT and ack", "before_ack").await?;
    let redelivered = scene.metric(REDELIVERED).await?;
    scene.proof.add("deliveries that came again", redelivered);
    scene.verdict().await
}

async fn death_before_the_commit(flavor: Flavor) -> Result<()> {
    let mut scene = die_at(flavor, "death before the COMMIT", "before_commit").await?;
    let redelivered = scene.metric(REDELIVERED).await?;
    scene.proof.add("deliveries that came again", redelivered);
    scene.verdict().await
}

async fn sigterm_at_full_load(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::calm(flavor, "SIGTERM at full load").await?;
    // A backlog that takes a while, and more that keeps coming.
    let queues = Queues::connect(&scene.ground.rabbitmq().url()).await?;
    queues.declare_quorum(&scene.queue, &[]).await?;
    let backlog = scene.events(40_000);
    let publisher = scene.publisher().await?;
    publisher.publish(backlog.iter().map(|event| &event.body)).await?;
    scene.more.events.extend(backlog);
    scene.start_flow(Load::of(scene.seed()));
    scene.start_worker(&[]).await?;
    scene.wait_stored_at_least(2_000).await?;
    scene.wait_up_to(Duration::from_millis(300)).await;
    let mut worker = scene.workers.pop().context("a worker runs")?;
    let (status, took) = worker.terminate(Duration::from_secs(11)).await?;
    ensure!(
        status.success() && took < Duration::from_secs(10),
        "{status} after {took:?}"
    );
    let left = queues.ready(&scene.queue).await?.unwrap_or(0);
    scene
        .proof
        .add("messages that still waited at the end", f64::from(left));
    scene.start_worker(&[]).await?;
    scene.recovered().await?;
    let redelivered = scene.metric(REDELIVERED).await?;
    ensure!(
        redelivered < 100.0,
        "{redelivered} deliveries came again after an end in order"
    );
    scene.verdict().await
}

async fn frozen_for_90_seconds(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "worker SIGSTOP").await?;
    scene.wait_up_to(Duration::from_millis(300)).await;
    let worker = scene.workers.first().context("a worker runs")?;
    worker.freeze();
    // By then the broker has given it up, and the database its transaction.
    tokio::time::sleep(Duration::from_secs(90)).await;
    worker.thaw();
    scene.recovered().await?;
    let generations = scene.metric(CONNECTIONS).await? - 1.0;
    scene
        .proof
        .add("connections that were lost to the sleep", generations);
    scene.verdict().await
}

async fn twenty_fast_restarts(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "20 fast restarts").await?;
    let mut redelivered = 0.0;
    for round in 0..20 {
        scene.wait_up_to(Duration::from_millis(200)).await;
        let mut worker = scene.workers.pop().context("a worker runs")?;
        redelivered += worker.metric(REDELIVERED).await?;
        if round % 2 == 0 {
            worker.kill().await?;
        } else {
            let (status, _) = worker.terminate(Duration::from_secs(11)).await?;
            ensure!(status.success(), "round {round}: {status}");
        }
        scene.start_worker(&[]).await?;
    }
    scene.proof.add("restarts", 20.0);
    scene.proof.add("redelivered", redelivered);
    scene.recovered().await?;
    scene.verdict().await
}

async fn one_to_eight_to_one_and_a_rolling_restart(flavor: Flavor) -> Result<()> {
    // So many lanes that they meet on the same organizations, and few connections each.
    let settings = [("WRITER_LANES", "1"), ("CONSUMER_WORKERS", "2")];
    let mut scene = Scene::begin_with(flavor, "1 -> 8 -> 1 workers", &settings).await?;
    let mut launched = Vec::new();
    for _ in 0..7 {
        launched.push(scene.launch_worker(&settings)?);
    }
    for mut worker in launched {
        worker.wait_ready(Duration::from_secs(60)).await?;
        scene.workers.push(worker);
    }
    let before = scene.stored().await?;
    scene.wait_stored_at_least(before + 2_000).await?;
    let mut busy = 0.0;
    for worker in &scene.workers {
        let stored = worker.metric("usage_ingest_events_stored_total").await?;
        busy += f64::from(u8::from(stored > 0.0));
    }
    scene
        .proof
        .add("workers that stored something beside the first", busy - 1.0);
    // A rolling restart: a new one first, then an old one goes.
    for _ in 0..8 {
        scene.start_worker(&settings).await?;
        let (status, _) = scene.workers.remove(0).terminate(Duration::from_secs(11)).await?;
        ensure!(status.success(), "{status}");
    }
    while scene.workers.len() > 1 {
        let (status, _) = scene.workers.remove(0).terminate(Duration::from_secs(11)).await?;
        ensure!(status.success(), "{status}");
    }
    scene.recovered().await?;
    scene.verdict().await
}

async fn a_large_backlog_in_128_mib(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::calm(flavor, "128 MiB and a backlog").await?;
    let queues = Queues::connect(&scene.ground.rabbitmq().url()).await?;
    queues.declare_quorum(&scene.queue, &[]).await?;
    let publisher = scene.publisher().await?;
    for _ in 0..10 {
        let part = scene.events(20_000);
        publisher.publish(part.iter().map(|event| &event.body)).await?;
        scene.more.events.extend(part);
    }
    let backlog = queues.ready(&scene.queue).await?.unwrap_or(0);
    scene
        .proof
        .add("messages beyond the prefetch", f64::from(backlog) - 20_000.0);
    scene.start_worker(&[]).await?;
    let published = scene.end_of_flow().await?;
    scene.wait_all_stored(&published).await?;
    scene.more = published;
    for worker in &scene.workers {
        let peak = worker.peak_rss_bytes().context("it runs")?;
        ensure!(peak < 128 << 20, "it took {} MiB", peak >> 20);
    }
    scene.verdict().await
}

/// Times are decided by the database's clock; the worker's own may be anything.
async fn clock_an_hour_ahead_and_behind(flavor: Flavor) -> Result<()> {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !std::path::Path::new(library).exists() {
        e2e::progress::say("## NOT TESTED: a worker with a wrong clock, as libfaketime is not installed ##");
        return Ok(());
    }
    let mut scene = Scene::calm(flavor, "worker clock an hour off").await?;
    scene.start_flow(Load::of(scene.seed()));
    for (offset, seconds) in [("+1h", 3600), ("-1h", -3600)] {
        let clock = [
            ("LD_PRELOAD", library),
            ("FAKETIME", offset),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        scene.start_worker(&clock).await?;
        let stored = scene.stored().await?;
        scene.wait_stored_at_least(stored + 1_000).await?;
        let worker = scene.workers.last().context("a worker runs")?;
        let log = worker.log();
        let said = log.split_whitespace().next().context("it says something")?;
        let said = time::OffsetDateTime::parse(said, &time::format_description::well_known::Rfc3339)
            .with_context(|| format!("{said} begins a line of its log"))?;
        let off = (said - time::OffsetDateTime::now_utc()).whole_seconds();
        let is_off = (off - seconds).abs() < 120;
        scene
            .proof
            .add("a worker whose clock is off", f64::from(u8::from(is_off)));
    }
    scene.recovered().await?;
    scene.verdict().await
}

/// Deliveries that the client loses pin the watermark of their channel, and nobody works on them. The watchdog ends
/// the session, and they come again with all that could not be acknowledged behind them.
async fn lost_between_consumer_and_lane(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::calm(flavor, "deliveries lost by the client").await?;
    let settings = [
        ("FAILPOINTS", "hand_over=lose@3"),
        ("BATCH_DEADLINE_SECONDS", "5"),
    ];
    scene.start_worker(&settings).await?;
    let events = scene.events(3_000);
    let publisher = scene.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    scene.more.events.extend(events);
    // The deadline of a batch and the time for a new connection, in which nothing must move.
    let patience = Duration::from_secs(95 + 30);
    let began = Instant::now();
    let mut lost = 0;
    while scene.metric(STALLED).await? == 0.0 {
        lost = 3_000 - scene.stored().await?;
        ensure!(
            began.elapsed() < patience,
            "{lost} deliveries are lost, and nobody notices; {}",
            scene.log_tails()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(
        began.elapsed() > Duration::from_secs(90),
        "given up after {:?} already",
        began.elapsed()
    );
    scene
        .proof
        .add("events nobody worked on", f64::from(i32::try_from(lost)?));
    scene.recovered().await?;
    let redelivered = scene.metric(REDELIVERED).await?;
    scene.proof.add("deliveries that came again", redelivered);
    let generations = scene.metric(CONNECTIONS).await? - 1.0;
    scene.proof.add("sessions made anew", generations);
    scene.verdict().await
}
