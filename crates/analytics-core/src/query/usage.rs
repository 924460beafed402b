//! Usage in buckets of time, by any mix of columns: rows, and the totals of all, from one snapshot.

mod leaders;
mod plan;

use std::cmp::Reverse;
use std::collections::HashMap;

use time::OffsetDateTime;
use tokio_postgres::Row as SqlRow;
use uuid::Uuid;

pub use self::plan::{Plan, Refused};
use super::measures::{Detail, Level, Measures, RowError};
use super::{Dimension, Question, Scope};
use crate::calendar::Buckets;
use crate::rollup::{Kept, Needs};

/// The most rows of an answer.
pub const MOST_ROWS: usize = 10_000;

/// A question and the shape that its answer shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What the statement is called.
    pub name: &'static str,
    /// What is asked.
    pub question: Question,
    /// How its range is cut.
    pub buckets: Buckets,
    /// What the rows of a bucket are told apart by.
    pub group_by: Vec<Dimension>,
    /// Which rows.
    pub rows: Rows,
    /// Whether latencies are asked for.
    pub latency: bool,
    /// Whether parts of the tokens are.
    pub token_details: bool,
    /// The range to compare with, as one bucket.
    pub before: Option<Buckets>,
    /// When it is asked, which makes no difference to the answer: see [`Needs::now`].
    pub now: OffsetDateTime,
}

/// Which rows an answer has. Totals are of all, whatever is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// Buckets in order of time.
    Buckets {
        /// The place of the first one.
        from: usize,
        /// How many there are at most.
        limit: usize,
        /// Whether those without usage count.
        filled: bool,
        /// Only the groups with the most tokens in the whole range, and the rest as one.
        top: Option<u32>,
    },
    /// The groups with the most tokens, and the rest as one.
    Ranked {
        /// How many.
        top: u32,
    },
    /// Groups in order of their one key.
    ById {
        /// The last one that is known already.
        after: Option<Key>,
        /// How many there are at most.
        limit: usize,
    },
}

/// The key of a group: an id or a word.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// An id.
    Id(Uuid),
    /// A word.
    Word(String),
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Of the whole range and filter.
    pub totals: Measures,
    /// Of the range that it is compared with.
    pub before: Option<Measures>,
    /// Bucket by bucket; in a bucket, most tokens first, or by key.
    pub rows: Vec<Row>,
    /// Where the next page begins, if there is one.
    pub next: Option<Next>,
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// With this bucket.
    Bucket(usize),
    /// After this key.
    After(String),
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The place of its bucket.
    pub bucket: usize,
    /// Its values of the dimensions, in their order; none of them where it stands for the rest.
    pub keys: Option<Vec<String>>,
    /// What is counted.
    pub measures: Measures,
    /// What was counted in the range that it is compared with.
    pub before: Option<Measures>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// More than [`MOST_ROWS`].
    #[error("the answer has more than {MOST_ROWS} rows")]
    TooManyRows,
    /// See there.
    #[error(transparent)]
    Row(#[from] RowError),
}

impl Ask {
    /// Whether a rollup by user or by key has to answer.
    #[must_use]
    pub fn is_by_user(&self) -> bool {
        let filter = &self.question.filter;
        !filter.user_ids.is_empty()
            || !filter.api_key_ids.is_empty()
            || self.group_by.iter().any(|dimension| dimension.is_of_users())
    }

    /// Whether a relation that does not tell models and statuses apart cannot answer.
    fn is_by_model(&self) -> bool {
        let filter = &self.question.filter;
        !filter.models.is_empty()
            || !filter.statuses.is_empty()
            || self.group_by.iter().any(|dimension| dimension.is_of_models())
    }

    /// How much is asked about latencies.
    #[must_use]
    pub fn detail(&self) -> Detail {
        Detail {
            tokens: self.token_details,
            level: match (self.latency, self.is_by_user()) {
                (false, _) => Level::Counts,
                (true, true) => Level::Mean,
                (true, false) => Level::Histogram,
            },
        }
    }

