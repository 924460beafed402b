//! A test of the tests: each rule that the promise rests on is broken on purpose, and the oracle must see
//! it. What cannot fail proves nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::ground::Flavor;
use crate::scene::Scene;

crate::in_both_flavors!(;
    once: an_ack_before_the_commit_is_seen,
    swallowed_malformed_messages_are_seen;
    slow: no_unique_key_is_seen,
    an_ack_past_an_unresolved_delivery_is_seen,
    a_fault_that_did_not_happen_is_seen,
);

/// Small batches, so that few events are enough.
const SMALL: (&str, &str) = ("BATCH_SIZE", "100");

async fn begin(flavor: Flavor, what: &'static str) -> Result<Scene> {
    let mut scene = Scene::calm(flavor, what).await?;
    scene.patience = Duration::from_secs(4);
    scene.proof.add("rule broken", 1.0);
    Ok(scene)
}

async fn publish(scene: &mut Scene, count: usize) -> Result<()> {
    let events = scene.events(count);
    let publisher = scene.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    scene.more.events.extend(events);
    Ok(())
}

/// The oracle must fail, and say this.
async fn must_fail(scene: Scene, word: &str) -> Result<()> {
    let verdict = scene.verdict().await;
    let said = match verdict {
        Ok(()) => anyhow::bail!("the oracle saw nothing"),
        Err(error) => format!("{error:#}"),
    };
    ensure!(
        said.contains(word),
        "the oracle failed for another reason: {said}"
    );
    Ok(())
}

async fn wait_for_failpoint(scene: &Scene) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !scene.workers[0].log().contains("failpoint reached") {
        ensure!(Instant::now() < deadline, "void: the failpoint was never reached");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn an_ack_before_the_commit_is_seen(flavor: Flavor) -> Result<()> {
    let mut scene = begin(flavor, "control: ack before commit").await?;
    let settings = [
        ("BROKEN_RULE", "ack_before_commit"),
        ("FAILPOINTS", "before_commit=pause@4"),
        SMALL,
    ];
    scene.start_worker(&settings).await?;
    publish(&mut scene, 3_000).await?;
    wait_for_failpoint(&scene).await?;
    // What it said to be done is by now gone from the broker.
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.workers.remove(0).kill().await?;
    scene.start_worker(&[]).await?;
    must_fail(scene, "events and dead letters are stored, not").await
}

async fn an_ack_past_an_unresolved_delivery_is_seen(flavor: Flavor) -> Result<()> {
    let mut scene = begin(flavor, "control: ack past an unresolved delivery").await?;
    // One lane is held, the other one goes on.
    let settings = [
        ("BROKEN_RULE", "ack_past_unresolved"),
        ("FAILPOINTS", "before_commit=pause@4"),
        ("CONSUMER_WORKERS", "1"),
        SMALL,
    ];
    scene.start_worker(&settings).await?;
    publish(&mut scene, 3_000).await?;
    wait_for_failpoint(&scene).await?;
    // Until the other lane has nothing left that it can do.
    let mut stored = (scene.stored().await?, Instant::now());
    while stored.1.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = scene.stored().await?;
        if now != stored.0 {
            stored = (now, Instant::now());
        }
    }
    scene.workers.remove(0).kill().await?;
    scene.start_worker(&[]).await?;
    must_fail(scene, "events and dead letters are stored, not").await
}

async fn no_unique_key_is_seen(flavor: Flavor) -> Result<()> {
    let mut scene = begin(flavor, "control: no unique key").await?;
    scene.owner.batch_execute("DROP INDEX usage_events_key").await?;
    scene
        .start_worker(&[("FAILPOINTS", "before_ack=abort@4"), SMALL])
        .await?;
    publish(&mut scene, 3_000).await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while scene.workers[0].ended()?.is_none() {
        ensure!(Instant::now() < deadline, "void: the worker did not die");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.workers.clear();
    scene.start_worker(&[]).await?;
    must_fail(scene, "events and dead letters are stored, not").await
}

async fn swallowed_malformed_messages_are_seen(flavor: Flavor) -> Result<()> {
    let mut scene = begin(flavor, "control: malformed messages swallowed").await?;
    scene
        .start_worker(&[("BROKEN_RULE", "swallow_malformed")])
        .await?;
    publish(&mut scene, 500).await?;
    let now = time::OffsetDateTime::now_utc();
    // The last one is refused by the database's clock, later than the others.
    let malformed = e2e::malformed::twenty(now);
    let publisher = scene.publisher().await?;
    publisher
        .publish(malformed.iter().map(|message| &message.body))
        .await?;
    scene.more.malformed.extend(malformed);
    must_fail(scene, "events and dead letters are stored, not").await
}

async fn a_fault_that_did_not_happen_is_seen(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "control: no fault").await?;
    let retried = scene.metric(crate::worker::RETRIED).await?;
    scene.proof.add("batches tried again", retried);
    must_fail(scene, "void").await
}
