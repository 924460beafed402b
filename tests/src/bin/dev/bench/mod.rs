//! `dev bench`: what the real path reaches, as a ratio to the least that any consumer must do.
//!
//! Ratios carry over to other machines, absolute figures do not. So each round measures the worker, from a
//! full queue to committed rows, and the bare consumer ([`bare`]) on the same messages, in turn: what the
//! worker is compared with is the mean of the bare consumer right before and right after it, since that one
//! alone moves by a third from one time to the next.

mod bare;
mod history;
mod latency;
mod load;
mod questions;
mod report;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::generator::{Generator, Shape};
use e2e::orphans;
use e2e::pid::ProcessId;
use e2e::process::Service;
use e2e::progress::{Step, say};
use e2e::publisher::{Publisher, Queues, unique_queue};
use e2e::servers::{Edition, Postgres, Profile, RabbitMq};
use time::OffsetDateTime;
use tokio::task::JoinSet;

use crate::interrupt::{self, Interrupt};
use crate::services::Services;
use report::{FlavorResult, Ingest, Round};

/// The same for the bare consumer and the worker.
const CONSUMERS: usize = 5;
const PREFETCH: u16 = 10_000;
/// Of a thousand organizations nearly every event falls into a rollup group of its own: the worst case.
const ORGANIZATIONS: usize = 1_000;
/// One connection does not keep the broker busy.
const PUBLISHERS: usize = 3;
const DATABASE: &str = "bench";

pub(crate) async fn run() -> Result<ExitCode> {
    let events = number_from_environment("BENCH_EVENTS", 400_000)?;
    let rounds = match std::env::var_os("BENCH_ROUNDS") {
        Some(none) if none == "0" => 0,
        _ => number_from_environment("BENCH_ROUNDS", 5)?,
    };
    let mut interrupt = Interrupt::listen()?;
    match interrupt.or(measure(events, rounds)).await {
        Some(results) => report::write(events, &results?),
        None => Ok(interrupt::exit_code()),
    }
}

async fn measure(events: usize, rounds: usize) -> Result<Vec<FlavorResult>> {
    let worker_settings = worker_settings()?;
    let history = number_from_environment("BENCH_HISTORY", 2_000_000)?;
    let part = std::env::var_os("BENCH_PART");
    let wanted = |name: &str| part.as_ref().is_none_or(|only| only == name);
    ensure!(
        wanted("ingest") || wanted("questions"),
        "BENCH_PART must be ingest or questions"
    );
    ensure!(
        !wanted("questions") || questions::are_any(),
        "BENCH_QUESTIONS must be a part of a question's name"
    );
    orphans::remove_of_the_dead().await?;
    let mut results = Vec::new();
    for (flavor, edition) in [("timescaledb", Edition::Timescale), ("postgres", Edition::Plain)] {
        if std::env::var_os("BENCH_FLAVOR").is_some_and(|only| only != flavor) {
            continue;
        }
        if edition == Edition::Timescale && Postgres::timescaledb_version().is_none() {
            say("## NOT MEASURED: the timescaledb flavor, as the server has no TimescaleDB ##");
            continue;
        }
        let postgres = Postgres::start(&name(flavor), edition, Profile::Bench, &[]).await?;
        let bench = |rabbitmq| Bench {
            flavor,
            postgres: &postgres,
            rabbitmq,
            events,
            worker_settings: &worker_settings,
        };
        let (mut ingest, mut questions) = (None, questions::Questions::default());
        if wanted("ingest") {
            let bench = bench(RabbitMq::start(&name("rabbitmq"), &[]).await?);
            ingest = Some(bench.ingest(rounds).await?);
            bench.rabbitmq.destroy().await?;
        }
        if wanted("questions") {
            let bench = bench(RabbitMq::start_aside(&name("rabbitmq-aside")).await?);
            questions = bench.questions(history, rounds).await?;
            bench.rabbitmq.destroy().await?;
        }
        results.push(FlavorResult {
            flavor,
            ingest,
            questions,
        });
        postgres.destroy().await?;
    }
    ensure!(
        !results.is_empty(),
        "BENCH_FLAVOR must be timescaledb or postgres, and the server have it"
    );
    Ok(results)
}

