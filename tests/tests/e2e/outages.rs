//! Servers that are away: answers within a second, and nothing lost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::api::Client;
use e2e::generator::{Event, Generator, Shape};
use e2e::ports;
use e2e::token::{Claims, SECRET};
use time::OffsetDateTime;

use crate::platform::{Flavor, Platform, setting};

/// Partitions are the postgres flavor's. Maintenance runs in another process, which has no reason to look
/// for minutes; the worker that misses one asks for it.
#[tokio::test]
async fn a_missing_partition_is_made_by_whoever_maintains() -> Result<()> {
    let mut platform = Platform::new(Flavor::Postgres).await?;
    let queue = platform.queue.clone();
    platform.queue = e2e::publisher::unique_queue("elsewhere");
    let owner = platform.owner_url()?;
    let elsewhere = [
        ("MAINTENANCE_ENABLED", "true"),
        ("MAINTENANCE_DATABASE_URL", &*owner),
    ];
    let maintainer = platform.worker(&elsewhere).await?;
    platform.queue = queue;
    let worker = platform.worker(&[]).await?;
    let done = Instant::now() + Duration::from_secs(30);
    // The last step of its first round.
    while !maintainer.log().contains("this process does the maintenance")
        || maintainer
            .metric("usage_maintenance_last_success_timestamp_seconds")
            .await?
            < 4.0 * 1e9
    {
        ensure!(Instant::now() < done, "{}", maintainer.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let end = OffsetDateTime::now_utc() - time::Duration::days(3);
    let day = format!("{:04}{:02}{:02}", end.year(), u8::from(end.month()), end.day());
    platform
        .owner
        .batch_execute(&format!("DROP TABLE usage_events_p{day}"))
        .await?;
    let shape = Shape {
        seed: 33,
        organizations: 3,
        start: end.replace_time(time::Time::MIDNIGHT),
        end,
    };
    let events: Vec<Event> = Generator::new(&shape).take(100).collect();
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    let began = Instant::now();
    platform.wait_stored(100, 0).await?;
    ensure!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    ensure!(
        worker.metric("usage_ingest_batches_retried_total").await? > 0.0,
        "no partition was missing"
    );
    crate::rollups::assert_equal_raw(&platform).await
}

crate::in_both_flavors!(
    kill_the_worker_mid_batch,
    rows_that_the_database_refuses_are_found
);

/// A server that accepts connections and never says a word.
async fn black_hole() -> Result<u16> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    Ok(port)
}

#[tokio::test]
async fn the_api_says_503_within_a_second_without_its_database() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    for port in [ports::free()?, black_hole().await?] {
        let mut url = reqwest::Url::parse(&platform.url_of("reader")?)?;
        ensure!(url.set_port(Some(port)).is_ok());
        let binary = std::path::PathBuf::from(setting("E2E_API_BIN")?);
        let log = std::path::PathBuf::from(setting("E2E_LOGS")?).join(format!("api-away-{port}.log"));
        let environment = [("DATABASE_URL", url.as_str()), ("JWT_SECRET", SECRET)];
        let api = e2e::process::Service::launch(&binary, &environment, &log)?;
        while reqwest::get(api.url("/health")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let token = Client::new(&api.url("/"), &Claims::system_admin(), SECRET)?;
        let began = Instant::now();
        let response = reqwest::Client::new()
            .get(token.url("system/usage", &[])?)
            .bearer_auth(token.token())
            .send()
            .await?;
        let elapsed = began.elapsed();
        ensure!(response.status() == 503, "{}", response.status());
        ensure!(elapsed < Duration::from_millis(1_200), "it took {elapsed:?}");
        ensure!(response.headers().contains_key("retry-after"));
        ensure!(response.headers()["content-type"] == "application/problem+json");
        let ready = reqwest::get(api.url("/ready")).await?;
        ensure!(
            ready.status() == 503,
            "ready without a database: {}",
            ready.status()
        );
        let health = reqwest::get(api.url("/health")).await?;
        ensure!(health.status() == 200, "health depends on the database");
    }
    Ok(())
}

#[tokio::test]
async fn a_service_refuses_a_database_without_its_schema() -> Result<()> {
    let platform = Platform::bare(Flavor::Postgres).await?;
    let url = platform.owner_url()?;
    let worker = platform.launch_worker(&[("DATABASE_URL", &url)])?;
    refuses_to_start(worker, "ingest-worker migrate").await?;
    let api = platform.launch_api(&[("DATABASE_URL", &url)])?;
    refuses_to_start(api, "ingest-worker migrate").await
}

#[tokio::test]
async fn a_service_refuses_a_schema_of_another_version() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let newer = "INSERT INTO refinery_schema_history VALUES (999, 'newer', '', '0')";
    platform.owner.batch_execute(newer).await?;
    refuses_to_start(platform.launch_worker(&[])?, "version 999").await?;
    refuses_to_start(platform.launch_api(&[])?, "version 999").await
}

async fn refuses_to_start(mut service: e2e::process::Service, why: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = service.ended()? {
            break status;
        }
        ensure!(Instant::now() < deadline, "it runs: {}", service.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    ensure!(
        !status.success() && service.log().contains(why),
        "{}",
        service.log()
    );
    Ok(())
}

async fn kill_the_worker_mid_batch(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 31,
        organizations: 10,
        start: end - time::Duration::days(5),
        end,
    };
    let events: Vec<Event> = Generator::new(&shape).take(30_000).collect();
    let mut worker = platform.worker(&[]).await?;
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    for _ in 0..3 {
        let stored = platform.count("SELECT count(*) FROM usage_events").await?;
        worker.kill().await?;
        worker = platform.worker(&[]).await?;
        // Each life gets a little further, or everything was stored already.
        let deadline = Instant::now() + Duration::from_secs(60);
        while stored < 30_000 && platform.count("SELECT count(*) FROM usage_events").await? == stored {
            ensure!(
                Instant::now() < deadline,
                "stuck at {stored} events: acknowledged, and not stored"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    platform.wait_stored(30_000, 0).await?;
    crate::rollups::assert_equal_raw(&platform).await
}

async fn rows_that_the_database_refuses_are_found(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    // A rule that the worker cannot know of.
    platform
        .owner
        .batch_execute(
            "ALTER TABLE usage_events ADD CONSTRAINT no_seven CHECK (latency_ms IS DISTINCT FROM 777777)",
        )
        .await?;
    let _worker = platform.worker(&[]).await?;
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 32,
        organizations: 3,
        start: end - time::Duration::hours(5),
        end,
    };
    let events: Vec<Event> = Generator::new(&shape).take(1_000).collect();
    let mut bodies: Vec<Vec<u8>> = events.iter().map(|event| event.body.clone()).collect();
    for number in [0, 500, 999] {
        let mut event: serde_json::Value = serde_json::from_slice(&bodies[number])?;
        event["latency_ms"] = 777_777.into();
        bodies[number] = event.to_string().into_bytes();
    }
    platform.publisher().await?.publish(&bodies).await?;
    platform.wait_stored(997, 3).await?;
    let said = platform
        .count("SELECT count(*) FROM dead_letters WHERE reason = 'refused_by_database' AND detail LIKE '%no_seven%'")
        .await?;
    ensure!(said == 3, "{said} dead letters have the database's words");
    crate::rollups::assert_equal_raw(&platform).await
}
