//! The shape of answers on the wire.

pub(crate) mod comparison;
mod csv;
pub(crate) mod figures;
pub(crate) mod freshness;
pub(crate) mod projection;
mod response;

use analytics_core::calendar::Buckets;
use serde::Serialize;
use time::OffsetDateTime;
use time::serde::rfc3339;

use comparison::Comparison;
use figures::{Figures, Line};
use freshness::{BucketState, Freshness};
use projection::Projection;
pub(crate) use response::{knows, respond, respond_page};

/// What `cost` is in.
pub(crate) const CURRENCY: &str = "USD";

/// An answer: totals, and the parts that add up to them.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    pub(crate) object: &'static str,
    /// What its rows are by.
    #[serde(skip)]
    pub(crate) group_by: Vec<&'static str>,
    pub(crate) range: Range,
    pub(crate) currency: &'static str,
    pub(crate) totals: Figures,
    /// If it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comparison: Option<Comparison>,
    /// Of usage over time: where the running month is heading, null for any other range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) projection: Option<Option<Projection>>,
    pub(crate) data: Data,
    pub(crate) has_more: bool,
    pub(crate) next_page: Option<String>,
    pub(crate) freshness: Freshness,
}

/// Buckets of time, or the lines of a list.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Data {
    Buckets(Vec<Bucket>),
    Lines(Vec<Line>),
}

/// What the answer is about.
#[derive(Debug, Serialize)]
pub(crate) struct Range {
    #[serde(with = "rfc3339")]
    start_time: OffsetDateTime,
    #[serde(with = "rfc3339")]
    end_time: OffsetDateTime,
    bucket_width: &'static str,
    time_zone: String,
}

impl Range {
    pub(crate) fn of(buckets: &Buckets) -> Self {
        Self {
            start_time: buckets.range().start(),
            end_time: buckets.range().end(),
            bucket_width: buckets.width().name(),
            time_zone: buckets.zone().name().to_owned(),
        }
    }
}

/// A bucket of time, with one result for each group.
#[derive(Debug, Serialize)]
pub(crate) struct Bucket {
    #[serde(with = "rfc3339")]
    pub(crate) start_time: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub(crate) end_time: OffsetDateTime,
    pub(crate) state: BucketState,
    pub(crate) results: Vec<Line>,
}

#[cfg(test)]
mod tests;
