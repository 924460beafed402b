//! What differs.

use analytics_core::cost::Cost;
use analytics_core::reconcile::{REPEATED_IDS, compare};
use analytics_core::rollup::Relation;
use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::operator::OperatorError;
use crate::operator::owner::Owner;

/// One bucket of one organization in which a rollup is not what its source adds up to.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    pub(super) relation: Relation,
    pub(super) bucket: OffsetDateTime,
    /// `None` where the rollup does not tell organizations apart.
    pub(super) org_id: Option<Uuid>,
    /// Rows that the rollup lacks.
    pub(super) missing: i64,
    /// Rows without events.
    pub(super) surplus: i64,
    /// Rows with other measures than their events'.
    pub(super) other: i64,
    pub(super) raw: Sums,
    pub(super) kept: Sums,
}

/// All of a bucket and organization together.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    pub(super) requests: i64,
    pub(super) tokens: i64,
    pub(super) cost: String,
}

/// The differences of a relation in a span of whole UTC days.
pub(super) async fn span(
    owner: &mut Owner,
    relation: Relation,
    start: OffsetDateTime,
    end: OffsetDateTime,
) -> Result<Vec<Difference>, OperatorError> {
    let statement = compare(relation);
    owner
        .run("comparing a rollup with its source", async |client| {
            let rows = client.query(&statement, &[&start, &end]).await?;
            rows.iter().map(|row| read(relation, row)).collect()
        })
        .await
}

fn read(relation: Relation, row: &Row) -> Result<Difference, tokio_postgres::Error> {
    let sums = |side: &str| {
        Ok::<_, tokio_postgres::Error>(Sums {
            requests: row.try_get(&*format!("{side}_requests"))?,
            tokens: row.try_get(&*format!("{side}_tokens"))?,
            // Sums of whole numbers are whole numbers.
            cost: Cost::from_e10(row.try_get(&*format!("{side}_cost_e10"))?)
                .unwrap_or_default()
                .to_string(),
        })
    };
    Ok(Difference {
        relation,
        bucket: row.try_get("bucket")?,
        org_id: row.try_get("org_id")?,
        missing: row.try_get("missing")?,
        surplus: row.try_get("surplus")?,
        other: row.try_get("other")?,
        raw: sums("raw")?,
        kept: sums("kept")?,
    })
}

/// Event ids that stand there with two times or organizations.
#[derive(Debug, Default)]
pub(super) struct RepeatedIds {
    pub(super) count: i64,
    /// Each row of the first ones, those of an id together.
    pub(super) rows: Vec<(Uuid, Uuid, OffsetDateTime)>,
}

pub(super) async fn repeated_ids(
    owner: &mut Owner,
    from: OffsetDateTime,
    to: OffsetDateTime,
    limit: usize,
) -> Result<RepeatedIds, OperatorError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    owner
        .run("looking for repeated event ids", async |client| {
            let rows = client.query(REPEATED_IDS, &[&from, &to, &limit]).await?;
            let mut found = RepeatedIds::default();
            for row in &rows {
                found.count = row.try_get(0)?;
                found
                    .rows
                    .push((row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
            }
            Ok(found)
        })
        .await
}
