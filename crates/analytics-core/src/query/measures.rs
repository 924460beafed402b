//! What is counted, and the columns that it is added up from.

use rust_decimal::Decimal;
use tokio_postgres::Row;

use crate::cost::Cost;
use crate::latency::{self, BUCKETS, COLUMNS, Latency};
use crate::rollup::{Relation, Sign};

/// What is counted, of one bucket, one row or the whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measures {
    /// Requests.
    pub requests: i64,
    /// Requests whose status is not `success`.
    pub errors: i64,
    /// Tokens of the prompts.
    pub input_tokens: i64,
    /// Tokens of the answers.
    pub output_tokens: i64,
    /// US dollars, exact.
    pub cost: Cost,
    /// If they were asked for.
    pub tokens: Option<TokenDetails>,
    /// If it was asked for.
    pub latency: Option<Latency>,
}

/// Parts of the tokens, as far as producers tell them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenDetails {
    /// Of the input tokens, those that were read from a cache.
    pub cached_input: i64,
    /// Of the output tokens, those that were spent on reasoning.
    pub reasoning: i64,
}

/// Which measures are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detail {
    /// Whether parts of the tokens are.
    pub tokens: bool,
    /// How much beside.
    pub level: Level,
}

/// How much is asked about latencies: a histogram is thirteen more columns to add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing, nor about costs and errors: what groups are ranked by.
    Rank,
    /// Nothing.
    Counts,
    /// The mean, which all relations know.
    Mean,
    /// The histogram, which the rollups by user do not know.
    Histogram,
}

impl Detail {
    /// What groups are ranked by.
    pub(super) const RANK: Self = Self {
        tokens: false,
        level: Level::Rank,
    };
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
    /// A row of a bucket that the question does not have.
    #[error("a row is of no bucket")]
    NoBucket,
    /// Another ladder than this build reads.
    #[error("the ladder has {0} rungs")]
    Rungs(usize),
}

impl Measures {
    /// Tokens of prompts and answers together.
    #[must_use]
    pub fn total_tokens(&self) -> i64 {
        self.input_tokens + self.output_tokens
    }

    /// Nothing, with as much about latencies.
    #[must_use]
    pub fn none(&self) -> Self {
        self.less(self)
    }

    /// These without `part`, which is one of theirs.
    pub(super) fn less(&self, part: &Self) -> Self {
        let latency = self.latency.zip(part.latency);
        let tokens = self.tokens.zip(part.tokens);
        Self {
            requests: self.requests - part.requests,
            errors: self.errors - part.errors,
            input_tokens: self.input_tokens - part.input_tokens,
            output_tokens: self.output_tokens - part.output_tokens,
            cost: self.cost.less(part.cost),
            tokens: tokens.map(|(all, part)| TokenDetails {
                cached_input: all.cached_input - part.cached_input,
                reasoning: all.reasoning - part.reasoning,
            }),
            latency: latency.map(|(all, part)| all.less(&part)),
        }
    }

    pub(super) fn from_row(row: &Row, detail: Detail) -> Result<Self, RowError> {
        let units: Decimal = row.try_get("cost_e10")?;
        let tokens = match detail.tokens {
            false => None,
            true => Some(TokenDetails {
                cached_input: row.try_get("cached_input_tokens")?,
                reasoning: row.try_get("reasoning_tokens")?,
            }),
        };
        let latency = match detail.level {
            Level::Rank | Level::Counts => None,
            Level::Mean | Level::Histogram => Some(Latency {
                sum_ms: row.try_get("latency_ms_sum")?,
                count: row.try_get("latency_count")?,
                histogram: match detail.level {
                    Level::Histogram => Some(histogram(row)?),
                    _ => None,
                },
            }),
        };
        Ok(Self {
            requests: row.try_get("requests")?,
            errors: row.try_get("errors")?,
            input_tokens: row.try_get("input_tokens")?,
            output_tokens: row.try_get("output_tokens")?,
            cost: Cost::from_e10(units).ok_or(RowError::Cost(units))?,
            tokens,
            latency,
        })
    }
}

fn histogram(row: &Row) -> Result<[i64; BUCKETS], RowError> {
    let mut counts = [0; BUCKETS];
    for (count, column) in counts.iter_mut().zip(COLUMNS) {
        *count = row.try_get(column)?;
    }
    Ok(counts)
}

/// What a row adds to a measure.
enum Source {
    /// What is in this column, null counting as nothing.
    Column(&'static str),
    /// One.
    One,
    /// One, if this holds.
    OneIf(String),
    /// The cost of an event, in units of 1e-10 USD.
    Cost,
    /// The cost of a rollup's row, in these.
    Costs,
}

impl Source {
    fn of_each_row(&self) -> String {
        match self {
            Self::Column(name) => format!("{name}::bigint"),
            Self::One => "1::bigint".to_owned(),
            Self::OneIf(condition) => format!("CASE WHEN {condition} THEN 1::bigint ELSE 0 END"),
            // As the triggers do.
            Self::Cost => "(cost * 10000000000)::bigint".to_owned(),
            Self::Costs => "total_cost_e10".to_owned(),
        }
    }

