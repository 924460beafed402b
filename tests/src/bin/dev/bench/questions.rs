//! What every question costs: the largest and a median organization, and the system, over a history of
//! two months; with nothing else going on, while events arrive, and with nothing else going on again: the
//! history has grown by then, so what is live is compared with the mean of before and after.
//!
//! The API keeps no answers, so each one is computed. What a question costs is the time until its whole
//! answer is here, over HTTP, one question at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::api::Client;
use e2e::generator::{Generator, Shape};
use e2e::pid::ProcessId;
use e2e::publisher::Publisher;
use e2e::token::{Claims, SECRET};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::ORGANIZATIONS;

/// Events per second that arrive while the questions are asked again.
const LIVE_PER_SECOND: usize = 5_000;
const HISTORY_DAYS: i64 = 60;
/// The most that a question about one organization may take, at p99.
const ORGANIZATION_TARGET_MS: f64 = 50.0;
/// The same, about the system: what the specification demands.
const SYSTEM_TARGET_MS: f64 = 500.0;
/// Asked before, and not counted: connections, plans, pages read for the first time.
const WARM_UP: usize = 5;
const ASKED: usize = 100;
/// Bodies that go to a publisher at a time.
const PART: usize = 2_000;
const PUBLISHERS: usize = 3;
const SEED: u64 = 77;

/// What there was to measure.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Questions {
    /// Cores that events keep busy while they arrive and nobody asks: publisher, broker, worker and database.
    /// A question that would have a core for itself can't be as fast live as idle if less than one is left.
    pub(crate) cores_busy_live: f64,
    pub(crate) asked: Vec<Question>,
}

/// What one question took.
#[derive(Debug, Serialize)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) target_ms: f64,
    pub(crate) idle: Spread,
    pub(crate) live: Spread,
    pub(crate) idle_after: Spread,
}

/// Of [`ASKED`] answers.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// The events of the history.
fn shape() -> Shape {
    let end = OffsetDateTime::now_utc();
    Shape {
        seed: SEED,
        organizations: ORGANIZATIONS,
        start: end - time::Duration::days(HISTORY_DAYS),
        end,
    }
}

/// Publishes the history, in the order of its times, nearly.
pub(crate) async fn publish_history(rabbitmq_url: &str, queue: &str, events: usize) -> Result<()> {
    let (parts, waiting) = mpsc::channel::<Vec<Vec<u8>>>(2 * PUBLISHERS);
    let waiting = Arc::new(Mutex::new(waiting));
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let publisher = Publisher::connect(rabbitmq_url, queue).await?;
        let waiting = Arc::clone(&waiting);
        publishers.spawn(async move {
            loop {
                let part = waiting.lock().await.recv().await;
                match part {
                    Some(part) => publisher.publish(part).await?,
                    None => return publisher.close().await,
                };
            }
        });
    }
    let mut generator = Generator::new(&shape());
    let mut stream = generator.in_order(events).map(|event| event.body);
    loop {
        let part: Vec<Vec<u8>> = stream.by_ref().take(PART).collect();
        if part.is_empty() {
            break;
        }
        parts.send(part).await.context("the publishers ended")?;
    }
    drop(parts);
    while let Some(published) = publishers.join_next().await {
        published??;
    }
    Ok(())
}

