//! From a batch to committed rows: the straight COPY, the way around duplicates, and the search for rows
//! that the database refuses.
//!
//! One transaction holds everything: the check of the accepted window, the dead letters, the events, and
//! (by triggers) the rollups. Only one statement in it touches the rollups: two would lock their rows in
//! two orders, and deadlock with another lane.

use std::sync::Arc;
use std::time::Duration;

use analytics_core::event::{Malformed, Reason};
use analytics_core::ingest;
use analytics_runtime::postgres::Database;
use futures_util::pin_mut;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::batch::{Batch, DeadLetter, Row};
use crate::failpoint::{self, Point, Rule};
use crate::metrics;
use crate::sqlstate::{Verdict, judge};

/// How long one try may take. COPY knows no statement_timeout, and a server that was cut off says nothing.
const TRY_DEADLINE: Duration = Duration::from_secs(60);

/// Events older than this are written apart from the others. A continuous aggregate notes one span of
/// changes per transaction: with a late event among current ones it would be everything in between, and
/// be computed again.
const LATE: time::Duration = time::Duration::HOUR;

const COLUMNS: [Type; 14] = [
    Type::TIMESTAMPTZ,
    Type::UUID,
    Type::UUID,
    Type::UUID,
    Type::UUID,
    Type::VARCHAR,
    Type::INT4,
    Type::INT4,
    Type::INT4,
    Type::NUMERIC,
    Type::INT4,
    Type::VARCHAR,
    Type::TEXT,
    Type::VARCHAR,
];

/// What became of a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Events whose rows were committed by this batch.
    pub stored: u64,
    /// Events that were stored already, or stood in the batch twice.
    pub duplicates: u64,
}

/// Writes batches over one connection, which it makes and replaces itself.
pub struct Sink {
    database: Database,
    queue: String,
    missing_partition: Arc<Notify>,
    connection: Option<Connection>,
}

struct Connection {
    client: Client,
    copy_events: Statement,
    copy_staged: Statement,
    insert_staged: Statement,
    read_window: Statement,
    insert_dead_letters: Statement,
}

/// Whether to try the straight COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    AroundDuplicates,
}

