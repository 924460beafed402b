//! A database that dies, freezes, refuses and waits.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::servers::connect;

use crate::ground::Flavor;
use crate::scene::Scene;
use crate::worker::RETRIED;

crate::in_both_flavors!(;
    once: postmaster_kill_9,
    forced_deadlock;
    slow: read_only_failover_target,
    frozen_for_60_seconds,
    away_for_long,
    table_locked_for_60_seconds,
    connections_exhausted,
    password_changed,
);

async fn proof_by_retries(scene: &mut Scene) -> Result<()> {
    let retried = scene.metric(RETRIED).await?;
    scene.proof.add("batches tried again", retried);
    Ok(())
}

async fn postmaster_kill_9(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "postmaster kill -9").await?;
    scene.wait_up_to(Duration::from_millis(500)).await;
    scene.ground.postgres().kill().await?;
    scene.wait_up_to(Duration::from_secs(2)).await;
    scene.ground.postgres().restart().await?;
    scene.reconnect_owner().await?;
    scene.recovered().await?;
    let log = std::fs::read_to_string(scene.ground.postgres().log())?;
    let crashes = log.matches("was not properly shut down").count();
    scene.proof.add("recoveries from a crash", crashes as f64);
    proof_by_retries(&mut scene).await?;
    scene.verdict().await
}

async fn frozen_for_60_seconds(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "PostgreSQL SIGSTOP").await?;
    let before = scene.stored().await?;
    scene.ground.postgres().freeze();
    tokio::time::sleep(Duration::from_secs(60)).await;
    scene.ground.postgres().thaw();
    scene.recovered().await?;
    let grown = scene.stored().await? - before;
    scene.proof.add("events stored since", grown as f64);
    scene.verdict().await
}

async fn away_for_long(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "database away").await?;
    scene.ground.postgres().stop().await?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    scene.ground.postgres().restart().await?;
    scene.reconnect_owner().await?;
    scene.recovered().await?;
    proof_by_retries(&mut scene).await?;
    scene.verdict().await
}

async fn table_locked_for_60_seconds(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "table locked").await?;
    let url = scene.owner_url();
    let lock = connect(&url).await?;
    lock.batch_execute("BEGIN; LOCK TABLE usage_events IN EXCLUSIVE MODE")
        .await?;
    let before = scene.stored().await?;
    // Not at a multiple of the batch's deadline of 30 s: nobody may be waiting right then.
    tokio::time::sleep(Duration::from_secs(45)).await;
    let waiting = scene
        .count("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'usage_events'::regclass")
        .await?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    ensure!(scene.stored().await? == before, "void: the lock held nobody back");
    lock.batch_execute("ROLLBACK").await?;
    scene
        .proof
        .add("sessions that waited for the lock", waiting as f64);
    scene.recovered().await?;
    scene.verdict().await
}

/// Somebody locks rollup rows in the other order, and is more patient.
async fn forced_deadlock(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "forced deadlock").await?;
    let url = scene.owner_url();
    for _ in 0..2 {
        let other = connect(&url).await?;
        other
            .batch_execute(
                "SET deadlock_timeout = '1min'; SET statement_timeout = '4s'; BEGIN; \
                 SELECT FROM usage_quarter_hourly WHERE bucket > now() - interval '2 hours' FOR UPDATE",
            )
            .await?;
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'ingest-worker%' \
                     AND datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Instant::now() + Duration::from_secs(10);
        while scene.count(waits).await? == 0 {
            ensure!(Instant::now() < deadline, "void: no worker met the lock");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The worker has these already.
        let _ = other
            .batch_execute("SELECT FROM usage_quarter_hourly_by_user WHERE bucket > now() - interval '2 days' FOR UPDATE")
            .await;
        let _ = other.batch_execute("ROLLBACK").await;
        scene.recovered().await?;
    }
    // The statistics are told a moment later.
    let deadline = Instant::now() + Duration::from_secs(5);
    let deadlocks = loop {
        let deadlocks = scene
            .count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            .await?;
        if deadlocks > 0 || Instant::now() > deadline {
            break deadlocks;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    scene.proof.add("deadlocks", deadlocks as f64);
    proof_by_retries(&mut scene).await?;
    scene.verdict().await
}

async fn read_only_failover_target(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "read-only failover target").await?;
    let name = scene.name.clone();
    scene
        .owner
        .batch_execute(&format!(
            "ALTER DATABASE {name} SET default_transaction_read_only = on"
        ))
        .await?;
    // The old primary's sessions are gone.
    disconnect(&scene).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    scene
        .owner
        .batch_execute(&format!(
            "ALTER DATABASE {name} RESET default_transaction_read_only"
        ))
        .await?;
    disconnect(&scene).await?;
    scene.recovered().await?;
    let said = scene
        .workers
        .iter()
        .map(|worker| worker.log().matches("25006").count());
    let said: usize = said.sum();
    scene
        .proof
        .add("writes that were refused as read-only", said as f64);
    proof_by_retries(&mut scene).await?;
    scene.verdict().await
}

async fn disconnect(scene: &Scene) -> Result<()> {
    scene
        .count(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await?;
    Ok(())
}

async fn connections_exhausted(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "connections exhausted").await?;
    let name = scene.name.clone();
    scene
        .owner
        .batch_execute(&format!(
            "ALTER ROLE {name}_writer CONNECTION LIMIT 0; ALTER ROLE {name}_reader CONNECTION LIMIT 0"
        ))
        .await?;
    disconnect(&scene).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    // And those of the whole server: a superuser's sessions fill it, up to the last that it may have.
    scene
        .owner
        .batch_execute(&format!(
            "ALTER ROLE {name}_writer CONNECTION LIMIT -1; ALTER ROLE {name}_reader CONNECTION LIMIT -1"
        ))
        .await?;
    let url = scene.owner_url();
    let mut hoard = Vec::new();
    for _ in 0..60 {
        match connect(&url).await {
            Ok(client) => hoard.push(client),
            Err(_) => break,
        }
    }
    disconnect_workers(&scene, &name).await?;
    // Theirs are taken at once, too.
    while let Ok(client) = connect(&url).await {
        hoard.push(client);
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let held = hoard.len();
    drop(hoard);
    scene.recovered().await?;
    let said = scene
        .workers
        .iter()
        .map(|worker| worker.log().matches("53300").count());
    let said: usize = said.sum();
    scene.proof.add("connections that were refused", said as f64);
    scene.proof.add("connections that others held", held as f64);
    scene.verdict().await
}

async fn disconnect_workers(scene: &Scene, name: &str) -> Result<()> {
    scene
        .count(&format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{name}_writer'"
        ))
        .await?;
    Ok(())
}

async fn password_changed(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "password changed").await?;
    let name = scene.name.clone();
    // From now on the writer needs a password that the worker does not have.
    scene
        .ground
        .postgres()
        .authenticate(&[&format!("{name}_writer")])
        .await?;
    scene
        .owner
        .batch_execute(&format!("ALTER ROLE {name}_writer PASSWORD 'another'"))
        .await?;
    disconnect_workers(&scene, &name).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let during = scene.stored().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(
        scene.stored().await? == during,
        "void: the worker needs no password"
    );
    scene.ground.postgres().authenticate(&[]).await?;
    scene.recovered().await?;
    proof_by_retries(&mut scene).await?;
    scene.verdict().await
}