/// Asks every question, idle and live.
pub(crate) async fn measure(rabbitmq_url: &str, queue: &str, api_base: &str) -> Result<Questions> {
    let client = Client::new(api_base, &Claims::system_admin(), SECRET)?;
    let questions = questions();
    let idle = ask_all(&client, &questions).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(rabbitmq_url.to_owned(), queue.to_owned(), Arc::clone(&stop)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cores_busy_live = cores_busy(Duration::from_secs(5)).await?;
    let live = ask_all(&client, &questions).await?;
    stop.store(true, Ordering::Relaxed);
    load.await??;
    // The last events are committed, and a round of maintenance is over.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle_after = ask_all(&client, &questions).await?;
    let spreads = idle.into_iter().zip(live).zip(idle_after);
    let asked = questions
        .into_iter()
        .zip(spreads)
        .map(|(asked, ((idle, live), idle_after))| Question {
            name: asked.name,
            target_ms: asked.target_ms,
            idle,
            live,
            idle_after,
        })
        .collect();
    Ok(Questions {
        cores_busy_live,
        asked,
    })
}

/// How many cores this process and all servers below it use.
async fn cores_busy(span: Duration) -> Result<f64> {
    let all = ProcessId::current().context("this process has no entry in /proc")?;
    let (before, began) = (all.tree_cpu(), Instant::now());
    tokio::time::sleep(span).await;
    let used = all.tree_cpu().saturating_sub(before);
    Ok(used.as_secs_f64() / began.elapsed().as_secs_f64())
}

struct Asked {
    name: String,
    target_ms: f64,
    path: String,
    parameters: &'static [(&'static str, &'static str)],
}

fn questions() -> Vec<Asked> {
    let of_organization: [(&str, &str, &'static [_]); 14] = [
        ("days, 30 d", "usage", &[("period", "last_30d")]),
        (
            "days by model",
            "usage",
            &[("period", "last_30d"), ("group_by", "model")],
        ),
        (
            "days with latency",
            "usage",
            &[("period", "last_30d"), ("include", "latency")],
        ),
        (
            "days in New York",
            "usage",
            &[("period", "last_30d"), ("time_zone", "America/New_York")],
        ),
        (
            "days in Kolkata",
            "usage",
            &[("period", "last_30d"), ("time_zone", "Asia/Kolkata")],
        ),
        (
            "this month and the last",
            "usage",
            &[("period", "this_month"), ("compare", "previous_period")],
        ),
        (
            "hours, 7 d",
            "usage",
            &[("period", "last_7d"), ("bucket_width", "1h"), ("limit", "200")],
        ),
        (
            "quarter hours, 24 h",
            "usage",
            &[("period", "last_24h"), ("bucket_width", "15m")],
        ),
        (
            "minutes, 24 h",
            "usage",
            &[("period", "last_24h"), ("bucket_width", "1m"), ("limit", "1000")],
        ),
        ("users, 30 d", "users", &[("period", "last_30d")]),
        ("users, this month", "users", &[]),
        ("users, last 24 h", "users", &[("period", "last_24h")]),
        ("keys, 30 d", "keys", &[("period", "last_30d")]),
        ("models, 30 d", "models", &[("period", "last_30d")]),
    ];
    let of_system: [(&str, &str, &'static [_]); 4] = [
        ("days, 30 d", "usage", &[("period", "last_30d")]),
        ("top organizations, 30 d", "orgs", &[("period", "last_30d")]),
        ("top organizations, this month", "orgs", &[]),
        ("models, 30 d", "models", &[("period", "last_30d")]),
    ];
    let organizations = Generator::new(&shape()).organizations();
    let of = |who: &str, organization: Uuid| {
        of_organization.map(|(what, path, parameters)| Asked {
            name: format!("{who}: {what}"),
            target_ms: ORGANIZATION_TARGET_MS,
            path: format!("orgs/{organization}/{path}"),
            parameters,
        })
    };
    let largest = of("largest organization", organizations[0]);
    let median = of("median organization", organizations[organizations.len() / 2]);
    let system = of_system.map(|(what, path, parameters)| Asked {
        name: format!("system: {what}"),
        target_ms: SYSTEM_TARGET_MS,
        path: format!("system/{path}"),
        parameters,
    });
    largest.into_iter().chain(median).chain(system).collect()
}

async fn ask_all(client: &Client, questions: &[Asked]) -> Result<Vec<Spread>> {
    let mut spreads = Vec::with_capacity(questions.len());
    for asked in questions {
        let mut took = Vec::with_capacity(ASKED);
        for number in 0..WARM_UP + ASKED {
            let began = Instant::now();
            client.get(&asked.path, asked.parameters).await?;
            if number >= WARM_UP {
                took.push(began.elapsed());
            }
        }
        took.sort_unstable();
        let at = |place: usize| took[place].as_secs_f64() * 1e3;
        spreads.push(Spread {
            p50_ms: at(ASKED / 2),
            p99_ms: at(ASKED - 1 - ASKED / 100),
        });
    }
    Ok(spreads)
}

/// Events of the same organizations, as they happen.
async fn load(url: String, queue: String, stop: Arc<AtomicBool>) -> Result<()> {
    let publisher = Publisher::connect(&url, &queue).await?;
    let mut generator = Generator::new(&Shape {
        seed: SEED,
        ..shape()
    });
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let now = OffsetDateTime::now_utc();
        let events: Vec<_> = (0..LIVE_PER_SECOND / 100)
            .map(|_| generator.at(now).body)
            .collect();
        publisher.publish(events).await?;
    }
    Ok(())
}
