//! What this worker knows of the queue, told to the database once a second: freshness is measured from it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use analytics_core::ingest::{CLOCK, REPORT};
use analytics_runtime::postgres::{Database, explain};
use time::OffsetDateTime;
use tokio::time::MissedTickBehavior;
use tokio_postgres::{Client, Statement};
use tokio_util::sync::CancellationToken;

use crate::amqp::Session;
use crate::ledger::Ledger;
use crate::metrics;
use crate::progress::Progress;
use crate::status::Status;

/// How often.
const BEAT: Duration = Duration::from_secs(1);
/// How long a connection may take. A server that is cut off says nothing, so it bounds how late its return is
/// noticed.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a report may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a message may travel from the queue to the worker's memory: the queue can look empty while it
/// is on its way.
const TRANSIT: Duration = Duration::from_secs(1);
/// How long the broker may take to notice that a connection is dead: two missed heartbeats of 10 s and the
/// check in between, doubled. Until then what was held there is neither ready nor ours.
const LETS_GO: Duration = Duration::from_secs(60);
/// Sights that wait to be confirmed. While nothing can be counted for long, some in between are forgotten.
const SIGHTS: usize = 120;

/// What the worker holds and has seen; outlives the generations.
#[derive(Default)]
pub struct Knowledge(Mutex<State>);

#[derive(Default)]
struct State {
    ledgers: Vec<Arc<Ledger>>,
    /// Sights of the empty queue, oldest first, by which not everything received is counted yet.
    sights: VecDeque<Instant>,
    /// The last sight by which everything received has been counted.
    confirmed: Option<Instant>,
    /// Sights before this prove nothing: an earlier connection may still hold deliveries.
    blind_until: Option<Instant>,
}

impl Knowledge {
    /// A new generation, with a ledger per consumer.
    pub fn begin_generation(&self, ledgers: Vec<Arc<Ledger>>) {
        self.state().ledgers = ledgers;
    }

    /// A generation is over. What it held is back at the broker, at once if it said goodbye in order.
    pub fn end_generation(&self, in_order: bool) {
        let mut state = self.state();
        state.confirm(Instant::now());
        let held = state.oldest_held().is_some();
        state.ledgers.clear();
        state.sights.clear();
        if held && !in_order {
            state.blind_until = Some(Instant::now() + LETS_GO);
        }
    }

    /// Deliveries that are held.
    pub fn held(&self) -> usize {
        self.state().ledgers.iter().map(|ledger| ledger.held()).sum()
    }

    /// Since when the oldest delivery is held.
    pub fn oldest_held(&self) -> Option<Instant> {
        self.state().oldest_held()
    }

    /// Whether no earlier connection can still hold anything, nor this one.
    fn holds_nothing(&self) -> bool {
        let state = self.state();
        state.oldest_held().is_none() && state.blind_until.is_none_or(|until| Instant::now() >= until)
    }

    fn saw_queue_empty(&self, when: Instant) {
        let mut state = self.state();
        if state.blind_until.is_some_and(|until| when < until) {
            return;
        }
        if state.sights.len() >= SIGHTS {
            state.sights.remove(SIGHTS / 2);
        }
        state.sights.push_back(when);
    }