    fn sum(&self) -> String {
        match self {
            Self::Column(name) => format!("sum({name})::bigint"),
            Self::One => "count(*)".to_owned(),
            Self::OneIf(condition) => format!("count(*) FILTER (WHERE {condition})"),
            // Of costs alone there may be more than a bigint holds.
            Self::Cost => "round(sum(cost) * 10000000000)".to_owned(),
            Self::Costs => "sum(total_cost_e10)".to_owned(),
        }
    }
}

/// The measures, and where they come from.
fn columns(relation: Relation, detail: Detail) -> Vec<(&'static str, Source)> {
    let of = |rollup: &'static str, events: Source| match relation {
        Relation::Events => events,
        _ => Source::Column(rollup),
    };
    let column = Source::Column;
    let one_if = |condition: &str| Source::OneIf(condition.to_owned());
    let mut columns = vec![
        ("requests", of("request_count", Source::One)),
        ("input_tokens", of("total_input_tokens", column("input_tokens"))),
        (
            "output_tokens",
            of("total_output_tokens", column("output_tokens")),
        ),
    ];
    if detail.level == Level::Rank {
        return columns;
    }
    let cost = match relation {
        Relation::Events => Source::Cost,
        _ => Source::Costs,
    };
    columns.extend([
        ("errors", of("error_count", one_if("status <> 'success'"))),
        ("cost_e10", cost),
    ]);
    if detail.tokens {
        columns.extend([
            (
                "cached_input_tokens",
                of("total_cached_input_tokens", column("cached_input_tokens")),
            ),
            (
                "reasoning_tokens",
                of("total_reasoning_tokens", column("reasoning_tokens")),
            ),
        ]);
    }
    if detail.level != Level::Counts {
        columns.extend([
            ("latency_ms_sum", of("latency_ms_sum", column("latency_ms"))),
            (
                "latency_count",
                of("latency_count", one_if("latency_ms IS NOT NULL")),
            ),
        ]);
    }
    if detail.level == Level::Histogram {
        columns.extend(COLUMNS.iter().enumerate().map(|(bucket, name)| {
            let (least, most) = latency::bounds(bucket);
            let up_to = most.map_or(String::new(), |most| format!(" AND latency_ms <= {most}"));
            let within = one_if(&format!("latency_ms >= {least}{up_to}"));
            (*name, of(name, within))
        }));
    }
    columns
}

fn listed(detail: Detail, write: impl Fn(&str) -> String) -> String {
    let columns = columns(Relation::Events, detail);
    columns
        .iter()
        .map(|(name, _)| write(name))
        .collect::<Vec<_>>()
        .join(", ")
}

fn of_relation(relation: Relation, sign: Sign, detail: Detail, write: impl Fn(&Source) -> String) -> String {
    let columns = columns(relation, detail);
    let written = columns.iter().map(|(name, source)| {
        let value = write(source);
        match sign {
            Sign::Plus => format!("{value} AS {name}"),
            Sign::Minus => format!("-({value}) AS {name}"),
        }
    });
    written.collect::<Vec<_>>().join(", ")
}

/// What each row of a relation adds, or is taken off: all bigint.
pub(super) fn values(relation: Relation, sign: Sign, detail: Detail) -> String {
    of_relation(relation, sign, detail, Source::of_each_row)
}

/// The sums of that: bigint, which is fast to add up again, but for costs.
pub(super) fn sums(relation: Relation, sign: Sign, detail: Detail) -> String {
    of_relation(relation, sign, detail, Source::sum)
}

/// Sums over groups of such values or sums.
pub(super) fn sums_of_sums(detail: Detail) -> String {
    listed(detail, |name| {
        let cast = cast(name);
        format!("sum({name}){cast} AS {name}")
    })
}

/// The same of each such row, with its sign turned.
pub(super) fn negated(detail: Detail) -> String {
    listed(detail, |name| format!("-{name} AS {name}"))
}

/// The names of the measures.
pub(super) fn names(detail: Detail) -> String {
    listed(detail, str::to_owned)
}

/// The columns of a row of the answer: sums are numeric up to here, and null over nothing.
pub(super) fn plain(detail: Detail) -> String {
    listed(detail, |name| {
        let cast = cast(name);
        format!("coalesce({name}, 0){cast} AS {name}")
    })
}

/// The same, added up over all rows of a group.
pub(super) fn totals(detail: Detail) -> String {
    listed(detail, |name| {
        let cast = cast(name);
        format!("coalesce(sum({name}), 0){cast} AS {name}")
    })
}

/// The same, of nothing.
pub(super) fn zeros(detail: Detail) -> String {
    listed(detail, |name| format!("0{} AS {name}", cast(name)))
}

fn cast(name: &str) -> &'static str {
    match name {
        "cost_e10" => "::numeric",
        _ => "::bigint",
    }
}
