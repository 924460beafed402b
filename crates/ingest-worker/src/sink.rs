//! From a batch to committed rows: the straight COPY, the way around duplicates, and the search for what
//! the database refuses.
//!
//! One transaction holds everything of a piece: the check of the accepted window, the dead letters, the
//! events, and (by triggers) the rollups. Only one statement in it touches the rollups: two would lock their
//! rows in two orders, and deadlock with another lane.

mod connection;
mod piece;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use analytics_runtime::postgres::Database;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::batch::{Batch, DeadLetter, take_repeated};
use crate::failpoint::{self, Rule};
use crate::metrics;
use crate::progress::Progress;
pub(crate) use connection::outside_window;
use connection::{Connection, TryError};
use piece::{Fault, Next, Piece, Stage};

/// How long one try may take unless configured. COPY knows no statement_timeout, and a server that was cut
/// off says nothing.
const TRY_DEADLINE: Duration = Duration::from_secs(60);

/// Events older than this are written apart from the others. A continuous aggregate notes one span of
/// changes per transaction: with a late event among current ones it would be everything in between, and
/// be computed again.
const LATE: time::Duration = time::Duration::HOUR;

/// What became of a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Events whose rows were committed by this batch.
    pub stored: u64,
    /// Events that were stored already, or stood in the batch twice.
    pub duplicates: u64,
    /// The time of the newest event among them.
    pub newest: Option<OffsetDateTime>,
}

/// Writes batches over one connection, which it makes and replaces itself.
pub struct Sink {
    database: Database,
    queue: String,
    missing_partition: Arc<Notify>,
    progress: Option<Arc<Progress>>,
    deadline: Duration,
    connection: Option<Connection>,
    /// Where messages wait that turned out to be no events, if they are to be handed back.
    handed_back: Option<Vec<DeadLetter>>,
}

/// The wait was cut short: nothing of the batch may be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned;

impl Sink {
    /// A sink that has not connected yet. `missing_partition` is notified when a row finds none.
    pub fn new(database: Database, queue: String, missing_partition: Arc<Notify>) -> Self {
        Self {
            database,
            queue,
            missing_partition,
            progress: None,
            deadline: TRY_DEADLINE,
            connection: None,
            handed_back: None,
        }
    }

    /// The same, but what turns out to be no event is handed back by [`Self::take_handed_back`] instead of
    /// being kept as a dead letter.
    #[must_use]
    pub fn handing_back(mut self) -> Self {
        self.handed_back = Some(Vec::new());
        self
    }