    /// The last confirmed sight, and since when the oldest delivery is held.
    fn report(&self, now: Instant) -> (Option<Instant>, Option<Instant>) {
        let mut state = self.state();
        state.confirm(now);
        (state.confirmed, state.oldest_held())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change of it can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn oldest_held(&self) -> Option<Instant> {
        self.ledgers.iter().filter_map(|ledger| ledger.oldest()).min()
    }

    /// What was published before a sight of the empty queue had been delivered by then, and has arrived a
    /// transit later; if all that is held arrived after that, it is counted.
    fn confirm(&mut self, now: Instant) {
        let held_since = self.oldest_held().unwrap_or(now);
        while self
            .sights
            .front()
            .is_some_and(|sight| *sight + TRANSIT <= held_since)
        {
            self.confirmed = self.sights.pop_front();
        }
    }
}

/// Looks at the queue once a second, for as long as the session lives.
pub async fn watch_queue(session: Arc<Session>, knowledge: Arc<Knowledge>, progress: Arc<Progress>) {
    let death = session.death.clone();
    let mut beat = ticker();
    while death.run_until_cancelled(beat.tick()).await.is_some() {
        let asked_at = Instant::now();
        match session.ready_messages().await {
            Ok(ready) => {
                ::metrics::gauge!(metrics::QUEUE_READY).set(f64::from(ready));
                progress.starving(ready > 0 && knowledge.oldest_held().is_none());
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
    progress: Arc<Progress>,
    status: Arc<Status>,
    stop: CancellationToken,
) {
    let started_at = Instant::now();
    let mut connected = None;
    let mut beat = ticker();
    loop {
        let last = stop.run_until_cancelled(beat.tick()).await.is_none();
        // One that has confirmed nothing yet is as far behind as it is old.
        let counted_through = knowledge.report(Instant::now()).0.unwrap_or(started_at);
        ::metrics::gauge!(metrics::COUNTED_AGE).set(counted_through.elapsed().as_secs_f64());
        let lacked_partition = progress.lacked_partition();
        let written = async {
            let connection = match connected.take() {
                Some(connection) => connection,
                None => within(CONNECT_DEADLINE, connect(&database)).await?,
            };
            let worker = (&*worker_id, &*queue, started_at);
            let write = write(&connection, worker, &knowledge, lacked_partition, last);
            within(WRITE_DEADLINE, write).await?;
            Ok(connection)
        };
        match written.await {
            Ok(connection) => {
                connected = Some(connection);
                status.database(Ok(()));
            }
            Err(error) => {
                let error: String = error;
                if status.database(Err(error.clone())) {
                    tracing::warn!(error, "the report could not be written");
                }
            }
        }
        if last {
            return;
        }
    }
}

async fn within<T>(
    deadline: Duration,
    action: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(deadline, action).await {
        Ok(outcome) => outcome.map_err(|error| explain(&error)),
        Err(_) => Err(format!("no answer for {} s", deadline.as_secs())),
    }
}

/// A session and its statements.
struct Connection {
    client: Client,
    clock: Statement,
    report: Statement,
}

async fn connect(database: &Database) -> Result<Connection, tokio_postgres::Error> {
    let client = database.connect().await?;
    let clock = client.prepare(CLOCK).await?;
    let report = client.prepare(REPORT).await?;
    Ok(Connection {
        client,
        clock,
        report,
    })
}

async fn write(
    connection: &Connection,
    (worker_id, queue, started_at): (&str, &str, Instant),
    knowledge: &Knowledge,
    lacked_partition: Option<Instant>,
    last: bool,
) -> Result<(), tokio_postgres::Error> {
    let client = &connection.client;
    let now: OffsetDateTime = client.query_one(&connection.clock, &[]).await?.get(0);
    let true_at = Instant::now();
    // The clock was read before, so that a moment is rather too early by the answer's way than too late.
    let at = |instant: Instant| now - (true_at - instant);
    let (empty, oldest) = knowledge.report(true_at);
    let stopped = last && knowledge.holds_nothing();
    client
        .execute(
            &connection.report,
            &[
                &worker_id,
                &queue,
                &at(started_at),
                &now,
                &empty.map(at),
                &oldest.map(at),
                &stopped,
                &lacked_partition.map(at),
            ],
        )
        .await?;
    Ok(())
}

fn ticker() -> tokio::time::Interval {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_sight_is_confirmed_when_all_that_arrived_by_then_is_counted() {
        let (knowledge, ledger) = (Knowledge::default(), Arc::new(Ledger::default()));
        knowledge.begin_generation(vec![Arc::clone(&ledger)]);
        let start = Instant::now();
        // A backlog: all of it taken at once, and the queue seen empty right after.
        ledger.arrived(100, start);
        knowledge.saw_queue_empty(start + SECOND / 2);
        assert_eq!(knowledge.report(start + 10 * SECOND), (None, Some(start)));
        // What comes later does not hold an earlier sight back.
        ledger.arrived(101, start + 5 * SECOND);
        ledger.resolve(&(1..=100).collect::<Vec<_>>());
        let confirmed = Some(start + SECOND / 2);
        assert_eq!(
            knowledge.report(start + 10 * SECOND),
            (confirmed, Some(start + 5 * SECOND))
        );
        knowledge.saw_queue_empty(start + 6 * SECOND);
        assert_eq!(knowledge.report(start + 10 * SECOND).0, confirmed);
        ledger.resolve(&[101]);
        assert_eq!(
            knowledge.report(start + 10 * SECOND),
            (Some(start + 6 * SECOND), None)
        );
    }

    #[test]
    fn after_a_connection_was_lost_an_empty_queue_proves_nothing_for_a_while() {
        let (knowledge, ledger) = (Knowledge::default(), Arc::new(Ledger::default()));
        knowledge.begin_generation(vec![Arc::clone(&ledger)]);
        ledger.arrived(1, Instant::now());
        knowledge.end_generation(false);
        assert!(!knowledge.holds_nothing());
        knowledge.saw_queue_empty(Instant::now() + SECOND);
        assert_eq!(knowledge.report(Instant::now() + 100 * SECOND), (None, None));
        let late = Instant::now() + 2 * LETS_GO;
        knowledge.saw_queue_empty(late);
        assert_eq!(knowledge.report(late + 2 * SECOND).0, Some(late));
    }
}
