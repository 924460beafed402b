//! Where a running month is heading, if it goes on as it went so far.

use analytics_core::calendar::{Buckets, is_running_month};
use analytics_core::cost::Cost;
use analytics_core::query::Measures;
use serde::Serialize;
use time::serde::rfc3339;
use time::{Duration, OffsetDateTime};

use super::figures::rounded;

/// Less of a month than this says nothing about its end.
const LEAST_ELAPSED: Duration = Duration::DAY;

/// A projection: no count, and marked as none.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Projection {
    kind: &'static str,
    method: &'static str,
    /// The counts so far are those of the month up to here.
    #[serde(with = "rfc3339")]
    as_of: OffsetDateTime,
    /// The month's end.
    #[serde(with = "rfc3339")]
    end_time: OffsetDateTime,
    elapsed: f64,
    requests: i64,
    total_tokens: i64,
    cost: Cost,
}

impl Projection {
    /// `None` unless the range is the local month that is running, and more than a day of it is over.
    pub(crate) fn new(
        buckets: &Buckets,
        totals: &Measures,
        counted_through: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Option<Self> {
        let range = buckets.range();
        if !is_running_month(&range, now, buckets.zone()) {
            return None;
        }
        // What is not counted yet has not elapsed.
        let as_of = counted_through.unwrap_or(now).min(now);
        let elapsed = as_of - range.start();
        if elapsed < LEAST_ELAPSED {
            return None;
        }
        let (whole, part) = (
            i128::from(range.length().whole_seconds()),
            i128::from(elapsed.whole_seconds()),
        );
        let projected = |count: i64| i64::try_from(i128::from(count) * whole / part).unwrap_or(i64::MAX);
        Some(Self {
            kind: "projection",
            method: "linear",
            as_of,
            end_time: range.end(),
            elapsed: rounded(elapsed / range.length(), 1e4),
            requests: projected(totals.requests),
            total_tokens: projected(totals.total_tokens()),
            cost: totals.cost.scaled_to_cents(whole, part),
        })
    }
}
