//! The questions the service answers, each with its SQL, its parameters and its rows.
//!
//! No value ever becomes part of SQL text: names of relations and columns come from closed sets, all
//! else is a bound parameter. Every statement begins with its name in a comment, so that
//! `pg_stat_statements` and slow logs speak the code's language.

pub mod freshness;
mod measured;
pub mod ranking;
pub mod usage;

use rust_decimal::Decimal;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::cost::Cost;
use crate::range::TimeRange;

/// Whose usage a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All organizations together.
    System,
    /// One organization. A question about an organization cannot be written without naming it.
    Organization(Uuid),
}

/// Which requests count; an empty list lets all through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Any of these models.
    pub models: Vec<String>,
    /// Any of these users.
    pub user_ids: Vec<Uuid>,
}

/// What is asked, whatever shape the answer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Whose usage.
    pub scope: Scope,
    /// When.
    pub range: TimeRange,
    /// Which requests.
    pub filter: Filter,
}

/// What the rows of a ranking are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// A user.
    User,
    /// A model.
    Model,
    /// An organization.
    Organization,
}

/// What is counted, of one bucket, one row or the whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Measures {
    /// Requests.
    pub requests: i64,
    /// Requests whose status is not `success`.
    pub errors: i64,
    /// Tokens of the prompts.
    pub input_tokens: i64,
    /// Tokens of the answers.
    pub output_tokens: i64,
    /// Both together.
    pub total_tokens: i64,
    /// US dollars, exact.
    pub cost: Cost,
}

/// A statement ready to run: its name, its text and its parameters.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The name that the text begins with.
    pub name: &'static str,
    /// SQL; equal for all questions of one shape, so that preparing it pays.
    pub sql: String,
    /// Values of `$1`, `$2`, ….
    pub params: Vec<Param>,
}

impl Statement {
    /// The parameters as tokio-postgres takes them.
    #[must_use]
    pub fn param_refs(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.params.iter().map(Param::as_sql).collect()
    }
}

/// A bound value.
#[derive(Debug, Clone, PartialEq)]
pub enum Param {
    /// `timestamptz`.
    Time(OffsetDateTime),
    /// `uuid`.
    Id(Uuid),
    /// `uuid[]`.
    Ids(Vec<Uuid>),
    /// `text[]`.
    Texts(Vec<String>),
    /// `bigint`.
    Number(i64),
}

impl Param {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Time(value) => value,
            Self::Id(value) => value,
            Self::Ids(value) => value,
            Self::Texts(value) => value,
            Self::Number(value) => value,
        }
    }
}

/// A row that does not have the shape its statement promises: a fault of ours, or a foreign schema.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// A column is missing or of another type.
    #[error("unexpected row: {0}")]
    Column(#[from] tokio_postgres::Error),
    /// A sum of costs that is no whole number of 1e-10 USD, or has more than 28 digits.
    #[error("a sum of costs is out of range: {0}")]
    Cost(Decimal),
    /// An answer without its line of totals.
    #[error("the answer has no totals")]
    NoTotals,
}

impl Measures {
    fn from_row(row: &Row) -> Result<Self, RowError> {
        let units: Decimal = row.try_get("cost_e10")?;
        let (input_tokens, output_tokens): (i64, i64) =
            (row.try_get("input_tokens")?, row.try_get("output_tokens")?);
        Ok(Self {
            requests: row.try_get("requests")?,
            errors: row.try_get("errors")?,
            input_tokens,
            output_tokens,
            total_tokens: input_tokens + output_tokens,
            cost: Cost::from_e10(units).ok_or(RowError::Cost(units))?,
        })
    }
}
