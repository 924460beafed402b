//! The questions the service answers: their SQL, their parameters and their rows.
//!
//! Every question is of one kind: sums of the measures, in buckets of time, by a few columns ([`usage`]). A
//! list of users is one bucket by user; a chart is many buckets by nothing.
//!
//! No value ever becomes part of SQL text: names of relations and columns come from closed sets, all
//! else is a bound parameter. Every statement begins with its name in a comment, so that
//! `pg_stat_statements` and slow logs speak the code's language.

pub mod freshness;
mod grouped;
mod keys;
mod measures;
pub mod usage;

use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::range::TimeRange;
pub use measures::{Detail, Level, Measures, RowError, TokenDetails};

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
    /// Any of these keys.
    pub api_key_ids: Vec<Uuid>,
    /// Any of these statuses.
    pub statuses: Vec<String>,
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

/// What usage can be told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// A user.
    User,
    /// An API key.
    ApiKey,
    /// A model.
    Model,
    /// A status.
    Status,
    /// An organization.
    Organization,
}

impl Dimension {
    /// How it is spelled, in requests and answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user_id",
            Self::ApiKey => "api_key_id",
            Self::Model => "model",
            Self::Status => "status",
            Self::Organization => "org_id",
        }
    }

    /// Whether it is an id, and not a word.
    #[must_use]
    pub fn is_id(self) -> bool {
        matches!(self, Self::User | Self::ApiKey | Self::Organization)
    }

    fn column(self) -> &'static str {
        match self {
            Self::Model => "model_name",
            other => other.name(),
        }
    }

    /// Whether only the rollups by user and by key, or raw events, can tell it apart.
    fn is_of_users(self) -> bool {
        matches!(self, Self::User | Self::ApiKey)
    }

    /// Whether the rollup by key cannot tell it apart.
    fn is_of_models(self) -> bool {
        matches!(self, Self::Model | Self::Status)
    }
}

/// A statement ready to run: its name, its text and its parameters.
///
/// Only this module makes one, and one that reads usage only of a [`Question`], which has to say whose:
///
/// ```
/// use analytics_core::query::Statement;
/// use analytics_core::query::usage::Ask;
/// use analytics_core::rollup::Kept;
///
/// fn of_somebody(ask: &Ask) -> Option<Statement> {
///     ask.plan(Kept::EVERYTHING).ok().map(|plan| plan.first())
/// }
/// ```
///
/// It can't be written without that,
///
/// ```compile_fail,E0451
/// use analytics_core::query::Statement;
///
/// fn of_nobody() -> Statement {
///     Statement { name: "usage", sql: "SELECT sum(cost) FROM usage_events".to_owned(), params: Vec::new() }
/// }
/// ```
///
/// made another one,
///
/// ```compile_fail,E0616
/// use analytics_core::query::Statement;
///
/// fn of_another(statement: &mut Statement) {
///     statement.params.clear();
/// }
/// ```
///
/// or be asked for of nobody:
///
/// ```compile_fail,E0063
/// use analytics_core::query::{Filter, Question};
/// use analytics_core::range::TimeRange;
///
/// fn of_nobody(range: TimeRange) -> Question {
///     Question { range, filter: Filter::default() }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    name: &'static str,
    sql: String,
    params: Vec<Param>,
}

impl Statement {
    /// The name that the text begins with.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// SQL; equal for all questions of one shape.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Values of `$1`, `$2`, ….
    #[must_use]
    pub fn params(&self) -> &[Param] {
        &self.params
    }

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
    /// `timestamptz[]`.
    Times(Vec<OffsetDateTime>),
    /// `uuid`.
    Id(Uuid),
    /// `uuid[]`.
    Ids(Vec<Uuid>),
    /// `text`.
    Text(String),
    /// `text[]`.
    Texts(Vec<String>),
    /// `bigint`.
    Number(i64),
}

impl Param {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Time(value) => value,
            Self::Times(value) => value,
            Self::Id(value) => value,
            Self::Ids(value) => value,
            Self::Text(value) => value,
            Self::Texts(value) => value,
            Self::Number(value) => value,
        }
    }
}
