//! Half an hour (`SOAK_MINUTES`) at half of the rate that the machine carries, publisher and all, with random
//! faults all the time: exact at the end, with flat memory and file descriptors. `make soak` runs it, on release
//! builds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::flow::{Flow, Load};
use e2e::process::Service;
use e2e::progress::say;
use e2e::proxy::{Rules, Snap};
use e2e::servers::connect;

use crate::ground::Flavor;
use crate::scene::{Scene, setting};
use crate::worker::REDELIVERED;

/// Messages in a second that no two cores carry: to find out how many they do.
const FLAT_OUT: u64 = 100_000;
/// For how long that is looked at, once the worker has met the flow.
const TRIAL: Duration = Duration::from_secs(20);
/// A malformed message is a row of its own kind: enough of them to be among every fault, few enough to be kept.
const MALFORMED_ONE_IN: u64 = 1_000;
/// How much a worker may have grown over the second half of its life.
const GROWTH: u64 = 24 << 20;

/// On the flavor that the machine has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make soak runs it"]
async fn soak() -> Result<()> {
    let minutes = setting("SOAK_MINUTES").unwrap_or_else(|_| "30".to_owned());
    let minutes: u64 = minutes.parse().context("SOAK_MINUTES")?;
    let flavor = if Flavor::TimescaleDb.is_here() {
        Flavor::TimescaleDb
    } else {
        Flavor::Postgres
    };
    let mut scene = Scene::calm(flavor, "soak").await?;
    let most = measure_rate(&mut scene).await?;
    let rate = most / 2;
    say(format_args!(
        "soak: {most} events/s at most; {minutes} minutes at {rate} events/s"
    ));
    scene.start_flow(Load {
        rate,
        ..load(scene.seed())
    });
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    // One worker is never killed: its memory and descriptors are watched.
    scene.start_worker(&[]).await?;
    let mut samples = Vec::new();
    let mut redelivered = 0.0;
    let mut faults = 0;
    while Instant::now() < end {
        scene.wait_up_to(Duration::from_secs(8)).await;
        let (name, more) = strike(&mut scene).await?;
        redelivered += more;
        faults += 1;
        scene
            .recovered_within(Duration::from_secs(30))
            .await
            .context(name)?;
        let survivor = scene.workers.first().context("one is never killed")?;
        samples.push(sample(survivor)?);
        let (memory, descriptors) = samples[samples.len() - 1];
        say(format_args!(
            "soak: {name}; {} events; {} MiB, {descriptors} descriptors; {:.0} s left",
            scene.flow.as_ref().map_or(0, Flow::events),
            memory >> 20,
            end.saturating_duration_since(Instant::now()).as_secs_f64()
        ));
    }
    scene.proof.add("faults", f64::from(faults));
    scene
        .proof
        .add("redelivered", redelivered + scene.metric(REDELIVERED).await?);
    assert_flat(&samples)?;
    scene.patience = Duration::from_secs(60);
    scene.verdict().await
}

fn load(seed: u64) -> Load {
    Load {
        rate: FLAT_OUT,
        malformed_one_in: MALFORMED_ONE_IN,
        keep_bodies: false,
        ..Load::of(seed)
    }
}

/// How many events a second are stored while more are published than that.
async fn measure_rate(scene: &mut Scene) -> Result<u64> {
    scene.start_flow(load(!scene.seed()));
    scene.start_worker(&[]).await?;
    scene.wait_stored_at_least(50_000).await?;
    let made = |scene: &Scene| scene.flow.as_ref().map_or(0, Flow::events);
    let (began, stored, published) = (Instant::now(), scene.stored().await?, made(scene));
    tokio::time::sleep(TRIAL).await;
    let stored = u64::try_from(scene.stored().await? - stored)?;
    let took = began.elapsed();
    let published = made(scene) - published;
    let of_trial = scene.end_of_flow().await?;
    scene.wait_all_stored(&of_trial).await?;
    say(format_args!(
        "soak: {published} events were published and {stored} stored in {took:.1?}"
    ));
    scene.more = of_trial;
    Ok(stored * 1_000 / u64::try_from(took.as_millis())?)
}

