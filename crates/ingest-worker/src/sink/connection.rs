//! A connection that writes, and one transaction on it.

use std::time::{Duration, Instant};

use analytics_core::event::{Malformed, Reason};
use analytics_core::ingest;
use analytics_runtime::postgres::{Database, explain};
use futures_util::pin_mut;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use super::Written;
use super::piece::{Fault, Piece, Stage, Way};
use crate::batch::{DeadLetter, Row};
use crate::failpoint::{self, Point};
use crate::metrics;
use crate::sqlstate::{Verdict, judge};

/// How long a connection and its preparations may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);
/// How long the server may take to be told to give up.
const CANCEL_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of bodies in one statement: an array parameter is in memory three times.
const LETTERS_BYTES: usize = 4 << 20;
/// Bytes that the headers of a letter are taken for, which are kept up to 64 KiB.
const HEADERS: usize = 4 << 10;

const COLUMNS: [Type; 16] = [
    Type::TIMESTAMPTZ,
    Type::UUID,
    Type::UUID,
    Type::UUID,
    Type::UUID,
    Type::VARCHAR,
    Type::INT4,
    Type::INT4,
    Type::INT4,
    Type::INT4,
    Type::INT4,
    Type::NUMERIC,
    Type::INT4,
    Type::VARCHAR,
    Type::TEXT,
    Type::VARCHAR,
];

/// An error of a try.
#[derive(Debug, thiserror::Error)]
pub(super) enum TryError {
    #[error("{}", explain(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error("not done within {} s", .0.as_secs())]
    Deadline(Duration),
    /// Rows went in that are neither stored nor duplicates: never to be committed.
    #[error("{inserted} rows of {sent} were reported as inserted")]
    Count { inserted: u64, sent: u64 },
}

impl TryError {
    /// What it means for the piece; and whether the reason is that a partition is missing.
    pub(super) fn fault(&self) -> (Fault, bool) {
        match self {
            Self::Database(error) => match judge(error) {
                Verdict::Duplicate => (Fault::Duplicate, false),
                Verdict::Data => (Fault::Data, false),
                Verdict::Passing => (Fault::Passing, false),
                Verdict::MissingPartition => (Fault::Passing, true),
            },
            Self::Deadline(_) => (Fault::TooSlow, false),
            Self::Count { .. } => (Fault::Passing, false),
        }
    }
}

/// A session with its prepared statements.
pub(super) struct Connection {
    client: Client,
    process: i32,
    copy_events: Statement,
    copy_staged: Statement,
    insert_staged: Statement,
    read_window: Statement,
    insert_dead_letters: Statement,
}

impl Connection {
    pub(super) async fn open(database: &Database) -> Result<Self, TryError> {
        let open = async {
            let client = database.connect().await?;
            client.batch_execute(ingest::CREATE_STAGING).await?;
            // Sent together: over a slow line each round trip counts.
            let statements = futures_util::try_join!(
                client.prepare(ingest::COPY_EVENTS),
                client.prepare(ingest::COPY_STAGED),
                client.prepare(ingest::INSERT_STAGED),
                client.prepare(ingest::READ_WINDOW),
                client.prepare(ingest::INSERT_DEAD_LETTERS),
                client.query_one(ingest::OWN_PROCESS, &[]),
            )?;
            let (copy_events, copy_staged, insert_staged, read_window, insert_dead_letters, process) =
                statements;
            Ok(Self {
                process: process.try_get(0)?,
                client,
                copy_events,
                copy_staged,
                insert_staged,
                read_window,
                insert_dead_letters,
            })
        };
        tokio::time::timeout(OPEN_DEADLINE, open)
            .await
            .map_err(|_| TryError::Deadline(OPEN_DEADLINE))?
    }

    /// One transaction with the piece in it. On an error nothing of it is committed, or (if the answer to
    /// COMMIT was lost) all. `stage` tells how far it came. `queue`: which one dead letters are from;
    /// `None`: they are not kept.
    pub(super) async fn write(
        &self,
        queue: Option<&str>,
        piece: &mut Piece,
        deadline: Duration,
        stage: &mut Stage,
    ) -> Result<Written, TryError> {
        let attempt = async {
            let result = self.transaction(queue, piece, stage).await;
            if result.is_err() && !self.client.is_closed() {
                self.client.batch_execute(ingest::ROLLBACK).await?;
            }
            result
        };
        tokio::time::timeout(deadline, attempt)
            .await
            .map_err(|_| TryError::Deadline(deadline))?
    }

    /// Ends it: what the server may still be doing for it holds locks that the next try needs.
    pub(super) async fn cancel(self, database: &Database) {
        if self.client.is_closed() {
            return;
        }
        let cancel = self.client.cancel_token();
        let cancelled = tokio::time::timeout(CANCEL_DEADLINE, cancel.cancel_query(database.tls()));
        if !matches!(cancelled.await, Ok(Ok(()))) {
            tracing::debug!("the server could not be told to give a statement up");
        }
    }

