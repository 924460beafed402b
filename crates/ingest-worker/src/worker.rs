//! The worker as a whole: one generation after another, until it is asked to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use analytics_runtime::schema::{self, SchemaError};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::amqp::{BrokerError, Session};
use crate::backoff::Backoff;
use crate::config::WorkerConfig;
use crate::lane::{self, BatchLimits, Return};
use crate::ledger::Ledger;
use crate::report::{self, Knowledge};
use crate::sink::Sink;
use crate::status::Status;
use crate::{consumer, maintenance, metrics};

/// How long everything that was received may take to be stored once the worker is asked to stop; within
/// the ten seconds that the whole exit may take. What is not stored by then comes again, to somebody else.
const DRAIN_DEADLINE: Duration = Duration::from_secs(7);

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
    if !wait_for_schema(&config, &stop).await? {
        return Ok(());
    }
    let missing_partition = Arc::new(Notify::new());
    let knowledge = Arc::new(Knowledge::default());
    let background = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(report::run(
        config.database.clone().session("ingest-worker report", &[]),
        worker_id(),
        config.queue.clone(),
        Arc::clone(&knowledge),
        Arc::clone(&status),
        background.clone(),
    ));
    if let Some(maintenance) = config.maintenance.clone() {
        tasks.spawn(maintenance::run(
            maintenance,
            Arc::clone(&missing_partition),
            background.clone(),
        ));
    }
    let mut sinks: Vec<Sink> = (0..config.lanes)
        .map(|_| {
            Sink::new(
                config.database.clone(),
                config.queue.clone(),
                Arc::clone(&missing_partition),
            )
        })
        .collect();
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let opened = Session::open(&config.broker, &config.queue, config.consumers, config.prefetch);
        match stop.run_until_cancelled(opened).await {
            None => break,
            Some(Ok((session, consumers))) => {
                ::metrics::counter!(metrics::GENERATIONS).increment(1);
                let began = Instant::now();
                tracing::info!(queue = config.queue, consumers = consumers.len(), "consuming");
                status.consuming(true);
                sinks = generation(
                    &config,
                    session,
                    consumers,
                    sinks,
                    &knowledge,
                    &missing_partition,
                    &stop,
                )
                .await;
                status.consuming(false);
                // A session that dies young may do so again, and each death is a redelivery of all it held.
                if began.elapsed() > Duration::from_secs(30) {
                    backoff.reset();
                }
            }
            Some(Err(error)) => warn_of(&error),
        }
        if !stop.is_cancelled() {
            stop.run_until_cancelled(tokio::time::sleep(backoff.next_wait()))
                .await;
        }
    }
    status.stopping();
    background.cancel();
    // The last report says that nothing is held any more.
    let _ = tokio::time::timeout(Duration::from_secs(1), tasks.join_all()).await;
    Ok(())
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

fn warn_of(error: &BrokerError) {
    tracing::warn!(%error, "no session with the broker; trying again");
}

/// One session with the broker, from its first delivery to its death or to the last acknowledgement.
async fn generation(
    config: &WorkerConfig,
    session: Session,
    consumers: Vec<crate::amqp::Consumer>,
    sinks: Vec<Sink>,
    knowledge: &Arc<Knowledge>,
    missing_partition: &Arc<Notify>,
    stop: &CancellationToken,
) -> Vec<Sink> {
    let session = Arc::new(session);
    let death = session.death.clone();
    let ledgers: Vec<Arc<Ledger>> = consumers.iter().map(|_| Arc::new(Ledger::default())).collect();
    knowledge.begin_generation(ledgers.clone());
    let watch = tokio::spawn(report::watch_queue(Arc::clone(&session), Arc::clone(knowledge)));

    let lane_count = sinks.len();
    // About one batch waits read while one is written; the rest waits as it came.
    let waiting = (config.batch_size * lane_count / consumer::CHUNK).max(1);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..lane_count).map(|_| mpsc::channel(waiting)).unzip();
    let mut returns = Vec::with_capacity(consumers.len());
    let mut readers = JoinSet::new();
    for (number, (consumer, ledger)) in consumers.into_iter().zip(ledgers).enumerate() {
        returns.push(Return::new(consumer.acker.clone(), Arc::clone(&ledger)));
        readers.spawn(consumer::run(number, consumer, ledger, senders.clone()));
    }
    let returns = Arc::new(returns);
    drop(senders);
    let limits = BatchLimits {
        size: config.batch_size,
        max_age: config.batch_max_age,
    };
    let mut lanes = JoinSet::new();
    for (arrivals, sink) in receivers.into_iter().zip(sinks) {
        lanes.spawn(lane::run(
            arrivals,
            limits,
            sink,
            Arc::clone(&returns),
            death.clone(),
        ));
    }

    // A receiver that ends although nobody cancelled its consumer is a death that amqprs did not report.
    let ended_by_itself = async {
        readers.join_next().await;
    };
    let mut sinks = Vec::with_capacity(lane_count);
    tokio::select! {
        () = death.cancelled() => {}
        () = stop.cancelled() => {
            session.stop_consuming().await;
        }
        () = ended_by_itself => {
            tracing::warn!("a consumer ended without being cancelled");
            death.cancel();
        }
        // A lane ends by itself only by a panic: what it held would pin the watermarks for ever.
        ended = lanes.join_next() => {
            sinks.extend(ended.and_then(Result::ok));
            death.cancel();
        }
    }
    let all_returned = async {
        while let Some(sink) = lanes.join_next().await {
            sinks.extend(
                sink.inspect_err(|error| tracing::error!(%error, "a lane ended by a panic"))
                    .ok(),
            );
        }
    };
    if tokio::time::timeout(DRAIN_DEADLINE, all_returned).await.is_err() {
        tracing::warn!("not everything that was received could be stored in time; it will come again");
        death.cancel();
        lanes.shutdown().await;
    }
    // From here on nothing is acknowledged any more; the goodbye lets the broker read what was.
    watch.abort();
    let _ = watch.await;
    readers.shutdown().await;
    let in_order = match Arc::into_inner(session) {
        Some(session) => session.close().await,
        None => false,
    };
    knowledge.end_generation(in_order);
    while sinks.len() < lane_count {
        sinks.push(Sink::new(
            config.database.clone(),
            config.queue.clone(),
            Arc::clone(missing_partition),
        ));
    }
    sinks
}

/// True once the schema is this build's; false if asked to stop before.
async fn wait_for_schema(config: &WorkerConfig, stop: &CancellationToken) -> Result<bool, WorkerError> {
    let mut backoff = Backoff::default();
    loop {
        let check = async {
            let client = config.database.connect().await.map_err(SchemaError::Database)?;
            schema::check(&client).await
        };
        match stop.run_until_cancelled(check).await {
            None => return Ok(false),
            Some(Ok(())) => return Ok(true),
            Some(Err(SchemaError::Database(error))) => {
                tracing::warn!(%error, "the database cannot be asked for its schema; trying again");
            }
            Some(Err(error)) => return Err(error.into()),
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
