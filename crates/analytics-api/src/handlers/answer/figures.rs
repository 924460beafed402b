//! What is counted, as it is written: of one bucket, one line or the whole answer.

use analytics_core::cost::Cost;
use analytics_core::latency::{self, Percentile};
use analytics_core::query::{Dimension, Measures, usage};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::comparison::Change;

/// The figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    requests: i64,
    errors: i64,
    /// Null of no requests.
    error_rate: Option<f64>,
    input_tokens: i64,
    output_tokens: i64,
    total_tokens: i64,
    cost: Cost,
    /// If they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_details: Option<TokenDetails>,
    /// If it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Latency>,
}

/// Parts of the tokens, as far as producers tell them.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct TokenDetails {
    cached_input_tokens: i64,
    reasoning_tokens: i64,
}

impl Figures {
    /// Whether parts of the tokens were asked for.
    pub(super) fn has_token_details(&self) -> bool {
        self.token_details.is_some()
    }

    /// Whether latencies were asked for.
    pub(super) fn has_latency(&self) -> bool {
        self.latency.is_some()
    }
}

impl From<&Measures> for Figures {
    fn from(measures: &Measures) -> Self {
        Self {
            requests: measures.requests,
            errors: measures.errors,
            error_rate: rate(measures.errors, measures.requests),
            input_tokens: measures.input_tokens,
            output_tokens: measures.output_tokens,
            total_tokens: measures.total_tokens(),
            cost: measures.cost,
            token_details: measures.tokens.map(|tokens| TokenDetails {
                cached_input_tokens: tokens.cached_input,
                reasoning_tokens: tokens.reasoning,
            }),
            latency: measures.latency.as_ref().map(Latency::from),
        }
    }
}

/// Latencies: the mean of those that were measured, and percentiles where there is a histogram.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Latency {
    measured_requests: i64,
    mean_ms: Option<f64>,
    p50: Option<Bounded>,
    p95: Option<Bounded>,
    p99: Option<Bounded>,
}

impl From<&latency::Latency> for Latency {
    fn from(latency: &latency::Latency) -> Self {
        let percentile = |percent| latency.percentile(percent).map(Bounded::from);
        Self {
            measured_requests: latency.count,
            mean_ms: latency.mean_ms().map(|mean| rounded(mean, 1_000.0)),
            p50: percentile(50),
            p95: percentile(95),
            p99: percentile(99),
        }
    }
}

/// An estimate, and between which values the truth lies for certain.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Bounded {
    estimate_ms: f64,
    at_least_ms: i64,
    at_most_ms: Option<i64>,
}

impl From<Percentile> for Bounded {
    fn from(percentile: Percentile) -> Self {
        Self {
            estimate_ms: rounded(percentile.estimate_ms, 10.0),
            at_least_ms: percentile.at_least_ms,
            at_most_ms: percentile.at_most_ms,
        }
    }
}

/// A line: a group's key, and its figures.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    #[serde(flatten)]
    key: GroupKey,
    #[serde(flatten)]
    figures: Figures,
    /// If it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Change>,
}

impl Line {
    pub(crate) fn new(dimensions: &[Dimension], row: &usage::Row) -> Self {
        let now = &row.measures;
        Self {
            key: GroupKey::new(dimensions, row.keys.as_deref()),
            figures: now.into(),
            previous: row.before.as_ref().map(Figures::from),
            change: row.before.as_ref().map(|before| Change::new(now, before)),
        }
    }
}

/// The values of the dimensions by their names, and whether the line stands for all other groups; nothing where
/// there are no groups.
#[derive(Debug, Clone)]
struct GroupKey(Vec<(&'static str, Option<String>)>);

impl GroupKey {
    fn new(dimensions: &[Dimension], keys: Option<&[String]>) -> Self {
        let value = |place: usize| keys.and_then(|keys| keys.get(place)).cloned();
        let names = dimensions.iter().enumerate();
        Self(
            names
                .map(|(place, dimension)| (dimension.name(), value(place)))
                .collect(),
        )
    }
}

impl Serialize for GroupKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        if let Some((_, first)) = self.0.first() {
            map.serialize_entry("other", &first.is_none())?;
        }
        map.end()
    }
}

/// `part` of `whole`, to a millionth.
pub(super) fn rate(part: i64, whole: i64) -> Option<f64> {
    (whole != 0).then(|| rounded(float(part) / float(whole), 1e6))
}

#[expect(clippy::cast_precision_loss, reason = "for rates, which are rounded anyway")]
pub(super) fn float(number: i64) -> f64 {
    number as f64
}

/// To that many parts of one: no reader needs more, and a float's tail is noise.
pub(super) fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}
