//! What the network does between a worker and its servers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::proxy::{Proxy, Rules, Snap};

use crate::ground::Flavor;
use crate::scene::Scene;
use crate::worker::{CONNECTIONS, DUPLICATES, REDELIVERED, RETRIED};

crate::in_both_flavors!(
    answers_to_commit_are_lost;
    once: connections_are_reset_and_carry_garbage;
    slow: commits_never_arrive,
    slow_database_200_ms,
    slow_database_5_s,
    a_thin_line_to_both_servers,
    black_hole_to_the_broker,
    black_hole_to_the_database,
    half_open_connections,
    half_closed_connections,
    partition_in_mid_copy_with_two_workers,
);

async fn wait_for(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !is_so() {
        ensure!(
            Instant::now() < deadline,
            "void: {what} did not happen within {patience:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn answers_to_commit_are_lost(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "answers to COMMIT lost").await?;
    scene
        .database
        .set(Rules::trap(b"-- commit\nCOMMIT", Snap::BeforeAnswer, 5));
    wait_for("a lost answer", Duration::from_secs(30), || {
        scene.database.counts().sprung == 5
    })
    .await?;
    scene.database.heal();
    scene.recovered().await?;
    let (duplicates, retried) = (scene.metric(DUPLICATES).await?, scene.metric(RETRIED).await?);
    scene
        .proof
        .add("committed events that were written again", duplicates);
    scene.proof.add("batches tried again", retried);
    scene.verdict().await
}

async fn commits_never_arrive(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "COMMIT never arrives").await?;
    scene
        .database
        .set(Rules::trap(b"-- commit\nCOMMIT", Snap::BeforeRequest, 5));
    wait_for("a lost request", Duration::from_secs(30), || {
        scene.database.counts().sprung == 5
    })
    .await?;
    scene.database.heal();
    scene.recovered().await?;
    let retried = scene.metric(RETRIED).await?;
    scene.proof.add("batches tried again", retried);
    scene.verdict().await
}

async fn connections_are_reset_and_carry_garbage(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "RST and garbage").await?;
    for round in 0..6 {
        scene.wait_up_to(Duration::from_millis(600)).await;
        match round % 4 {
            0 => scene.broker.reset(),
            1 => scene.database.reset(),
            2 => scene
                .broker
                .inject_to_clients(b"\x01\x00\x01\x00\x00\x00\x04what\xce\xff\xff garbage"),
            _ => {
                scene.broker.reset();
                scene.database.reset();
            }
        }
        scene.recovered().await?;
    }
    let lost = scene.metric(CONNECTIONS).await? - 1.0;
    let cut = scene.database.counts().cut;
    scene.proof.add("connections to the broker that were lost", lost);
    scene
        .proof
        .add("connections to the database that were reset", cut as f64);
    scene.verdict().await
}

async fn slow_database(flavor: Flavor, round_trip: Duration) -> Result<()> {
    let mut scene = Scene::begin(flavor, "slow database").await?;
    scene.database.set(Rules::round_trip(round_trip));
    let before = scene.stored().await?;
    // A batch with duplicates of stored events is tried, rolled back and written around them: a dozen round trips.
    let (began, patience) = (Instant::now(), round_trip * 24);
    let mut during = 0;
    while began.elapsed() < Duration::from_secs(5) || during == 0 && began.elapsed() < patience {
        tokio::time::sleep(Duration::from_millis(100)).await;
        during = scene.stored().await? - before;
    }
    scene
        .proof
        .add("events stored over the slow connection", during as f64);
    ensure!(
        scene.metric(CONNECTIONS).await? < 2.0,
        "slowness is no reason to leave the broker"
    );
    scene.database.heal();
    scene.recovered().await?;
    scene.verdict().await
}

async fn slow_database_200_ms(flavor: Flavor) -> Result<()> {
    slow_database(flavor, Duration::from_millis(200)).await
}

async fn slow_database_5_s(flavor: Flavor) -> Result<()> {
    slow_database(flavor, Duration::from_secs(5)).await
}

async fn a_thin_line_to_both_servers(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "thin lines").await?;
    scene.database.set(Rules::throttle(300_000));
    scene.broker.set(Rules::throttle(300_000));
    let before = scene.stored().await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let during = scene.stored().await? - before;
    scene.proof.add("events stored over thin lines", during as f64);
    scene.database.heal();
    scene.broker.heal();
    scene.recovered().await?;
    scene.verdict().await
}

