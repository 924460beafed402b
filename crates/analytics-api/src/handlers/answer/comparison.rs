//! What changed since the range before.

use analytics_core::calendar::Buckets;
use analytics_core::cost::Cost;
use analytics_core::query::Measures;
use serde::Serialize;
use time::OffsetDateTime;
use time::serde::rfc3339;

use super::figures::{Figures, float, rounded};

/// The range before, its totals, and what changed since then.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    #[serde(with = "rfc3339")]
    start_time: OffsetDateTime,
    #[serde(with = "rfc3339")]
    end_time: OffsetDateTime,
    totals: Figures,
    change: Change,
}

impl Comparison {
    /// Whether latencies were asked for.
    pub(super) fn totals(&self) -> &Figures {
        &self.totals
    }

    pub(crate) fn new(buckets: &Buckets, now: &Measures, before: &Measures) -> Self {
        Self {
            start_time: buckets.range().start(),
            end_time: buckets.range().end(),
            totals: before.into(),
            change: Change::new(now, before),
        }
    }
}

/// By how much each figure is more than before; below zero if it is less.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Change {
    requests: i64,
    errors: i64,
    input_tokens: i64,
    output_tokens: i64,
    total_tokens: i64,
    cost: Cost,
    percent: Percent,
}

/// The same in percent of what was before; null where that was nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Percent {
    requests: Option<f64>,
    errors: Option<f64>,
    input_tokens: Option<f64>,
    output_tokens: Option<f64>,
    total_tokens: Option<f64>,
    cost: Option<f64>,
}

impl Change {
    pub(crate) fn new(now: &Measures, before: &Measures) -> Self {
        let percent = |now: i64, before: i64| hundred(float(now) - float(before), float(before));
        let cost = now.cost.less(before.cost);
        Self {
            requests: now.requests - before.requests,
            errors: now.errors - before.errors,
            input_tokens: now.input_tokens - before.input_tokens,
            output_tokens: now.output_tokens - before.output_tokens,
            total_tokens: now.total_tokens() - before.total_tokens(),
            percent: Percent {
                requests: percent(now.requests, before.requests),
                errors: percent(now.errors, before.errors),
                input_tokens: percent(now.input_tokens, before.input_tokens),
                output_tokens: percent(now.output_tokens, before.output_tokens),
                total_tokens: percent(now.total_tokens(), before.total_tokens()),
                cost: hundred(cost.approximate(), before.cost.approximate()),
            },
            cost,
        }
    }
}

fn hundred(change: f64, before: f64) -> Option<f64> {
    (before != 0.0).then(|| rounded(change / before * 100.0, 100.0))
}