#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
    #[error("no answer within {} s", TRY_DEADLINE.as_secs())]
    Deadline,
    /// Rows went in that are neither stored nor duplicates: never to be committed.
    #[error("{inserted} rows of {sent} were reported as inserted")]
    Count { inserted: u64, sent: u64 },
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
            connection: None,
        }
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
        let mut written = Written {
            duplicates: batch.sort_and_deduplicate() as u64,
            ..Written::default()
        };
        let mut letters = std::mem::take(&mut batch.dead_letters);
        if failpoint::is_broken(Rule::KeepMalformed) {
            letters.clear();
        }
        let late_before = OffsetDateTime::now_utc() - LATE;
        let (late, current) = batch
            .rows
            .into_iter()
            .partition(|row| row.event.time < late_before);
        // Pieces still to be written, the next one last.
        let mut pieces: Vec<(Vec<Row>, Way)> = vec![(current, Way::Straight), (late, Way::Straight)];
        let mut backoff = Backoff::default();
        while let Some((mut rows, way)) = pieces.pop() {
            if rows.is_empty() && letters.is_empty() {
                continue;
            }
            let error = match abandon
                .run_until_cancelled(self.attempt(&mut rows, &mut letters, way))
                .await
            {
                None => {
                    self.connection = None;
                    return Err(Abandoned);
                }
                Some(Ok(done)) => {
                    backoff.reset();
                    written.stored += done.stored;
                    written.duplicates += done.duplicates;
                    count_letters(&letters);
                    letters.clear();
                    continue;
                }
                Some(Err(error)) => error,
            };
            let verdict = match &error {
                TryError::Database(error) => judge(error),
                TryError::Deadline | TryError::Count { .. } => Verdict::Passing,
            };
            match verdict {
                Verdict::Duplicate if way == Way::Straight => pieces.push((rows, Way::AroundDuplicates)),
                Verdict::Data if rows.len() > 1 => {
                    let rest = rows.split_off(rows.len() / 2);
                    pieces.push((rest, way));
                    pieces.push((rows, way));
                }
                Verdict::Data if rows.len() == 1 => {
                    letters.extend(rows.into_iter().map(|row| refused(row, &error)));
                    pieces.push((Vec::new(), way));
                }
                _ => {
                    if verdict == Verdict::MissingPartition {
                        self.missing_partition.notify_one();
                    }
                    self.connection = None;
                    ::metrics::counter!(metrics::RETRIED).increment(1);
                    let wait = backoff.next_wait();
                    tracing::warn!(error = %explain(&error), wait_ms = wait.as_millis(), "the batch could not be written; trying again");
                    pieces.push((rows, way));
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
        Ok(written)
    }

    /// One transaction. On an error nothing of it is committed, or (if the answer to COMMIT was lost) all.
    async fn attempt(
        &mut self,
        rows: &mut Vec<Row>,
        letters: &mut Vec<DeadLetter>,
        way: Way,
    ) -> Result<Written, TryError> {
        let attempt = async {
            let connection = match &self.connection {
                Some(connection) => connection,
                None => self.connection.insert(Connection::open(&self.database).await?),
            };
            let result = connection.transaction(&self.queue, rows, letters, way).await;
            if result.is_err() && !connection.client.is_closed() {
                connection.client.batch_execute(ingest::ROLLBACK).await?;
            }
            result
        };
        tokio::time::timeout(TRY_DEADLINE, attempt)
            .await
            .map_err(|_| TryError::Deadline)?
    }
}

impl Connection {
    async fn open(database: &Database) -> Result<Self, tokio_postgres::Error> {
        let client = database.connect().await?;
        client.batch_execute(ingest::CREATE_STAGING).await?;
        Ok(Self {
            copy_events: client.prepare(ingest::COPY_EVENTS).await?,
            copy_staged: client.prepare(ingest::COPY_STAGED).await?,
            insert_staged: client.prepare(ingest::INSERT_STAGED).await?,
            read_window: client.prepare(ingest::READ_WINDOW).await?,
            insert_dead_letters: client.prepare(ingest::INSERT_DEAD_LETTERS).await?,
            client,
        })
    }

    async fn transaction(
        &self,
        queue: &str,
        rows: &mut Vec<Row>,
        letters: &mut Vec<DeadLetter>,
        way: Way,
    ) -> Result<Written, TryError> {
        // Sent together: the second waits for the first at the server.
        let (begun, window) = futures_util::join!(
            self.client.batch_execute(ingest::BEGIN),
            self.client.query_one(&self.read_window, &[])
        );
        begun?;
        let window = window?;
        refuse_outside(rows, letters, window.try_get(0)?, window.try_get(1)?);
        if !letters.is_empty() {
            self.keep_dead_letters(queue, letters).await?;
        }
        let sent = rows.len() as u64;
        let stored = match way {
            _ if rows.is_empty() => 0,
            Way::Straight => self.copy(&self.copy_events, rows).await?,
            Way::AroundDuplicates => {
                self.copy(&self.copy_staged, rows).await?;
                self.client.execute(&self.insert_staged, &[]).await?
            }
        };
        if stored > sent || (way == Way::Straight && stored != sent) {
            return Err(TryError::Count {
                inserted: stored,
                sent,
            });
        }
        failpoint::reach(Point::BeforeCommit).await;
        self.client.batch_execute(ingest::COMMIT).await?;
        Ok(Written {
            stored,
            duplicates: sent - stored,
        })
    }

    async fn copy(&self, statement: &Statement, rows: &[Row]) -> Result<u64, tokio_postgres::Error> {
        let writer = BinaryCopyInWriter::new(self.client.copy_in(statement).await?, &COLUMNS);
        pin_mut!(writer);
        for Row { event, .. } in rows {
            let cost = event.cost.dollars();
            writer
                .as_mut()
                .write(&[
                    &event.time,
                    &event.event_id,
                    &event.org_id,
                    &event.user_id,
                    &event.api_key_id,
                    &event.model_name,
                    &event.input_tokens,
                    &event.output_tokens,
                    &event.total_tokens,
                    &cost,
                    &event.latency_ms,
                    &event.status,
                    &event.error_message,
                    &event.request_id,
                ])
                .await?;
        }
        writer.finish().await
    }

    async fn keep_dead_letters(
        &self,
        queue: &str,
        letters: &[DeadLetter],
    ) -> Result<(), tokio_postgres::Error> {
        let bodies: Vec<&[u8]> = letters.iter().map(|letter| &*letter.message.body).collect();
        let headers: Vec<Value> = letters
            .iter()
            .map(|letter| letter.message.properties.to_json())
            .collect();
        let reasons: Vec<&str> = letters
            .iter()
            .map(|letter| letter.malformed.reason.code())
            .collect();
        let fields: Vec<Option<&str>> = letters.iter().map(|letter| letter.malformed.field).collect();
        let details: Vec<&str> = letters.iter().map(|letter| &*letter.malformed.detail).collect();
        let statement = &self.insert_dead_letters;
        self.client
            .execute(
                statement,
                &[&queue, &bodies, &headers, &reasons, &fields, &details],
            )
            .await?;
        Ok(())
    }
}

/// Takes out the events that are outside the accepted window, by the database's clock.
fn refuse_outside(
    rows: &mut Vec<Row>,
    letters: &mut Vec<DeadLetter>,
    floor: OffsetDateTime,
    ceiling: OffsetDateTime,
) {
    for row in rows.extract_if(.., |row| row.event.time < floor || row.event.time > ceiling) {
        let malformed = if row.event.time < floor {
            Malformed::field(
                Reason::TooOld,
                "time",
                "is older than what can be told from a duplicate",
            )
        } else {
            Malformed::field(
                Reason::InTheFuture,
                "time",
                "is more than 10 minutes ahead of the database's clock",
            )
        };
        letters.push(DeadLetter {
            message: row.message,
            malformed,
        });
    }
}

fn refused(row: Row, error: &TryError) -> DeadLetter {
    let detail = explain(error);
    DeadLetter {
        message: row.message,
        malformed: Malformed::body(Reason::RefusedByDatabase, detail),
    }
}

/// The database's own words: the library's say "db error" only. Without DETAIL, which holds values.
fn explain(error: &TryError) -> String {
    match error {
        TryError::Database(error) => match error.as_db_error() {
            Some(db) => format!("{} ({})", db.message(), db.code().code()),
            None => error.to_string(),
        },
        other => other.to_string(),
    }
}

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