/// One random fault, begun and ended; how many redeliveries a dead worker had seen.
async fn strike(scene: &mut Scene) -> Result<(&'static str, f64)> {
    let short = Duration::from_secs(3);
    let mut redelivered = 0.0;
    let name = match scene.random.below(10) {
        0 => {
            let mut victim = scene.workers.pop().context("a second worker runs")?;
            redelivered = victim.metric(REDELIVERED).await?;
            victim.kill().await?;
            scene.start_worker(&[]).await?;
            "kill -9 of a worker"
        }
        1 => {
            let mut leaving = scene.workers.pop().context("a second worker runs")?;
            redelivered = leaving.metric(REDELIVERED).await?;
            let (status, _) = leaving.terminate(Duration::from_secs(11)).await?;
            ensure!(status.success(), "SIGTERM: {status}");
            scene.start_worker(&[]).await?;
            "SIGTERM of a worker"
        }
        2 => {
            let sleeper = scene.workers.last().context("a worker runs")?;
            sleeper.freeze();
            tokio::time::sleep(short).await;
            sleeper.thaw();
            "SIGSTOP of a worker"
        }
        3 => {
            scene.ground.postgres().freeze();
            tokio::time::sleep(short).await;
            scene.ground.postgres().thaw();
            "SIGSTOP of PostgreSQL"
        }
        4 => {
            scene.ground.postgres().kill().await?;
            scene.ground.postgres().restart().await?;
            scene.reconnect_owner().await?;
            "kill -9 of the postmaster"
        }
        5 => {
            scene.broker.reset();
            scene.database.reset();
            "resets"
        }
        6 => {
            let before = scene.database.counts().sprung;
            scene
                .database
                .set(Rules::trap(b"-- commit\nCOMMIT", Snap::BeforeAnswer, 3));
            let deadline = Instant::now() + Duration::from_secs(20);
            while scene.database.counts().sprung < before + 3 && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            scene.database.heal();
            "answers to COMMIT lost"
        }
        7 => {
            let url = scene.owner_url();
            let lock = connect(&url).await?;
            lock.batch_execute("BEGIN; LOCK TABLE usage_events IN EXCLUSIVE MODE")
                .await?;
            tokio::time::sleep(short).await;
            lock.batch_execute("ROLLBACK").await?;
            "table locked"
        }
        8 => {
            scene.broker.set(Rules::black_hole());
            tokio::time::sleep(short).await;
            scene.broker.heal();
            "black hole to the broker"
        }
        _ => {
            scene.database.set(Rules::round_trip(Duration::from_millis(200)));
            tokio::time::sleep(short).await;
            scene.database.heal();
            "slow database"
        }
    };
    Ok((name, redelivered))
}

/// Resident memory and open file descriptors.
fn sample(worker: &Service) -> Result<(u64, usize)> {
    let process = worker.process();
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", process.number()))?.count();
    Ok((process.rss_bytes().context("it runs")?, descriptors))
}

/// The last quarter is no larger than the second one, but for noise.
fn assert_flat(samples: &[(u64, usize)]) -> Result<()> {
    let quarter = samples.len() / 4;
    if quarter == 0 {
        return Ok(());
    }
    let most = |part: &[(u64, usize)]| {
        (
            part.iter().map(|(memory, _)| *memory).max().unwrap_or(0),
            part.iter()
                .map(|(_, descriptors)| *descriptors)
                .max()
                .unwrap_or(0),
        )
    };
    let early = most(&samples[quarter..2 * quarter]);
    let late = most(&samples[3 * quarter..]);
    ensure!(
        late.0 < early.0 + GROWTH && late.1 <= early.1 + 8,
        "memory and descriptors grew from {early:?} to {late:?}"
    );
    Ok(())
}
