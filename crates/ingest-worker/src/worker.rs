//! The worker as a whole: one generation after another, until it is asked to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use analytics_runtime::postgres::explain;
use analytics_runtime::schema::{self, SchemaError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::amqp::Session;
use crate::backoff::Backoff;
use crate::brake::Brake;
use crate::budget::Budget;
use crate::caution::{Caution, Window};
use crate::config::WorkerConfig;
use crate::consumer::{self, Gate};
use crate::generation::{End, Plan, Surroundings};
use crate::progress::{Alarm, Progress};
use crate::report::{self, Knowledge};
use crate::sink::Sink;
use crate::status::Status;
use crate::{maintenance, metrics};

/// How long the check of the schema may take.
const SCHEMA_DEADLINE: Duration = Duration::from_secs(30);
/// A session that lived so long did not die of what it began with.
const LONG_LIFE: Duration = Duration::from_secs(30);

/// Why the worker cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The database has another schema than this build needs.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Runs until `stop` is cancelled. Lost servers are waited for.
///
/// # Errors
/// If the database's schema is not this build's.
pub async fn run(
    config: WorkerConfig,
    status: Arc<Status>,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    metrics::describe();
    let background = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(beat(Arc::clone(&status), background.clone()));
    if !wait_for_schema(&config, &status, &stop).await? {
        return Ok(());
    }
    let around = Surroundings {
        knowledge: Arc::new(Knowledge::default()),
        progress: Arc::new(Progress::default()),
        missing_partition: Arc::new(Notify::new()),
        brake: Arc::new(Brake::new(config.brake_percent)),
        budget: Arc::new(Budget::new(config.memory_budget)),
        stop,
        config,
    };
    tasks.spawn(report::run(
        around
            .config
            .database
            .clone()
            .session("ingest-worker report", &[]),
        worker_id(),
        around.config.queue.clone(),
        Arc::clone(&around.knowledge),
        Arc::clone(&around.progress),
        Arc::clone(&status),
        background.clone(),
    ));
    if let Some(maintenance) = around.config.maintenance.clone() {
        tasks.spawn(maintenance::run(
            maintenance,
            Arc::clone(&around.missing_partition),
            background.clone(),
        ));
    }
    generations(&around, &status).await;
    status.stopping();
    background.cancel();
    // The last report says that nothing is held any more.
    let _ = tokio::time::timeout(Duration::from_secs(1), tasks.join_all()).await;
    Ok(())
}
/// One after another.
async fn generations(around: &Surroundings, status: &Status) {
    let (config, stop) = (&around.config, &around.stop);
    let mut sinks: Vec<Sink> = (0..config.lanes).map(|_| around.sink()).collect();
    let mut caution = Caution::new(config.most_held());
    let mut backoff = Backoff::default();
    // Narrow generations in a row that did what they were for: they need no lines in the log.
    let mut careful_for = 0_u32;
    // What an earlier process learned died with it.
    let mut is_first = true;
    loop {
        // What cannot be stored is better left with the broker: each time that it is given back counts
        // against its delivery limit.
        if stop
            .run_until_cancelled(status.wait_for_database())
            .await
            .is_none()
        {
            return;
        }
        let plan = plan(config, &caution, &around.budget, is_first);
        let window = plan.window;
        let prefetches = prefetches(config, &plan);
        let opened = Session::open(&config.broker, &config.queue, &prefetches);
        match stop.run_until_cancelled(opened).await {
            None => return,
            Some(Err(error)) => {
                tracing::warn!(%error, "no session with the broker; trying again");
                status.broker(Err(error.to_string()));
                if error.consuming {
                    caution.died(false);
                    if window != Window::Full {
                        backoff.reset();
                    }
                }
            }
            Some(Ok((session, consumers))) => {
                ::metrics::counter!(metrics::GENERATIONS).increment(1);
                ::metrics::gauge!(metrics::WINDOW).set(f64::from(plan.deliveries));
                if careful_for == 0 || window == Window::Full {
                    let deliveries = plan.deliveries;
                    tracing::info!(queue = config.queue, ?window, deliveries, "consuming");
                }
                status.broker(Ok(()));
                let began = Instant::now();
                let commits = around.progress.commits();
                let end = around.generation(session, consumers, &plan, &mut sinks).await;
                let committed = commits.has_changed().unwrap_or(false);
                let gate = plan.gate.as_deref();
                is_first &= !gate.is_some_and(Gate::is_open);
                match end {
                    End::Stopped => return,
                    End::Committed | End::Outgrown => {
                        careful_for += u32::from(end == End::Committed);
                        is_first = false;
                        around.budget.kept();
                        if gate.is_some_and(Gate::was_redelivered) {
                            caution.distrust();
                        }
                        caution.committed_in_order();
                        continue;
                    }
                    End::OverBudget => {
                        tracing::warn!(
                            deliveries = plan.deliveries,
                            "messages take more memory than MEMORY_BUDGET_MIB; they will come again, fewer at a time"
                        );
                        ::metrics::counter!(metrics::ALARMS, "kind" => "over_budget").increment(1);
                        around.budget.given_up(committed);
                        continue;
                    }
                    End::Braked => return hold_the_brake(config.brake_percent, status, stop).await,
                    End::Alarm(Alarm::HeldTooLong) => caution.gave_back(),
                    End::Alarm(_) | End::Died => caution.died(committed),
                }
                careful_for = 0;
                ::metrics::counter!(metrics::LOST).increment(1);
                tracing::warn!(?end, next = ?caution.window(), "the session with the broker is over");
                status.broker(Err("the session is over; making a new one".to_owned()));
                // A session that dies young may do so again, and each death is a redelivery of all it held.
                // One that was narrow costs one message at most: the sooner the broker gives up on that, the
                // better.
                if began.elapsed() > LONG_LIFE || window != Window::Full {
                    backoff.reset();
                }
            }
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(backoff.next_wait()))
            .await
            .is_none()
        {
            return;
        }
    }
}

fn plan(config: &WorkerConfig, caution: &Caution, budget: &Budget, is_first: bool) -> Plan {
    let full = config.most_held();
    let fits = budget.fits(full);
    match caution.window() {
        Window::Full => Plan {
            window: Window::Full,
            deliveries: fits,
            gate: (is_first && fits == full).then(|| Arc::new(Gate::new(full, config.prefetch))),
        },
        Window::Narrow(window) => {
            let window = window.min(u16::try_from(fits).unwrap_or(u16::MAX));
            Plan {
                window: Window::Narrow(window),
                deliveries: u32::from(window),
                gate: None,
            }
        }
    }
}

/// How many deliveries each consumer may hold; none: it begins later.
fn prefetches(config: &WorkerConfig, plan: &Plan) -> Vec<Option<u16>> {
    match plan.window {
        Window::Narrow(window) => vec![Some(window)],
        Window::Full if plan.gate.is_some() => {
            let behind = std::iter::repeat_n(None, config.consumers);
            std::iter::once(Some(1)).chain(behind).collect()
        }
        Window::Full => (0..config.consumers)
            .map(|place| consumer::share(plan.deliveries, place, config.consumers))
            .filter(|prefetch| *prefetch > 0)
            .map(Some)
            .collect(),
    }
}

/// Takes nothing any more until somebody has looked at the queue and started the worker again.
async fn hold_the_brake(percent: u64, status: &Status, stop: &CancellationToken) {
    let because = format!(
        "more than {percent} percent of the messages are malformed: correct their producer, or set \
         BRAKE_MALFORMED_PERCENT to 0 to have them as dead letters, and start the worker again"
    );
    tracing::error!(because, "the brake is pulled: nothing is consumed");
    status.broker(Err("paused by the brake".to_owned()));
    status.braked(because);
    stop.cancelled().await;
}

/// Shows that the main thread comes by.
async fn beat(status: Arc<Status>, stop: CancellationToken) {
    loop {
        status.pulse(Instant::now());
        let second = tokio::time::sleep(Duration::from_secs(1));
        if stop.run_until_cancelled(second).await.is_none() {
            return;
        }
    }
}

/// Host, process and a random part: unique among all workers of a queue.
fn worker_id() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!(
        "{}-{}-{}",
        host.trim(),
        std::process::id(),
        Uuid::new_v4().simple()
    )
}

/// True once the schema is this build's; false if asked to stop before.
async fn wait_for_schema(
    config: &WorkerConfig,
    status: &Status,
    stop: &CancellationToken,
) -> Result<bool, WorkerError> {
    let mut backoff = Backoff::default();
    loop {
        let check = async {
            let client = config.database.connect().await.map_err(SchemaError::Database)?;
            schema::check(&client).await
        };
        // A server that was cut off says nothing.
        let check = tokio::time::timeout(SCHEMA_DEADLINE, check);
        match stop.run_until_cancelled(check).await {
            None => return Ok(false),
            Some(Ok(Ok(()))) => return Ok(true),
            Some(Err(_)) => {
                tracing::warn!("the database does not answer; trying again");
                status.database(Err(format!("no answer for {} s", SCHEMA_DEADLINE.as_secs())));
            }
            Some(Ok(Err(SchemaError::Database(error)))) => {
                let error = explain(&error);
                tracing::warn!(error, "the database cannot be asked for its schema; trying again");
                status.database(Err(error));
            }
            Some(Ok(Err(error))) => return Err(error.into()),
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(backoff.next_wait()))
            .await
            .is_none()
        {
            return Ok(false);
        }
    }
}