struct Bench<'a> {
    flavor: &'static str,
    postgres: &'a Postgres,
    rabbitmq: RabbitMq,
    events: usize,
    worker_settings: &'a [(String, String)],
}

impl Bench<'_> {
    /// Throughput, memory and latency.
    async fn ingest(&self, rounds: usize) -> Result<Ingest> {
        let flavor = self.flavor;
        // A new server makes its WAL files and fills its caches first: what comes of that is not counted.
        let step = Step::begin(format!("{flavor}, a round to warm up"));
        let warm = self.round(0, f64::NAN).await?;
        step.done(format_args!(
            "bare {:.0}/s, worker {:.0}/s, not counted",
            warm.bare_after, warm.worker_per_second
        ));
        let mut bare_before = warm.bare_after;
        let mut measured = Vec::with_capacity(rounds);
        for number in 1..=rounds {
            let step = Step::begin(format!("{flavor}, round {number} of {rounds}"));
            let round = self.round(number, bare_before).await?;
            step.done(format_args!(
                "worker {:.0}/s, bare {:.0}/s before and {:.0}/s after, ratio {:.2}",
                round.worker_per_second,
                round.bare_before,
                round.bare_after,
                round.ratio()
            ));
            bare_before = round.bare_after;
            measured.push(round);
        }
        let step = Step::begin(format!("{flavor}, latency under load"));
        let latency = self.latency().await?;
        step.done(format_args!(
            "p50 {:.0} ms, p99 {:.0} ms",
            latency.p50_ms, latency.p99_ms
        ));
        Ok(Ingest {
            rounds: measured,
            latency,
        })
    }

    /// What each question costs over a history of so many events, in so many rounds.
    async fn questions(&self, history: usize, rounds: usize) -> Result<questions::Questions> {
        let queue = unique_queue("bench");
        let queues = Queues::connect(&self.rabbitmq.url()).await?;
        queues.declare_quorum(&queue, &[]).await?;
        let services = self.services(&queue).await?;
        let step = Step::begin(format!("{}, a history of {history} events", self.flavor));
        let began = Instant::now();
        history::load(&self.postgres.url(DATABASE), questions::shape(), history).await?;
        let loaded = began.elapsed();
        let said = services.maintain().await?;
        let maintained = began.elapsed() - loaded;
        // What autovacuum does in its own time.
        let client = self.postgres.connect(DATABASE).await?;
        client.batch_execute("VACUUM ANALYZE").await?;
        history::check(&client).await?;
        step.done(format_args!(
            "loaded in {:.0} s, maintained for the first time in {:.0} s, {:.0} bytes per event; all rollups equal it\n{said}",
            loaded.as_secs_f64(),
            maintained.as_secs_f64(),
            history::bytes_per_event(&client, history).await?
        ));
        let mut worker = services.start_worker(&pairs(self.worker_settings)).await?;
        let step = Step::begin(format!("{}, every question, idle and live", self.flavor));
        let mut api = services.start_api(&[("RATE_LIMIT_PER_SECOND", "0")]).await?;
        let asked = questions::measure(
            &self.rabbitmq.url(),
            &queue,
            &api.url("/"),
            rounds,
            || {
                // This process' tree has the two services in it.
                let trees = [
                    self.rabbitmq.process(),
                    self.postgres.process(),
                    ProcessId::current(),
                ];
                trees.into_iter().map(cpu).sum()
            },
            async |events| self.until_stored(&worker, events).await,
        )
        .await?;
        step.done(format_args!(
            "{} questions; {:.2} cores busy with the events that arrived",
            asked.asked.len(),
            asked.cores_busy_live
        ));
        api.terminate(Duration::from_secs(15)).await?;
        worker.terminate(Duration::from_secs(15)).await?;
        Ok(asked)
    }

    async fn round(&self, number: usize, bare_before: f64) -> Result<Round> {
        let bodies = Arc::new(self.bodies(number));
        let queues = Queues::connect(&self.rabbitmq.url()).await?;

        let queue = self.fill(&queues, &bodies).await?;
        let services = self.services(&queue).await?;
        let cpu_before = (cpu(self.rabbitmq.process()), cpu(self.postgres.process()));
        let mut worker = services.start_worker(&pairs(self.worker_settings)).await?;
        let took = self.until_committed(&queues, &queue, &worker).await?;
        let cpu_after = (cpu(self.rabbitmq.process()), cpu(self.postgres.process()));
        let peak = worker.peak_rss_bytes().context("the worker is gone")?;
        let worker_cpu = worker.process().tree_cpu();
        worker.terminate(Duration::from_secs(15)).await?;
        self.check_sums().await?;
        queues.delete(&queue).await?;

        let queue = self.fill(&queues, &bodies).await?;
        let bare_before_cpu = cpu(self.rabbitmq.process());
        let took_bare = bare::drain(self.rabbitmq.port(), &queue, self.events).await?;
        let bare_broker_cpu = cpu(self.rabbitmq.process()).saturating_sub(bare_before_cpu);
        queues.delete(&queue).await?;

        let per_event = |time: Duration| time.as_secs_f64() * 1e6 / self.events as f64;
        Ok(Round {
            bare_before,
            bare_after: self.events as f64 / took_bare.as_secs_f64(),
            worker_per_second: self.events as f64 / took.as_secs_f64(),
            bare_broker_cpu_us: per_event(bare_broker_cpu),
            worker_peak_mib: peak as f64 / f64::from(1 << 20),
            worker_cpu_us: per_event(worker_cpu),
            broker_cpu_us: per_event(cpu_after.0.saturating_sub(cpu_before.0)),
            postgres_cpu_us: per_event(cpu_after.1.saturating_sub(cpu_before.1)),
        })
    }

    async fn latency(&self) -> Result<latency::Latency> {
        let queue = unique_queue("bench");
        let services = self.services(&queue).await?;
        let mut worker = services.start_worker(&pairs(self.worker_settings)).await?;
        let mut api = services.start_api(&[]).await?;
        let measured = latency::measure(&self.rabbitmq.url(), &queue, &api.url("/")).await?;
        api.terminate(Duration::from_secs(15)).await?;
        worker.terminate(Duration::from_secs(15)).await?;
        Ok(measured)
    }

    /// The events of a round, of the last two hours.
    fn bodies(&self, round: usize) -> Vec<Vec<u8>> {
        let now = OffsetDateTime::now_utc();
        let shape = Shape {
            seed: round as u64,
            organizations: ORGANIZATIONS,
            start: now - time::Duration::HOUR * 2,
            end: now,
        };
        Generator::new(&shape)
            .in_order(self.events)
            .map(|event| event.body)
            .collect()
    }

    async fn fill(&self, queues: &Queues, bodies: &Arc<Vec<Vec<u8>>>) -> Result<String> {
        let queue = unique_queue("bench");
        queues.declare_quorum(&queue, &[]).await?;
        let began = Instant::now();
        let mut publishers = JoinSet::new();
        for number in 0..PUBLISHERS {
            let publisher = Publisher::connect(&self.rabbitmq.url(), &queue).await?;
            let bodies = Arc::clone(bodies);
            publishers.spawn(async move {
                // In turns: the queue keeps the order of the times, nearly.
                publisher
                    .publish(bodies.iter().skip(number).step_by(PUBLISHERS))
                    .await?;
                publisher.close().await
            });
        }
        while let Some(published) = publishers.join_next().await {
            published??;
        }
        let rate = bodies.len() as f64 / began.elapsed().as_secs_f64();
        say(format_args!(
            "    {} messages in the queue, published at {rate:.0}/s",
            bodies.len()
        ));
        queues
            .wait_ready(&queue, u32::try_from(bodies.len())?, Duration::from_secs(10))
            .await?;
        // The broker finishes its own work before anybody measures it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(queue)
    }

    /// A new, migrated database, and the services for it.
    async fn services(&self, queue: &str) -> Result<Services> {
        let client = self.postgres.connect("postgres").await?;
        client
            .batch_execute(&format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))
            .await?;
        self.postgres.ensure_database(DATABASE).await?;
        let services = Services::new(
            self.postgres.url(DATABASE),
            self.rabbitmq.url(),
            queue,
            "bench-logs",
        )?;
        let said = services.migrate().await?;
        if !said.contains(&format!("flavor {}", self.flavor)) {
            bail!("not the flavor to be measured, {}: {said}", self.flavor);
        }
        // What migrating left to write is not the worker's.
        self.postgres
            .connect(DATABASE)
            .await?
            .batch_execute("CHECKPOINT")
            .await?;
        Ok(services)
    }

    /// From the first delivery until every event is a committed row, by the worker's own count: asking
    /// the database would take from what is measured. What it holds is checked afterwards.
    async fn until_committed(&self, queues: &Queues, queue: &str, worker: &Service) -> Result<Duration> {
        let all = u32::try_from(self.events)?;
        while queues.ready(queue).await? == Some(all) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let began = Instant::now();
        self.until_stored(worker, self.events).await?;
        Ok(began.elapsed())
    }

    async fn until_stored(&self, worker: &Service, events: usize) -> Result<()> {
        let began = Instant::now();
        // One client for all looks: a new one reads the system's certificates, 5 % of the machine in all.
        let client = reqwest::Client::new();
        let url = worker.url("/metrics");
        loop {
            let metrics = client.get(&url).send().await?.text().await?;
            let stored = metrics
                .lines()
                .find_map(|line| line.strip_prefix("usage_ingest_events_stored_total "))
                .context("the worker counts what it stores")?;
            if stored.parse::<usize>()? >= events {
                return Ok(());
            }
            if began.elapsed() > Duration::from_secs(600) {
                bail!("{stored} of {events} events are stored after ten minutes");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A fast path that loses or doubles something is no result.
    async fn check_sums(&self) -> Result<()> {
        let client = self.postgres.connect(DATABASE).await?;
        for relation in ["usage_quarter_hourly_by_user", "usage_quarter_hourly"] {
            let sum = format!("SELECT coalesce(sum(request_count), 0)::bigint FROM {relation}");
            let counted: i64 = client.query_one(&sum, &[]).await?.get(0);
            if usize::try_from(counted)? != self.events {
                bail!("{relation} counts {counted} of {} events", self.events);
            }
        }
        Ok(())
    }
}

/// The worker's settings: the bare consumer's, and on top of them those that `BENCH_WORKER` gives to be
/// tried, as in `BENCH_WORKER="BATCH_SIZE=10000 WRITER_LANES=1"`.
fn worker_settings() -> Result<Vec<(String, String)>> {
    let mut settings = vec![
        ("CONSUMER_WORKERS".to_owned(), CONSUMERS.to_string()),
        ("PREFETCH".to_owned(), PREFETCH.to_string()),
    ];
    let tried = std::env::var_os("BENCH_WORKER").unwrap_or_default();
    for pair in tried
        .to_str()
        .context("BENCH_WORKER is not UTF-8")?
        .split_whitespace()
    {
        let (name, value) = pair
            .split_once('=')
            .with_context(|| format!("BENCH_WORKER: {pair:?} is not NAME=VALUE"))?;
        settings.retain(|(known, _)| known != name);
        settings.push((name.to_owned(), value.to_owned()));
    }
    Ok(settings)
}

fn pairs(settings: &[(String, String)]) -> Vec<(&str, &str)> {
    settings.iter().map(|(name, value)| (&**name, &**value)).collect()
}

fn cpu(process: Option<ProcessId>) -> Duration {
    process.map_or(Duration::ZERO, ProcessId::tree_cpu)
}

fn name(server: &str) -> String {
    format!("bench-{}-{server}", std::process::id())
}

fn number_from_environment(name: &str, default: usize) -> Result<usize> {
    match std::env::var_os(name).filter(|value| !value.is_empty()) {
        None => Ok(default),
        Some(value) => value
            .to_str()
            .and_then(|text| text.parse().ok())
            .filter(|number| *number > 0)
            .with_context(|| format!("{name} must be a whole number above 0")),
    }
}

/// The middle one; of an even number, the upper of both.
fn median<T>(of: &[T], value: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = of.iter().map(value).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