    /// What the last batches left over.
    pub fn take_handed_back(&mut self) -> Vec<DeadLetter> {
        self.handed_back.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Tells about commits and troubles.
    #[must_use]
    pub fn telling(mut self, progress: Arc<Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Bounds one try.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Stores a batch: afterwards every event in it is a committed row and every other message a
    /// committed dead letter. Passing errors are waited out, for ever.
    ///
    /// # Errors
    /// If `abandon` was cancelled before that. Part of the batch may be committed all the same.
    pub async fn write(
        &mut self,
        mut batch: Batch,
        abandon: &CancellationToken,
    ) -> Result<Written, Abandoned> {
        let mut letters = std::mem::take(&mut batch.dead_letters);
        if failpoint::is_broken(Rule::KeepMalformed) {
            letters.clear();
        }
        let mut rows = std::mem::take(&mut batch.rows);
        let mut repeated = take_repeated(&mut rows);
        // Of events that are in it twice, the first may be refused: then it is the next one's turn.
        let mut open: HashSet<_> = repeated.iter().map(|row| row.event.key()).collect();
        let mut written = Written::default();
        loop {
            let late_before = OffsetDateTime::now_utc() - LATE;
            let (late, current) = rows.into_iter().partition(|row| row.event.time < late_before);
            // The next one last.
            let pieces = vec![Piece::new(late, Vec::new()), Piece::new(current, letters)];
            self.write_pieces(pieces, &mut written, &mut open, abandon)
                .await?;
            (rows, repeated) = repeated
                .into_iter()
                .partition(|row| open.contains(&row.event.key()));
            written.duplicates += repeated.len() as u64;
            if rows.is_empty() {
                return Ok(written);
            }
            repeated = take_repeated(&mut rows);
            letters = Vec::new();
        }
    }

    /// `open`: keys of which another event waits; those that are stored are taken out.
    async fn write_pieces(
        &mut self,
        mut pieces: Vec<Piece>,
        written: &mut Written,
        open: &mut HashSet<EventKey>,
        abandon: &CancellationToken,
    ) -> Result<(), Abandoned> {
        let mut backoff = Backoff::default();
        while let Some(mut piece) = pieces.pop() {
            if piece.is_empty() {
                continue;
            }
            let mut stage = Stage::Begin;
            let attempt = self.attempt(&mut piece, &mut stage);
            let Some(outcome) = abandon.run_until_cancelled(attempt).await else {
                self.hang_up();
                return Err(Abandoned);
            };
            let error = match outcome {
                Ok(done) => {
                    backoff.reset();
                    written.stored += done.stored;
                    written.duplicates += done.duplicates;
                    let newest = piece.rows.iter().map(|row| row.event.time).max();
                    written.newest = written.newest.max(newest);
                    if !open.is_empty() {
                        piece.rows.iter().for_each(|row| {
                            open.remove(&row.event.key());
                        });
                    }
                    match &mut self.handed_back {
                        Some(handed_back) => handed_back.append(&mut piece.letters),
                        None => count_letters(&piece.letters),
                    }
                    if let Some(progress) = &self.progress {
                        progress.committed();
                    }
                    continue;
                }
                Err(error) => error,
            };
            let (fault, lacks_partition) = error.fault();
            if fault == Fault::TooSlow {
                tracing::warn!(%error, ?stage, rows = piece.rows.len(), "the server is told to give a batch up");
                // Awaited: until the server gives up, the next try would wait for its locks.
                if let Some(connection) = self.connection.take() {
                    connection
                        .end_stalled_blockers(&self.database, self.deadline)
                        .await;
                    connection.cancel(&self.database).await;
                }
            }
            match piece.after(fault, stage, &error.to_string()) {
                Next::Pieces(next) => {
                    tracing::debug!(%error, ?stage, pieces = next.len(), "the batch is written otherwise");
                    pieces.extend(next);
                }
                Next::OnFreshConnection(again) => {
                    self.connection = None;
                    pieces.push(again);
                }
                Next::Later(again) => {
                    pieces.push(again);
                    self.connection = None;
                    let wait = backoff.next_wait();
                    self.trouble(&error, stage, lacks_partition, wait);
                    if abandon
                        .run_until_cancelled(tokio::time::sleep(wait))
                        .await
                        .is_none()
                    {
                        return Err(Abandoned);
                    }
                }
            }
        }
        Ok(())
    }

    async fn attempt(&mut self, piece: &mut Piece, stage: &mut Stage) -> Result<Written, TryError> {
        let connection = match &self.connection {
            Some(connection) => connection,
            None => self.connection.insert(Connection::open(&self.database).await?),
        };
        let queue = self.handed_back.is_none().then_some(&*self.queue);
        connection.write(queue, piece, self.deadline, stage).await
    }

    fn trouble(&self, error: &TryError, stage: Stage, lacks_partition: bool, wait: Duration) {
        ::metrics::counter!(metrics::RETRIED).increment(1);
        if lacks_partition {
            self.missing_partition.notify_one();
        }
        if let Some(progress) = &self.progress {
            progress.troubled(lacks_partition);
        }
        let wait_ms = wait.as_millis();
        tracing::warn!(%error, ?stage, wait_ms, "the batch could not be written; trying again");
    }

    /// Drops the connection in the middle of a transaction.
    fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            let database = self.database.clone();
            tokio::spawn(async move { connection.cancel(&database).await });
        }
    }
}

type EventKey = (uuid::Uuid, OffsetDateTime, uuid::Uuid);

fn count_letters(letters: &[DeadLetter]) {
    for letter in letters {
        ::metrics::counter!(metrics::DEAD_LETTERED, "reason" => letter.malformed.reason.code()).increment(1);
        tracing::warn!(
            reason = letter.malformed.reason.code(),
            field = letter.malformed.field,
            "dead letter"
        );
    }
}
