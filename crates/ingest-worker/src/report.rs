//! What this worker knows of the queue, told to the database once a second: freshness is measured from it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use analytics_core::ingest::REPORT;
use analytics_runtime::postgres::Database;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::amqp::Session;
use crate::ledger::Ledger;
use crate::metrics;
use crate::status::Status;

/// How often.
const BEAT: Duration = Duration::from_secs(1);

/// What the worker holds and has seen; outlives the generations.
#[derive(Default)]
pub struct Knowledge {
    held: Mutex<Vec<Arc<Ledger>>>,
    queue_empty_at: Mutex<Option<Instant>>,
}

impl Knowledge {
    /// A new generation: what the last one held is back at the broker.
    pub fn begin_generation(&self, held: Vec<Arc<Ledger>>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    fn oldest_held(&self) -> Option<Instant> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter_map(|ledger| ledger.oldest()).min()
    }

    fn queue_empty_at(&self) -> Option<Instant> {
        *self.queue_empty_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw_queue_empty(&self, when: Instant) {
        *self.queue_empty_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(when);
    }
}

/// Looks at the queue once a second, for as long as the session lives.
pub async fn watch_queue(session: Arc<Session>, knowledge: Arc<Knowledge>) {
    let death = session.death.clone();
    let mut beat = ticker();
    while death.run_until_cancelled(beat.tick()).await.is_some() {
        let asked_at = Instant::now();
        match session.ready_messages().await {
            Ok(ready) => {
                ::metrics::gauge!(metrics::QUEUE_READY).set(f64::from(ready));
                if ready == 0 {
                    knowledge.saw_queue_empty(asked_at);
                }
            }
            Err(error) => tracing::warn!(%error, "the queue could not be asked"),
        }
    }
}

/// Writes the report once a second until `stop`, and once more then. Its failures also tell whether the
/// database is there.
pub async fn run(
    database: Database,
    worker_id: String,
    queue: String,
    knowledge: Arc<Knowledge>,
    status: Arc<Status>,
    stop: CancellationToken,
) {
    let started_at = Instant::now();
    let mut client = None;
    let mut beat = ticker();
    loop {
        let last = stop.run_until_cancelled(beat.tick()).await.is_none();
        let outcome = tokio::time::timeout(BEAT * 5, async {
            let connected = match client.take() {
                Some(client) => client,
                None => database.connect().await?,
            };
            write(&connected, &worker_id, &queue, started_at, &knowledge).await?;
            client = Some(connected);
            Ok::<_, tokio_postgres::Error>(())
        });
        match outcome.await {
            Ok(Ok(())) => status.database_answers(true),
            Ok(Err(error)) => {
                status.database_answers(false);
                tracing::warn!(%error, "the report could not be written");
            }
            Err(_) => {
                status.database_answers(false);
                tracing::warn!("the report had no answer");
            }
        }
        if last {
            return;
        }
    }
}

async fn write(
    client: &Client,
    worker_id: &str,
    queue: &str,
    started_at: Instant,
    knowledge: &Knowledge,
) -> Result<(), tokio_postgres::Error> {
    let true_at = Instant::now();
    let oldest = knowledge.oldest_held();
    ::metrics::gauge!(metrics::OLDEST_UNACKED)
        .set(oldest.map_or(0.0, |oldest| oldest.elapsed().as_secs_f64()));
    let empty = knowledge.queue_empty_at();
    let ago = |instant: Instant| instant.elapsed().as_secs_f64();
    let (started, beat, empty, oldest) = (ago(started_at), ago(true_at), empty.map(ago), oldest.map(ago));
    client
        .execute(REPORT, &[&worker_id, &queue, &started, &beat, &empty, &oldest])
        .await?;
    Ok(())
}

fn ticker() -> tokio::time::Interval {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}
