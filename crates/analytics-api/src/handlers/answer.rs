//! The shape of answers on the wire.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use analytics_core::query::{self, Dimension, Measures};
use analytics_core::range::{BucketWidth, TimeRange};
use serde::Serialize;
use time::OffsetDateTime;
use time::serde::rfc3339;

use crate::params;

/// What `cost` is in.
pub(crate) const CURRENCY: &str = "USD";

/// An answer: totals, and the parts that add up to them as far as the limit let through.
#[derive(Debug, Serialize)]
pub(crate) struct Answer<T> {
    pub(crate) object: &'static str,
    pub(crate) range: Range,
    pub(crate) currency: &'static str,
    pub(crate) totals: Measures,
    pub(crate) data: Vec<T>,
    pub(crate) has_more: bool,
    /// Null until there are pages.
    pub(crate) next_page: Option<String>,
    pub(crate) freshness: Freshness,
}

/// What the answer is about.
#[derive(Debug, Serialize)]
pub(crate) struct Range {
    #[serde(with = "rfc3339")]
    start_time: OffsetDateTime,
    #[serde(with = "rfc3339")]
    end_time: OffsetDateTime,
    bucket_width: &'static str,
    time_zone: &'static str,
}

impl Range {
    pub(crate) fn new(range: TimeRange, width: BucketWidth) -> Self {
        Self {
            start_time: range.start(),
            end_time: range.end(),
            bucket_width: params::width_name(width),
            time_zone: "UTC",
        }
    }
}

/// A bucket of time. A list of results, because later there may be one for each group.
#[derive(Debug, Serialize)]
pub(crate) struct Bucket {
    #[serde(with = "rfc3339")]
    start_time: OffsetDateTime,
    #[serde(with = "rfc3339")]
    end_time: OffsetDateTime,
    results: [Measures; 1],
}

impl From<&query::usage::Bucket> for Bucket {
    fn from(bucket: &query::usage::Bucket) -> Self {
        Self {
            start_time: bucket.range.start(),
            end_time: bucket.range.end(),
            results: [bucket.measures],
        }
    }
}

/// A line of a ranking.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    #[serde(flatten)]
    key: LineKey,
    #[serde(flatten)]
    measures: Measures,
}

#[derive(Debug, Serialize)]
enum LineKey {
    #[serde(rename = "user_id")]
    User(String),
    #[serde(rename = "model")]
    Model(String),
    #[serde(rename = "org_id")]
    Organization(String),
}

impl Line {
    pub(crate) fn new(dimension: Dimension, key: String, measures: Measures) -> Self {
        let key = match dimension {
            Dimension::User => LineKey::User(key),
            Dimension::Model => LineKey::Model(key),
            Dimension::Organization => LineKey::Organization(key),
        };
        Self { key, measures }
    }
}

/// Through when everything published is in the answer, as it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Freshness {
    #[serde(with = "rfc3339::option")]
    counted_through: Option<OffsetDateTime>,
    age_seconds: Option<f64>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Live,
    Delayed,
    NoData,
}

impl Freshness {
    pub(crate) fn new(
        measured: query::freshness::Freshness,
        totals: &Measures,
        delayed_seconds: f64,
    ) -> Self {
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

/// An answer as a response: for the caller alone, and only for now.
pub(crate) fn respond<T: Serialize>(answer: &Answer<T>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, HeaderValue::from_static("private, no-store")))
        .json(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, to_value};
    use time::macros::datetime;

    fn state(age_seconds: Option<f64>, requests: i64) -> State {
        let measured = query::freshness::Freshness {
            raw_since: OffsetDateTime::UNIX_EPOCH,
            counted_through: None,
            age_seconds,
        };
        Freshness::new(
            measured,
            &Measures {
                requests,
                ..Measures::default()
            },
            60.0,
        )
        .state
    }

    #[test]
    fn freshness_is_never_invented() {
        assert_eq!(state(Some(0.5), 1), State::Live);
        assert_eq!(state(Some(60.0), 1), State::Live);
        assert_eq!(state(Some(60.1), 1), State::Delayed);
        assert_eq!(state(None, 1), State::Delayed);
        assert_eq!(state(Some(0.5), 0), State::NoData);
        assert_eq!(state(None, 0), State::NoData);
    }

    #[test]
    fn the_wire_has_the_documented_shape() {
        let totals = Measures {
            requests: 2,
            input_tokens: 3,
            total_tokens: 3,
            ..Measures::default()
        };
        let range = TimeRange::new(datetime!(2026-11-01 0:00 UTC), datetime!(2026-12-01 0:00 UTC)).unwrap();
        let answer = Answer {
            object: "models",
            range: Range::new(range, BucketWidth::All),
            currency: CURRENCY,
            totals,
            data: vec![Line::new(Dimension::Model, "gpt".into(), totals)],
            has_more: false,
            next_page: None,
            freshness: Freshness::new(
                query::freshness::Freshness {
                    raw_since: OffsetDateTime::UNIX_EPOCH,
                    counted_through: Some(datetime!(2026-11-24 10:00:00.25 UTC)),
                    age_seconds: Some(1.5),
                },
                &totals,
                60.0,
            ),
        };
        let measures = json!({
            "requests": 2, "errors": 0, "input_tokens": 3, "output_tokens": 0, "total_tokens": 3, "cost": "0"
        });
        let mut line = measures.clone();
        line["model"] = json!("gpt");
        assert_eq!(
            to_value(&answer).unwrap(),
            json!({
                "object": "models",
                "range": {
                    "start_time": "2026-11-01T00:00:00Z",
                    "end_time": "2026-12-01T00:00:00Z",
                    "bucket_width": "all",
                    "time_zone": "UTC",
                },
                "currency": "USD",
                "totals": measures,
                "data": [line],
                "has_more": false,
                "next_page": null,
                "freshness": {
                    "counted_through": "2026-11-24T10:00:00.25Z", "age_seconds": 1.5, "state": "live"
                },
            })
        );
    }
}
