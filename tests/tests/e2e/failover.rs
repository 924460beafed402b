//! Several servers in one connection string: which one is used, by each of libpq's `target_session_attrs`, and what
//! happens when the primary dies and its standby is promoted.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::process::{self, Service};
use e2e::publisher::{Publisher, Queues, unique_queue};
use e2e::servers::{Edition, Postgres, Profile};
use e2e::token::{Claims, SECRET};
use time::OffsetDateTime;

use crate::platform::setting;

/// Far below what an operator would call an outage.
const SECONDS: Duration = Duration::from_secs(10);

struct Pair {
    primary: Postgres,
    standby: Postgres,
    queue: String,
    logs: PathBuf,
}

impl Pair {
    /// The standby is first.
    fn url(&self, attributes: Option<&str>) -> String {
        let attributes = attributes.map_or_else(String::new, |name| format!("?target_session_attrs={name}"));
        format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/usage{attributes}",
            self.standby.port(),
            self.primary.port()
        )
    }

    async fn start(&self, service: &str, url: &str) -> Result<Service> {
        let mut service = self.launch(service, url)?;
        service.wait_ready(2 * SECONDS).await?;
        Ok(service)
    }

    fn launch(&self, service: &str, url: &str) -> Result<Service> {
        let broker = setting("E2E_RABBITMQ_URL")?;
        let common = [("DATABASE_URL", url), ("RATE_LIMIT_PER_SECOND", "0")];
        let (binary, more) = match service {
            "worker" => (
                setting("E2E_WORKER_BIN")?,
                vec![
                    ("RABBITMQ_URL", &*broker),
                    ("QUEUE_NAME", &*self.queue),
                    ("MAINTENANCE_ENABLED", "false"),
                ],
            ),
            _ => (
                setting("E2E_API_BIN")?,
                vec![("JWT_SECRET", SECRET), ("SHUTDOWN_DELAY_SECONDS", "0")],
            ),
        };
        let environment = [&common[..], &more].concat();
        let log = self.logs.join(format!("{}.log", unique_queue(service)));
        Service::launch(&PathBuf::from(binary), &environment, &log)
    }
}

/// What a database has stored.
async fn wait_stored(server: &Postgres, events: i64) -> Result<Duration> {
    let began = Instant::now();
    let client = server.connect("usage").await?;
    loop {
        let stored: i64 = client
            .query_one("SELECT count(*) FROM usage_events", &[])
            .await?
            .get(0);
        if stored == events {
            return Ok(began.elapsed());
        }
        if began.elapsed() > 3 * SECONDS || stored > events {
            bail!("{stored} events are stored, not {events}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn sessions_of(server: &Postgres, name: &str) -> Result<i64> {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    Ok(server
        .connect("usage")
        .await?
        .query_one(query, &[&name])
        .await?
        .get(0))
}

async fn requests(api: &Service, organization: uuid::Uuid) -> Result<(u16, Option<i64>)> {
    let url = api.url(&format!(
        "/api/v1/analytics/orgs/{organization}/usage?period=last_24h"
    ));
    let token = Claims::org_admin(organization).sign(SECRET)?;
    let answer = reqwest::Client::new().get(url).bearer_auth(token).send().await?;
    let status = answer.status().as_u16();
    let body: serde_json::Value = answer.json().await?;
    Ok((status, body["totals"]["requests"].as_i64()))
}

#[tokio::test]
async fn the_server_that_is_asked_for_is_used_and_a_failover_is_followed() -> Result<()> {
    let name = |server: &str| format!("failover-{}-{server}", std::process::id());
    let primary = Postgres::start(&name("primary"), Edition::Plain, Profile::Modest, &[]).await?;
    primary.ensure_database("usage").await?;
    let url = primary.url("usage");
    let worker = PathBuf::from(setting("E2E_WORKER_BIN")?);
    process::run(&worker, &["migrate"], &[("DATABASE_URL", &url)]).await?;
    let standby = primary.start_standby(&name("standby")).await?;
    let logs = PathBuf::from(setting("E2E_LOGS")?).join(name("logs"));
    std::fs::create_dir_all(&logs)?;
    let mut pair = Pair {
        primary,
        standby,
        queue: unique_queue("failover"),
        logs,
    };
    let checked = check(&mut pair).await;
    pair.primary.destroy().await?;
    pair.standby.destroy().await?;
    checked
}

async fn check(pair: &mut Pair) -> Result<()> {
    let broker = setting("E2E_RABBITMQ_URL")?;
    Queues::connect(&broker)
        .await?
        .declare_quorum(&pair.queue, &[])
        .await?;
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 6,
        organizations: 1,
        start: end - time::Duration::minutes(30),
        end,
    };
    let events: Vec<Event> = Generator::new(&shape).take(200).collect();
    let organization = events[0].fact.org_id;
    let publisher = Publisher::connect(&broker, &pair.queue).await?;

    // Who writes needs no attribute to find the primary.
    let worker = pair.start("worker", &pair.url(None)).await?;
    publisher
        .publish(events[..100].iter().map(|event| &event.body))
        .await?;
    wait_stored(&pair.primary, 100).await?;
    wait_stored(&pair.standby, 100).await?;

    for (attributes, primary) in [
        (None, false),
        (Some("any"), false),
        (Some("read-write"), true),
        (Some("primary"), true),
        (Some("read-only"), false),
        (Some("standby"), false),
        (Some("prefer-standby"), false),
    ] {
        let api = pair.start("api", &pair.url(attributes)).await?;
        ensure!(
            requests(&api, organization).await? == (200, Some(100)),
            "{attributes:?}"
        );
        for (server, used) in [(&pair.primary, primary), (&pair.standby, !primary)] {
            let sessions = sessions_of(server, "analytics-api").await?;
            ensure!(
                (sessions > 0) == used,
                "{attributes:?}: {sessions} sessions on {}",
                server.port()
            );
        }
        drop(api);
        let gone = Instant::now();
        while sessions_of(&pair.primary, "analytics-api").await?
            + sessions_of(&pair.standby, "analytics-api").await?
            > 0
        {
            ensure!(gone.elapsed() < SECONDS, "sessions of an API that is gone");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // One that names itself stays named.
    let named = format!("{}&application_name=portal", pair.url(Some("primary")));
    let api = pair.start("api", &named).await?;
    ensure!(sessions_of(&pair.primary, "portal").await? > 0);

    // The primary dies; its standby takes over.
    pair.primary.kill().await?;
    pair.standby.promote().await?;
    let promoted = Instant::now();
    publisher
        .publish(events[100..].iter().map(|event| &event.body))
        .await?;
    wait_stored(&pair.standby, 200).await?;
    let stored = promoted.elapsed();
    ensure!(stored < SECONDS, "the worker followed after {stored:?}");
    loop {
        if let Ok((200, found)) = requests(&api, organization).await {
            ensure!(found == Some(200), "{found:?}");
            break;
        }
        ensure!(
            promoted.elapsed() < SECONDS,
            "the API did not follow; {}",
            api.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(worker);
    // A standby is no longer there, and the API says so, rather than that the dead one cannot be reached.
    let refused = pair.launch("api", &pair.url(Some("standby")))?;
    let asked = Instant::now();
    while !refused.log().contains("not a standby") {
        ensure!(asked.elapsed() < SECONDS, "{}", refused.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ready = reqwest::get(refused.url("/ready")).await?;
    ensure!(ready.status() == 503, "{}", ready.status());
    Ok(())
}
