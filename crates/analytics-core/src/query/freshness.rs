//! Through which moment everything published is counted: measured, never assumed.
//!
//! Each ingest-worker keeps a row in `ingest_workers`, rewritten once a second: when it last saw the
//! queue without a ready message, since when it holds its oldest unacknowledged delivery, and when all
//! that was true. Everything published before the last empty sight is either stored or held by a worker;
//! so it is counted through the earliest of that sight, the oldest delivery that is held, and the moment
//! of each worker's own report.
//!
//! A worker that is gone keeps its word for [`REPORT_HOLDS_SECONDS`]: until the broker has noticed, what
//! it held is neither ready nor counted.

use time::{Duration, OffsetDateTime};
use tokio_postgres::Row;

use super::{RowError, Statement};

/// How long a worker's report counts after its last beat: longer than the broker needs to notice a dead
/// consumer (two missed heartbeats of 10 s, and the check in between) and to give back what it held.
pub const REPORT_HOLDS_SECONDS: u32 = 60;

/// How long a message may travel from the queue to the worker's memory: the queue can look empty while
/// it is on its way.
pub const TRANSIT: Duration = Duration::SECOND;

/// Through when everything is counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Freshness {
    /// Everything published before this is counted; `None` if no worker ever saw the queue empty.
    pub counted_through: Option<OffsetDateTime>,
    /// How long ago that is by the database's clock, in seconds.
    pub age_seconds: Option<f64>,
}

/// The statement that measures it. Run it *before* the question's own: it may only claim less than the
/// answer holds.
#[must_use]
pub fn statement() -> Statement {
    let sql = format!(
        "-- freshness\n\
         WITH report AS (\n\
         \x20   SELECT least(max(queue_empty_at),\n\
         \x20                min(least(oldest_unacked_at, beat_at)) FILTER (\n\
         \x20                    WHERE beat_at > now() - interval '{REPORT_HOLDS_SECONDS} seconds')\n\
         \x20          ) - interval '{transit} seconds' AS counted_through\n\
         \x20   FROM ingest_workers\n\
         )\n\
         SELECT counted_through,\n\
         \x20      extract(epoch FROM now() - counted_through)::float8 AS age_seconds\n\
         FROM report",
        transit = TRANSIT.whole_seconds(),
    );
    Statement {
        name: "freshness",
        sql,
        params: Vec::new(),
    }
}

/// Reads the row of [`statement`].
///
/// # Errors
/// If the row is not of that statement's shape.
pub fn answer(row: &Row) -> Result<Freshness, RowError> {
    Ok(Freshness {
        counted_through: row.try_get("counted_through")?,
        age_seconds: row.try_get("age_seconds")?,
    })
}
