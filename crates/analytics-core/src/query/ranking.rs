//! Who or what used most: users, models or organizations, most tokens first, and the totals of all.

use std::cmp::Reverse;

use time::OffsetDateTime;
use tokio_postgres::Row;

use super::measured::{Key, MEASURE_COLUMNS, TOTAL_COLUMNS, measured};
use super::{Dimension, Measures, Param, Question, RowError, Scope, Statement};
use crate::range::BucketWidth;
use crate::rollup::{Needs, Unanswerable, cover};

/// A ranking by tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankingAnswer {
    /// Of the whole range and filter, whatever the limit cut off.
    pub totals: Measures,
    /// The user's or organization's id or the model's name, and its measures; most tokens first, equal
    /// ones by id.
    pub rows: Vec<(String, Measures)>,
    /// Whether the limit cut rows off.
    pub has_more: bool,
}

/// The statement that ranks by `dimension`, at most `limit` rows.
///
/// `raw_since`: raw events from here on are all still stored.
///
/// # Errors
/// If no set of relations answers exactly.
pub fn statement(
    question: &Question,
    dimension: Dimension,
    limit: u32,
    raw_since: OffsetDateTime,
) -> Result<Statement, Unanswerable> {
    let needs = Needs {
        width: BucketWidth::All,
        users: dimension == Dimension::User || !question.filter.user_ids.is_empty(),
        one_organization: matches!(question.scope, Scope::Organization(_)),
        raw_since,
    };
    let segments = cover(question.range, &needs)?;
    let column = match dimension {
        Dimension::User => "user_id",
        Dimension::Model => "model_name",
        Dimension::Organization => "org_id",
    };
    let mut grouped = measured(question, &segments, Key::Column(column));
    let limit = grouped.bind(Param::Number(i64::from(limit) + 1));
    let name = match (question.scope, dimension) {
        (Scope::System, Dimension::User) => "system_users",
        (Scope::System, Dimension::Model) => "system_models",
        (Scope::System, Dimension::Organization) => "system_orgs",
        (Scope::Organization(_), Dimension::User) => "org_users",
        (Scope::Organization(_), Dimension::Model) => "org_models",
        (Scope::Organization(_), Dimension::Organization) => "org_orgs",
    };
    let sql = format!(
        "-- {name}\nWITH grouped AS MATERIALIZED (\n{grouped}\n)\n\
         SELECT true AS is_total, NULL::text AS key, {TOTAL_COLUMNS} FROM grouped\n\
         UNION ALL\n\
         (SELECT false, key::text, {MEASURE_COLUMNS} FROM grouped \
         ORDER BY grouped.input_tokens + grouped.output_tokens DESC, grouped.key LIMIT ${limit}::bigint)",
        grouped = grouped.sql,
    );
    Ok(Statement {
        name,
        sql,
        params: grouped.params,
    })
}

/// Reads the rows of [`statement`], asked with the same limit.
///
/// # Errors
/// If the rows are not of that statement's shape.
pub fn answer(rows: &[Row], limit: u32) -> Result<RankingAnswer, RowError> {
    let mut totals = None;
    let mut ranked = Vec::with_capacity(rows.len());
    for row in rows {
        let measures = Measures::from_row(row)?;
        match row.try_get::<_, Option<String>>("key")? {
            None => totals = Some(measures),
            Some(key) => ranked.push((key, measures)),
        }
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = ranked.len() > limit;
    // UNION ALL promises no order; a stable sort keeps the database's order of equal ones where it is
    // the order of the rows, and the key settles it where it is not.
    ranked.sort_by(|one, other| {
        (Reverse(one.1.total_tokens), &one.0).cmp(&(Reverse(other.1.total_tokens), &other.0))
    });
    ranked.truncate(limit);
    Ok(RankingAnswer {
        totals: totals.ok_or(RowError::NoTotals)?,
        rows: ranked,
        has_more,
    })
}
