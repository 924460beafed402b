//! Usage over time: a list of buckets, oldest first, and the totals of the whole range.

use time::OffsetDateTime;
use tokio_postgres::Row;

use super::measured::{Key, MEASURE_COLUMNS, TOTAL_COLUMNS, measured};
use super::{Measures, Param, Question, RowError, Scope, Statement};
use crate::range::{BucketWidth, TimeRange};
use crate::rollup::{Needs, Unanswerable, cover};

/// Usage over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageAnswer {
    /// Of the whole range and filter, whatever the limit cut off.
    pub totals: Measures,
    /// Buckets in which something happened, oldest first.
    pub buckets: Vec<Bucket>,
    /// Whether the limit cut buckets off.
    pub has_more: bool,
}

/// One bucket of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// The part of the bucket that lies inside the question's range.
    pub range: TimeRange,
    /// What happened in it.
    pub measures: Measures,
}

/// The statement that answers `question` in buckets of `width`, at most `limit` of them.
///
/// `raw_since`: raw events from here on are all still stored.
///
/// # Errors
/// If no set of relations answers exactly.
pub fn statement(
    question: &Question,
    width: BucketWidth,
    limit: u32,
    raw_since: OffsetDateTime,
) -> Result<Statement, Unanswerable> {
    let needs = Needs {
        width,
        users: !question.filter.user_ids.is_empty(),
        one_organization: matches!(question.scope, Scope::Organization(_)),
        raw_since,
    };
    let segments = cover(question.range, &needs)?;
    let key = match width {
        BucketWidth::Hour => Key::Hour,
        BucketWidth::Day => Key::Day,
        BucketWidth::All => Key::Whole,
    };
    let mut grouped = measured(question, &segments, key);
    let limit = grouped.bind(Param::Number(i64::from(limit) + 1));
    let name = match question.scope {
        Scope::System => "system_usage",
        Scope::Organization(_) => "org_usage",
    };
    let sql = format!(
        "-- {name}\nWITH grouped AS MATERIALIZED (\n{grouped}\n)\n\
         SELECT true AS is_total, NULL::timestamptz AS key, {TOTAL_COLUMNS} FROM grouped\n\
         UNION ALL\n\
         (SELECT false, key, {MEASURE_COLUMNS} FROM grouped ORDER BY key LIMIT ${limit}::bigint)",
        grouped = grouped.sql,
    );
    Ok(Statement {
        name,
        sql,
        params: grouped.params,
    })
}

/// Reads the rows of [`statement`], asked with the same question, width and limit.
///
/// # Errors
/// If the rows are not of that statement's shape.
pub fn answer(
    rows: &[Row],
    question: &Question,
    width: BucketWidth,
    limit: u32,
) -> Result<UsageAnswer, RowError> {
    let mut totals = None;
    let mut buckets = Vec::with_capacity(rows.len());
    for row in rows {
        let measures = Measures::from_row(row)?;
        if row.try_get("is_total")? {
            totals = Some(measures);
        } else {
            let start: OffsetDateTime = row.try_get("key")?;
            buckets.push(Bucket {
                range: width.bucket(start, &question.range),
                measures,
            });
        }
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = buckets.len() > limit;
    // UNION ALL promises no order.
    buckets.sort_by_key(|bucket| bucket.range.start());
    buckets.truncate(limit);
    Ok(UsageAnswer {
        totals: totals.ok_or(RowError::NoTotals)?,
        buckets,
        has_more,
    })
}