    fn needs(&self, kept: Kept) -> Needs {
        let one_organization = matches!(self.question.scope, Scope::Organization(_));
        Needs {
            users: self.is_by_user(),
            models: self.is_by_model() || self.detail().level == Level::Histogram,
            organizations: self.group_by.contains(&Dimension::Organization),
            one_organization,
            now: self.now,
            kept,
        }
    }

    /// Reads the rows of the statement that a [`Plan`] ends with.
    ///
    /// # Errors
    /// If there are more than an answer may have, or they are not of that statement's shape.
    pub fn answer(&self, rows: &[SqlRow]) -> Result<Answer, AnswerError> {
        let detail = self.detail();
        let (mut all, mut before, mut next) = (None, None, None);
        let mut shown = Vec::with_capacity(rows.len());
        let mut rows_before = HashMap::new();
        for row in rows {
            let measures = Measures::from_row(row, detail)?;
            match row.try_get("part").map_err(RowError::from)? {
                "total" => all = Some(measures),
                "before" => before = Some(measures),
                "next" => next = Some(Next::Bucket(self.place(row)?)),
                "row before" => {
                    rows_before.insert(self.keys(row)?, measures);
                }
                _ => shown.push(Row {
                    bucket: self.place(row)?,
                    keys: self.keys(row)?,
                    measures,
                    before: None,
                }),
            }
        }
        if shown.len() > MOST_ROWS {
            return Err(AnswerError::TooManyRows);
        }
        if let Some(all) = before.filter(|_| !matches!(self.rows, Rows::Buckets { .. })) {
            compare_rows(&mut shown, &rows_before, all);
        }
        let by_id = matches!(self.rows, Rows::ById { .. });
        // UNION ALL promises no order.
        shown.sort_by(|one, other| {
            let rank = |row: &Row| {
                let tokens = if by_id { 0 } else { row.measures.total_tokens() };
                (row.bucket, row.keys.is_none(), Reverse(tokens))
            };
            rank(one)
                .cmp(&rank(other))
                .then_with(|| one.keys.cmp(&other.keys))
        });
        match self.rows {
            Rows::ById { limit, .. } if shown.len() > limit => {
                shown.truncate(limit);
                let last = shown.last().and_then(|row| row.keys.as_ref()?.first().cloned());
                next = last.map(Next::After);
            }
            Rows::Buckets {
                from,
                limit,
                filled: true,
                ..
            } => {
                let end = from.saturating_add(limit);
                next = (end < self.buckets.starts().len()).then_some(Next::Bucket(end));
            }
            _ => {}
        }
        Ok(Answer {
            totals: all.ok_or(RowError::NoTotals)?,
            before,
            rows: shown,
            next,
        })
    }

    fn place(&self, row: &SqlRow) -> Result<usize, RowError> {
        let start: OffsetDateTime = row.try_get("bucket")?;
        let start = start.max(self.buckets.range().start());
        self.buckets.place(start).ok_or(RowError::NoBucket)
    }

    /// `None` for the row that stands for the rest.
    fn keys(&self, row: &SqlRow) -> Result<Option<Vec<String>>, RowError> {
        let mut keys = Vec::with_capacity(self.group_by.len());
        for place in 0..self.group_by.len() {
            match row.try_get::<_, Option<String>>(&*format!("k{place}"))? {
                Some(key) => keys.push(key),
                None => return Ok(None),
            }
        }
        Ok(Some(keys))
    }
}

fn compare_rows(rows: &mut [Row], before: &HashMap<Option<Vec<String>>, Measures>, all: Measures) {
    let mut rest = all;
    for measures in before.values() {
        rest = rest.less(measures);
    }
    for row in rows {
        row.before = Some(match &row.keys {
            None => rest,
            keys => before.get(keys).copied().unwrap_or_else(|| all.none()),
        });
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
