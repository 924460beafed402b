//! Through which moment everything published is counted: measured, never assumed.
//!
//! Each ingest-worker keeps a row in `ingest_workers`, rewritten once a second, and the view
//! `counted_through` draws the conclusion (`migrations/common/V1__tables.sql` says why it is sound).

use time::OffsetDateTime;
use tokio_postgres::Row;

use super::{RowError, Statement};
use crate::rollup::Kept;

/// Through when everything is counted, and from when on it can be asked for by the event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Freshness {
    /// Everything published before this is counted; `None` if no worker ever saw the queue empty.
    pub counted_through: Option<OffsetDateTime>,
    /// How long ago that is by the database's clock, in seconds.
    pub age_seconds: Option<f64>,
    /// What of the past is still stored. Events from before `raw_since` are no longer accepted either.
    pub kept: Kept,
    /// When this was measured, by the database's clock.
    pub now: OffsetDateTime,
}

const SQL: &str = "-- freshness
SELECT counted_through, extract(epoch FROM now() - counted_through)::float8 AS age_seconds,
    floor AS raw_since, rollups_since, now() AS now,
    ARRAY(SELECT coalesce(closed_through, 'epoch') FROM ladder ORDER BY place) AS closed_through
FROM counted_through, ingest_window";

/// The statement that measures it. Run it *before* the question's own: it may only claim less than the
/// answer holds.
#[must_use]
pub fn statement() -> Statement {
    Statement {
        name: "freshness",
        sql: SQL.to_owned(),
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
        kept: Kept {
            raw_since: row.try_get("raw_since")?,
            rollups_since: row.try_get("rollups_since")?,
            closed_through: row
                .try_get::<_, Vec<OffsetDateTime>>("closed_through")?
                .try_into()
                .map_err(|rungs: Vec<_>| RowError::Rungs(rungs.len()))?,
        },
        now: row.try_get("now")?,
    })
}