    /// Ends other sessions of this role that it has waited for and that stand still in a COPY: those of a worker whose
    /// process is frozen, or cut off by something that answers in its place. They would hold their keys for ever.
    pub(super) async fn end_stalled_blockers(&self, database: &Database, waited: Duration) {
        let end = async {
            let client = database.connect().await?;
            // Whoever began so long before has had at least half of the time that a batch may take.
            let seconds = waited.as_secs_f64() / 2.0;
            client
                .query(ingest::END_STALLED_BLOCKERS, &[&self.process, &seconds])
                .await
        };
        match tokio::time::timeout(CANCEL_DEADLINE, end).await {
            Ok(Ok(ended)) => {
                for row in ended {
                    let process: i32 = row.get(0);
                    tracing::warn!(
                        process,
                        "a session that stood still in a COPY held this batch up; it was ended"
                    );
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(error = explain(&error), "nobody could be asked who holds it up")
            }
            Err(_) => tracing::debug!("no answer to who holds it up"),
        }
    }

    async fn transaction(
        &self,
        queue: Option<&str>,
        piece: &mut Piece,
        stage: &mut Stage,
    ) -> Result<Written, TryError> {
        *stage = Stage::Begin;
        // Sent together: the second waits for the first at the server.
        let (begun, window) = futures_util::join!(
            self.client.batch_execute(ingest::BEGIN),
            self.client.query_one(&self.read_window, &[])
        );
        begun?;
        let window = window?;
        refuse_outside(piece, window.try_get(0)?, window.try_get(1)?);
        *stage = Stage::Letters;
        if let Some(queue) = queue {
            self.keep_dead_letters(queue, &mut piece.letters).await?;
        }
        *stage = Stage::Rows;
        let sent = piece.rows.len() as u64;
        let began = Instant::now();
        let stored = match piece.way {
            _ if piece.rows.is_empty() => 0,
            Way::Straight => self.copy(&self.copy_events, &piece.rows).await?,
            Way::AroundDuplicates => {
                self.copy(&self.copy_staged, &piece.rows).await?;
                self.client.execute(&self.insert_staged, &[]).await?
            }
        };
        ::metrics::histogram!(metrics::COPY_SECONDS).record(began.elapsed());
        if stored > sent || (piece.way == Way::Straight && stored != sent) {
            return Err(TryError::Count {
                inserted: stored,
                sent,
            });
        }
        failpoint::reach(Point::BeforeCommit).await;
        *stage = Stage::Commit;
        let began = Instant::now();
        self.client.batch_execute(ingest::COMMIT).await?;
        ::metrics::histogram!(metrics::COMMIT_SECONDS).record(began.elapsed());
        Ok(Written {
            stored,
            duplicates: sent - stored,
            newest: None,
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
                    &event.cached_input_tokens,
                    &event.reasoning_tokens,
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

    /// In the order of their bodies, in this statement as in the next: two workers with the same letters
    /// cannot deadlock.
    async fn keep_dead_letters(
        &self,
        queue: &str,
        letters: &mut [DeadLetter],
    ) -> Result<(), tokio_postgres::Error> {
        letters.sort_by(|one, other| one.message.body.cmp(&other.message.body));
        let mut rest = &*letters;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(within_bytes(rest));
            self.insert_dead_letters(queue, now).await?;
            rest = later;
        }
        Ok(())
    }

    async fn insert_dead_letters(
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

/// How many of the letters go into one statement: at least one.
fn within_bytes(letters: &[DeadLetter]) -> usize {
    let mut bytes = 0;
    let fitting = letters.iter().take_while(|letter| {
        bytes += letter.message.body.len() + HEADERS;
        bytes <= LETTERS_BYTES
    });
    fitting.count().max(1)
}

/// Takes out the events that are outside the accepted window, by the database's clock.
fn refuse_outside(piece: &mut Piece, floor: OffsetDateTime, ceiling: OffsetDateTime) {
    let outside = |row: &mut Row| outside_window(row.event.time, floor, ceiling).is_some();
    for row in piece.rows.extract_if(.., outside) {
        let malformed = outside_window(row.event.time, floor, ceiling);
        piece.letters.extend(malformed.map(|malformed| DeadLetter {
            message: row.message,
            malformed,
        }));
    }
}

/// Why an event of this time is not accepted, if it is not.
pub(crate) fn outside_window(
    time: OffsetDateTime,
    floor: OffsetDateTime,
    ceiling: OffsetDateTime,
) -> Option<Malformed> {
    if time < floor {
        let detail = "is older than what can be told from a duplicate";
        Some(Malformed::field(Reason::TooOld, "time", detail))
    } else if time > ceiling {
        let detail = "is more than 10 minutes ahead of the database's clock";
        Some(Malformed::field(Reason::InTheFuture, "time", detail))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Message;

    #[test]
    fn letters_are_bound_by_bytes_and_one_always_goes() {
        let letter = |bytes: usize| DeadLetter {
            message: Box::new(Message {
                body: vec![0; bytes],
                ..Message::default()
            }),
            malformed: Malformed::body(Reason::InvalidJson, ""),
        };
        let mib = 1 << 20;
        let letters: Vec<_> = [mib, mib, mib, mib - (4 * HEADERS), 1].map(letter).into();
        assert_eq!(within_bytes(&letters), 4);
        assert_eq!(within_bytes(&[letter(9 * mib), letter(1)]), 1);
        assert_eq!(within_bytes(&[letter(0), letter(0)]), 2);
    }
}
