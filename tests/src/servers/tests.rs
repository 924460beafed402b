//! The harness's own promises, on real servers: faults happen, and servers come back.

use std::time::Duration;

use time::macros::datetime;

use super::{Edition, Postgres, Profile, RabbitMq};
use crate::generator::{Generator, Shape};
use crate::publisher::{Publisher, Queues, unique_queue};

fn name(server: &str) -> String {
    format!("harness-{}-{server}", std::process::id())
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_survives_what_is_done_to_it() {
    let mut server = Postgres::start(
        &name("postgres"),
        Edition::Plain,
        Profile::Modest,
        &[("work_mem", "5MB")],
    )
    .await
    .unwrap();
    let port = server.port();
    server.ensure_database("a").await.unwrap();
    server.ensure_database("a").await.unwrap();
    let client = server.connect("a").await.unwrap();
    let work_mem: String = client.query_one("SHOW work_mem", &[]).await.unwrap().get(0);
    assert_eq!(work_mem, "5MB");
    client
        .batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .await
        .unwrap();

    server.freeze();
    let frozen = client.query_one("SELECT n FROM t", &[]);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), frozen)
            .await
            .is_err()
    );
    server.thaw();
    client.query_one("SELECT n FROM t", &[]).await.unwrap();

    server.kill().await.unwrap();
    client.query_one("SELECT n FROM t", &[]).await.unwrap_err();
    server.restart().await.unwrap();
    assert_eq!(server.port(), port);
    let client = server.connect("a").await.unwrap();
    client.query_one("SELECT n FROM t", &[]).await.unwrap();

    server.stop().await.unwrap();
    assert!(server.connect("a").await.is_err());
    server.restart().await.unwrap();
    server
        .connect("a")
        .await
        .unwrap()
        .query_one("SELECT n FROM t", &[])
        .await
        .unwrap();
    server.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_survives_what_is_done_to_it() {
    let mut broker = RabbitMq::start(&name("rabbitmq"), &[]).await.unwrap();
    let queue = unique_queue("harness");
    let queues = Queues::connect(&broker.url()).await.unwrap();
    assert_eq!(queues.ready(&queue).await.unwrap(), None);
    queues.declare_quorum(&queue, &[]).await.unwrap();

    let shape = Shape {
        seed: 1,
        organizations: 10,
        start: datetime!(2026-03-01 00:00 UTC),
        end: datetime!(2026-03-02 00:00 UTC),
    };
    let publisher = Publisher::connect(&broker.url(), &queue).await.unwrap();
    let bodies = Generator::new(&shape).take(5_000).map(|event| event.body);
    assert_eq!(publisher.publish(bodies).await.unwrap(), 5_000);
    assert_eq!(queues.ready(&queue).await.unwrap(), Some(5_000));

    let nowhere = Publisher::connect(&broker.url(), "no-such-queue").await.unwrap();
    assert!(nowhere.publish(["{}"]).await.is_err());

    // RabbitMQ 3.10 writes the register of its quorum queues seconds after a declaration: killed before,
    // it does not find the queue's log again.
    tokio::time::sleep(Duration::from_secs(4)).await;
    broker.kill().await.unwrap();
    assert!(publisher.publish(["{}"]).await.is_err());
    broker.restart().await.unwrap();
    let queues = Queues::connect(&broker.url()).await.unwrap();
    queues
        .wait_ready(&queue, 5_000, Duration::from_secs(20))
        .await
        .unwrap();
    assert!(
        broker
            .ctl(&["list_queues", "name"])
            .await
            .unwrap()
            .contains(&queue)
    );

    broker.freeze();
    let waiting = queues.ready(&queue);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), waiting)
            .await
            .is_err()
    );
    broker.thaw();
    queues
        .wait_ready(&queue, 5_000, Duration::from_secs(20))
        .await
        .unwrap();

    broker.stop().await.unwrap();
    assert!(Queues::connect(&broker.url()).await.is_err());
    broker.restart().await.unwrap();
    let queues = Queues::connect(&broker.url()).await.unwrap();
    queues
        .wait_ready(&queue, 5_000, Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(queues.purge(&queue).await.unwrap(), 5_000);
    queues.delete(&queue).await.unwrap();
    assert_eq!(queues.ready(&queue).await.unwrap(), None);
    broker.destroy().await.unwrap();
}
