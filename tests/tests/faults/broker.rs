//! A broker that dies, freezes, refuses, forgets its queue and gives up waiting.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::flow::Load;
use e2e::publisher::Queues;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};

use crate::ground::Flavor;
use crate::scene::Scene;
use crate::worker::{CONNECTIONS, REDELIVERED};

crate::in_both_flavors!(;
    once: kill_9;
    slow: ten_restarts,
    frozen_for_60_seconds,
    memory_and_disk_alarm,
    queue_deleted_and_recreated,
    consumer_timeout,
    a_header_that_is_not_utf_8,
);

async fn proof_by_connections(scene: &mut Scene) -> Result<()> {
    let lost = scene.metric(CONNECTIONS).await? - 1.0;
    scene.proof.add("connections that were lost", lost);
    Ok(())
}

async fn kill_9(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "broker kill -9").await?;
    scene.wait_registered().await;
    scene.wait_up_to(Duration::from_millis(500)).await;
    scene.ground.rabbitmq().kill().await?;
    scene.wait_up_to(Duration::from_secs(1)).await;
    scene.ground.rabbitmq().restart().await?;
    scene.recovered().await?;
    proof_by_connections(&mut scene).await?;
    scene.verdict().await
}

async fn ten_restarts(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "broker restart x 10").await?;
    scene.wait_registered().await;
    for _ in 0..10 {
        scene.wait_up_to(Duration::from_millis(500)).await;
        scene.ground.rabbitmq().stop().await?;
        scene.ground.rabbitmq().restart().await?;
        scene.recovered().await?;
    }
    proof_by_connections(&mut scene).await?;
    scene.verdict().await
}

async fn frozen_for_60_seconds(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "broker SIGSTOP").await?;
    scene.ground.rabbitmq().freeze();
    tokio::time::sleep(Duration::from_secs(60)).await;
    scene.ground.rabbitmq().thaw();
    scene.recovered().await?;
    proof_by_connections(&mut scene).await?;
    scene.verdict().await
}

async fn memory_and_disk_alarm(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "memory and disk alarm").await?;
    for (set, reset) in [
        (
            ["set_vm_memory_high_watermark", "0.00001"],
            ["set_vm_memory_high_watermark", "0.4"],
        ),
        (
            ["set_disk_free_limit", "100000GB"],
            ["set_disk_free_limit", "50MB"],
        ),
    ] {
        let broker = scene.ground.rabbitmq();
        broker.ctl(&set).await?;
        let deadline = Instant::now() + Duration::from_secs(30);
        // The alarm comes with the next look at the resource.
        while !broker
            .ctl(&["eval", "rabbit_alarm:get_alarms()."])
            .await?
            .contains("resource_limit")
        {
            ensure!(Instant::now() < deadline, "void: no alarm was raised");
        }
        scene.proof.add("alarm", 1.0);
        tokio::time::sleep(Duration::from_secs(3)).await;
        scene.ground.rabbitmq().ctl(&reset).await?;
        scene.recovered().await?;
    }
    scene.verdict().await
}

/// With the queue goes what waited in it: producers publish again what they cannot be sure of.
async fn queue_deleted_and_recreated(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "queue deleted").await?;
    let queues = Queues::connect(&scene.ground.rabbitmq().url()).await?;
    queues.delete(&scene.queue).await?;
    scene.recovered().await?;
    // The worker itself declared it anew, as documented.
    let published = scene.end_of_flow().await?;
    let publisher = scene.publisher().await?;
    publisher.publish(published.bodies()).await?;
    scene.more = published;
    scene.start_flow(Load::of(scene.seed() + 1));
    scene.recovered().await?;
    proof_by_connections(&mut scene).await?;
    scene.verdict().await
}

/// The broker closes the channel of a consumer that holds a delivery for too long.
async fn consumer_timeout(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::calm(flavor, "consumer time-out").await?;
    let broker = scene.ground.rabbitmq();
    broker
        .ctl(&[
            "eval",
            "application:set_env(rabbit, consumer_timeout, 4000), \
             application:set_env(rabbit, channel_tick_interval, 1000).",
        ])
        .await?;
    scene.start_worker(&[]).await?;
    scene.start_flow(Load::of(scene.seed()));
    scene.wait_stored_at_least(500).await?;
    let url = scene.owner_url();
    let lock = e2e::servers::connect(&url).await?;
    lock.batch_execute("BEGIN; LOCK TABLE usage_events IN EXCLUSIVE MODE")
        .await?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    lock.batch_execute("ROLLBACK").await?;
    let broker = scene.ground.rabbitmq();
    broker
        .ctl(&["eval", "application:set_env(rabbit, consumer_timeout, 1800000)."])
        .await?;
    let log = std::fs::read_to_string(broker.log())?;
    let said = log.matches("delivery acknowledgement on channel").count();
    scene.proof.add("time-outs in the broker's log", said as f64);
    scene.recovered().await?;
    proof_by_connections(&mut scene).await?;
    scene.verdict().await
}

/// One message that the worker's client cannot even read, among good ones: it ends in the broker's own
/// dead-letter queue, alone.
async fn a_header_that_is_not_utf_8(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "a header that is not UTF-8").await?;
    let event = scene.events(1).remove(0);
    let mut headers = FieldTable::default();
    headers.insert(
        "x".into(),
        AMQPValue::LongString(LongString::from(vec![0xff, 0xfe, b'x'])),
    );
    let properties = BasicProperties::default().with_headers(headers);
    scene
        .publisher()
        .await?
        .publish_with(&event.body, properties)
        .await?;
    let queues = Queues::connect(&scene.ground.rabbitmq().url()).await?;
    let given_up = format!("{}.dead-letter", scene.queue);
    let deadline = Instant::now() + Duration::from_secs(300);
    while queues.ready(&given_up).await? != Some(1) {
        ensure!(
            Instant::now() < deadline,
            "the broker never gave up on it; {}",
            scene.log_tails()
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    scene.given_up = 1;
    scene.recovered().await?;
    let redelivered = scene.metric(REDELIVERED).await?;
    scene.proof.add("redelivered", redelivered);
    proof_by_connections(&mut scene).await?;
    scene.verdict().await
}
