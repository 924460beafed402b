//! How fresh an answer is, and whether its numbers can still change.

use analytics_core::query::{Measures, freshness};
use analytics_core::range::TimeRange;
use serde::Serialize;
use time::serde::rfc3339;
use time::{Duration, OffsetDateTime};

/// Through when everything published is in the answer, as it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Freshness {
    #[serde(with = "rfc3339::option")]
    pub(super) counted_through: Option<OffsetDateTime>,
    pub(super) age_seconds: Option<f64>,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Live,
    Delayed,
    NoData,
}

impl State {
    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Delayed => "delayed",
            Self::NoData => "no_data",
        }
    }
}

impl Freshness {
    pub(crate) fn new(measured: &freshness::Freshness, totals: &Measures, delayed_seconds: f64) -> Self {
        let state = match measured.age_seconds {
            _ if totals.requests == 0 => State::NoData,
            Some(age) if age <= delayed_seconds => State::Live,
            // An age that nobody measured is not a fresh one.
            _ => State::Delayed,
        };
        Self {
            counted_through: measured.counted_through,
            age_seconds: measured.age_seconds,
            state,
        }
    }
}

/// Whether a bucket's numbers can still change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BucketState {
    /// It has not ended.
    Open,
    /// It has ended; late events may still come.
    Closed,
    /// It ended so long ago that an event of it would be refused.
    Final,
}

/// What was accepted just before it became too old may still be on its way: in a transaction, or to an aggregate
/// that is not refreshed yet.
const ON_ITS_WAY: Duration = Duration::HOUR;

impl BucketState {
    pub(crate) fn of(bucket: &TimeRange, measured: &freshness::Freshness) -> Self {
        if bucket.end() > measured.now {
            Self::Open
        } else if bucket.end() + ON_ITS_WAY > measured.kept.raw_since {
            Self::Closed
        } else {
            Self::Final
        }
    }
}
