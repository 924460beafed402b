//! From the publish to the answer: how long until the API counts an event, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use e2e::api::{self, Client};
use e2e::generator::{Generator, Shape};
use e2e::publisher::Publisher;
use e2e::token::{self, Claims};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::task::JoinSet;

const EVENTS_PER_SECOND: usize = 1_000;
const SECONDS: u64 = 25;
/// Measured before, and not counted: pools fill, plans are made.
const WARM_UP: Duration = Duration::from_secs(5);
const PROBES_AT_A_TIME: u64 = 4;
/// How often a probe asks; part of what it measures.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// What the probes saw.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) events_per_second: usize,
    pub(crate) probes: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// Publishes a steady load, and beside it single events of organizations of their own, for each of which
/// the API is asked until it counts it.
pub(crate) async fn measure(rabbitmq_url: &str, queue: &str, api_base: &str) -> Result<Latency> {
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(load(rabbitmq_url.to_owned(), queue.to_owned(), Arc::clone(&stop)));
    tokio::time::sleep(WARM_UP).await;
    let mut probes = JoinSet::new();
    for number in 0..PROBES_AT_A_TIME {
        let (rabbitmq_url, queue, base) = (rabbitmq_url.to_owned(), queue.to_owned(), api_base.to_owned());
        probes.spawn(async move { probe(&rabbitmq_url, &queue, &base, number).await });
    }
    let mut seen = Vec::new();
    while let Some(probe) = probes.join_next().await {
        seen.extend(probe??);
    }
    stop.store(true, Ordering::Relaxed);
    let published = load.await??;
    let target = EVENTS_PER_SECOND * usize::try_from(SECONDS)?;
    if published < target * 9 / 10 {
        bail!(
            "only {published} events were published in {SECONDS} s: this is no load of {EVENTS_PER_SECOND}/s"
        );
    }
    seen.sort_unstable();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a list of some hundred"
        )]
        let place = (seen.len() as f64 * share) as usize;
        seen.get(place.min(seen.len().saturating_sub(1)))
            .map_or(f64::NAN, |d| d.as_secs_f64() * 1e3)
    };
    Ok(Latency {
        events_per_second: EVENTS_PER_SECOND,
        probes: seen.len(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: at(1.0),
    })
}

async fn load(url: String, queue: String, stop: Arc<AtomicBool>) -> Result<usize> {
    let publisher = Publisher::connect(&url, &queue).await?;
    let mut generator = live_generator(1_000_001, 1_000);
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let mut published = 0;
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let now = OffsetDateTime::now_utc();
        let events: Vec<_> = (0..EVENTS_PER_SECOND / 100)
            .map(|_| generator.at(now).body)
            .collect();
        published += publisher.publish(events).await?;
    }
    Ok(published)
}

async fn probe(url: &str, queue: &str, base: &str, number: u64) -> Result<Vec<Duration>> {
    let publisher = Publisher::connect(url, queue).await?;
    let client = Client::new(base, &Claims::system_admin(), token::SECRET)?;
    let began = Instant::now();
    let mut seen = Vec::new();
    for probe in 0.. {
        if began.elapsed() > Duration::from_secs(SECONDS) - WARM_UP {
            break;
        }
        // An organization that nothing else belongs to: its first event is this one.
        let mut generator = live_generator(2_000_000 + number * 100_000 + probe, 1);
        let event = generator.at(OffsetDateTime::now_utc());
        let path = format!("orgs/{}/usage", event.fact.org_id);
        let published = Instant::now();
        publisher.publish([event.body]).await?;
        loop {
            let answer = client
                .get(&path, &[("period", "last_24h"), ("bucket_width", "all")])
                .await?;
            if api::measures(&answer["totals"])?.requests == 1 {
                break;
            }
            if published.elapsed() > Duration::from_secs(30) {
                bail!("an event was not counted within 30 s");
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        seen.push(published.elapsed());
    }
    Ok(seen)
}

fn live_generator(seed: u64, organizations: usize) -> Generator {
    let now = OffsetDateTime::now_utc();
    Generator::new(&Shape {
        seed,
        organizations,
        start: now - time::Duration::HOUR,
        end: now,
    })
}