async fn black_hole_to_the_broker(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "black hole to the broker").await?;
    scene.broker.set(Rules::black_hole());
    // Two missed heartbeats later both sides have given the connection up.
    tokio::time::sleep(Duration::from_secs(40)).await;
    let held = scene.broker.counts().held;
    scene.broker.reset();
    scene.broker.heal();
    scene.recovered().await?;
    let lost = scene.metric(CONNECTIONS).await? - 1.0;
    scene.proof.add("pieces that were held", held as f64);
    scene.proof.add("connections that were given up", lost);
    scene.verdict().await
}

async fn black_hole_to_the_database(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "black hole to the database").await?;
    scene.database.set(Rules::black_hole());
    tokio::time::sleep(Duration::from_secs(25)).await;
    let held = scene.database.counts().held;
    // As a network does that comes back after its connections were forgotten.
    scene.database.reset();
    scene.database.heal();
    scene.recovered().await?;
    let retried = scene.metric(RETRIED).await?;
    scene.proof.add("pieces that were held", held as f64);
    scene.proof.add("batches tried again", retried);
    scene.verdict().await
}

async fn half_open_connections(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "half-open connections").await?;
    // The other end is gone, and nobody says so: heartbeats must find out by themselves.
    scene.broker.half_open();
    let began = Instant::now();
    while scene.metric(CONNECTIONS).await? < 2.0 {
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "a connection without a peer was not given up"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    scene.proof.add("connections that were given up", 1.0);
    scene.recovered().await?;
    scene.broker.reset();
    scene.recovered().await?;
    scene.verdict().await
}

async fn half_closed_connections(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "half-closed connections").await?;
    let before = scene.broker.counts().accepted + scene.database.counts().accepted;
    for proxy in [&scene.broker, &scene.database] {
        proxy.set(Rules::end_to_clients());
        tokio::time::sleep(Duration::from_secs(3)).await;
        proxy.heal();
    }
    scene.recovered().await?;
    let after = scene.broker.counts().accepted + scene.database.counts().accepted;
    scene
        .proof
        .add("connections that were made anew", (after - before) as f64);
    let lost = scene.metric(CONNECTIONS).await? - 1.0;
    scene.proof.add("connections to the broker that were lost", lost);
    scene.verdict().await
}

/// One of two workers is cut off from everything in the middle of a COPY. Its rows stand in the database
/// uncommitted, and the other one gets the same events.
async fn partition_in_mid_copy_with_two_workers(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "partition mid-COPY").await?;
    let database = Proxy::start(scene.ground.postgres().port()).await?;
    let broker = Proxy::start(scene.ground.rabbitmq().port()).await?;
    // Small pieces of a COPY pass before the line goes silent.
    database.set(Rules::trap(b"PGCOPY\n\xff\r\n\0", Snap::Silence, 2));
    let mut lonely = scene.launch_worker_through(database.port(), broker.port(), &[])?;
    lonely.wait_ready(Duration::from_secs(30)).await?;
    wait_for("a COPY of the second worker", Duration::from_secs(30), || {
        database.counts().sprung > 0
    })
    .await?;
    broker.set(Rules::black_hole());
    database.set(Rules::black_hole());
    // The broker gives the lonely one up and delivers to the other. What is left in the database ends by the server's
    // timeout, or where that does not see it (in a COPY; TCP goes on answering here), when the other one has waited
    // for it to its batch's deadline of 60 s.
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut redelivered = 0.0;
    while redelivered == 0.0 {
        ensure!(
            Instant::now() < deadline,
            "nothing came to the other worker within 120 s"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        redelivered = scene.metric(REDELIVERED).await?;
    }
    scene
        .proof
        .add("COPYs that were cut off", database.counts().sprung as f64);
    scene
        .proof
        .add("events that came to the other worker", redelivered);
    database.reset();
    broker.reset();
    database.heal();
    broker.heal();
    scene.recovered().await?;
    scene.workers.push(lonely);
    let reconnected = scene.workers.last().context("just pushed")?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while reconnected.metric("usage_ingest_broker_up").await? < 1.0 {
        ensure!(Instant::now() < deadline, "the lonely worker never came back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    scene.verdict().await
}
