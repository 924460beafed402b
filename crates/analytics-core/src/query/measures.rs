//! What is counted, and the columns that it is added up from.

use rust_decimal::Decimal;
use tokio_postgres::Row;

use crate::cost::Cost;
use crate::latency::{self, BUCKETS, COLUMNS, Latency};
use crate::rollup::Relation;

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
    /// If it was asked for.
    pub latency: Option<Latency>,
}

/// How much is asked about latencies: a histogram is thirteen more columns to add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    Counts,
    /// The mean, which all relations know.
    Mean,
    /// The histogram, which the rollup by user does not know.
    Histogram,
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
        Self {
            requests: self.requests - part.requests,
            errors: self.errors - part.errors,
            input_tokens: self.input_tokens - part.input_tokens,
            output_tokens: self.output_tokens - part.output_tokens,
            cost: self.cost.less(part.cost),
            latency: latency.map(|(all, part)| all.less(&part)),
        }
    }

    pub(super) fn from_row(row: &Row, detail: Detail) -> Result<Self, RowError> {
        let units: Decimal = row.try_get("cost_e10")?;
        let latency = match detail {
            Detail::Counts => None,
            Detail::Mean | Detail::Histogram => Some(Latency {
                sum_ms: row.try_get("latency_ms_sum")?,
                count: row.try_get("latency_count")?,
                histogram: match detail {
                    Detail::Histogram => Some(histogram(row)?),
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

/// A column of measures: its name, and how it is added up from a rollup and from raw events.
struct Column {
    name: &'static str,
    of_rollup: String,
    of_events: String,
}

impl Column {
    fn of(&self, relation: Relation) -> &str {
        match relation {
            Relation::Events => &self.of_events,
            Relation::WeeklyByKey if self.name == "errors" => {
                "(sum(request_count) FILTER (WHERE failed))::bigint"
            }
            _ => &self.of_rollup,
        }
    }
}

fn columns(detail: Detail) -> Vec<Column> {
    // A sum of bigint is numeric, which is slow to add up again; of costs alone there may be more than a bigint
    // holds.
    let mut all = vec![
        ("requests", "sum(request_count)::bigint", "count(*)"),
        (
            "errors",
            "(sum(request_count) FILTER (WHERE status <> 'success'))::bigint",
            "count(*) FILTER (WHERE status <> 'success')",
        ),
        (
            "input_tokens",
            "sum(total_input_tokens)::bigint",
            "sum(input_tokens)",
        ),
        (
            "output_tokens",
            "sum(total_output_tokens)::bigint",
            "sum(output_tokens)",
        ),
        (
            "cost_e10",
            "sum(total_cost_e10)",
            "round(sum(cost) * 10000000000)",
        ),
    ];
    if detail != Detail::Counts {
        all.push(("latency_ms_sum", "sum(latency_ms_sum)::bigint", "sum(latency_ms)"));
        all.push(("latency_count", "sum(latency_count)::bigint", "count(latency_ms)"));
    }
    let mut columns: Vec<Column> = all
        .into_iter()
        .map(|(name, of_rollup, of_events)| Column {
            name,
            of_rollup: of_rollup.to_owned(),
            of_events: of_events.to_owned(),
        })
        .collect();
    if detail == Detail::Histogram {
        columns.extend(COLUMNS.iter().enumerate().map(|(bucket, name)| {
            let (least, most) = latency::bounds(bucket);
            let up_to = most.map_or(String::new(), |most| format!(" AND latency_ms <= {most}"));
            Column {
                name,
                of_rollup: format!("sum({name})::bigint"),
                of_events: format!("count(*) FILTER (WHERE latency_ms >= {least}{up_to})"),
            }
        }));
    }
    columns
}

fn listed(detail: Detail, write: impl Fn(&Column) -> String) -> String {
    columns(detail).iter().map(write).collect::<Vec<_>>().join(", ")
}

/// Sums over the rows of a relation.
pub(super) fn sums(relation: Relation, detail: Detail) -> String {
    listed(detail, |column| {
        format!("{} AS {}", column.of(relation), column.name)
    })
}

/// The same, to be taken off.
pub(super) fn minus_sums(relation: Relation, detail: Detail) -> String {
    listed(detail, |column| {
        format!("-({}) AS {}", column.of(relation), column.name)
    })
}

/// Sums over groups of such sums.
pub(super) fn sums_of_sums(detail: Detail) -> String {
    listed(detail, |Column { name, .. }| {
        let cast = cast(name);
        format!("sum({name}){cast} AS {name}")
    })
}

/// The columns of a row of the answer: sums are numeric up to here, and null over nothing.
pub(super) fn plain(detail: Detail) -> String {
    listed(detail, |Column { name, .. }| {
        let cast = cast(name);
        format!("coalesce({name}, 0){cast} AS {name}")
    })
}

/// The same, added up over all rows of a group.
pub(super) fn totals(detail: Detail) -> String {
    listed(detail, |Column { name, .. }| {
        let cast = cast(name);
        format!("coalesce(sum({name}), 0){cast} AS {name}")
    })
}

/// The same, of nothing.
pub(super) fn zeros(detail: Detail) -> String {
    listed(detail, |Column { name, .. }| format!("0{} AS {name}", cast(name)))
}

fn cast(name: &str) -> &'static str {
    match name {
        "cost_e10" => "::numeric",
        _ => "::bigint",
    }
}
