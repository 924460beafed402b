use super::*;
use analytics_core::calendar::{BucketWidth, Zone};
use analytics_core::cost::Cost;
use analytics_core::latency::{self, Latency};
use analytics_core::query::{Dimension, Measures, freshness as measured, usage};
use analytics_core::range::TimeRange;
use analytics_core::rollup::Kept;
use freshness::State;
use serde_json::{json, to_value};
use time::macros::datetime;

fn fresh(age_seconds: Option<f64>) -> measured::Freshness {
    measured::Freshness {
        counted_through: Some(datetime!(2026-11-24 10:00:00.25 UTC)),
        age_seconds,
        kept: Kept {
            raw_since: datetime!(2026-08-26 10:00 UTC),
            rollups_since: datetime!(2025-10-24 10:00 UTC),
            closed_through: Kept::EVERYTHING.closed_through,
        },
        now: datetime!(2026-11-24 10:00:01.75 UTC),
    }
}

fn measures() -> Measures {
    Measures {
        requests: 3,
        errors: 1,
        input_tokens: 3,
        output_tokens: 4,
        cost: Cost::from_e10("21220000".parse().unwrap()).unwrap(),
        tokens: None,
        latency: None,
    }
}

fn november(width: BucketWidth) -> Buckets {
    let range = TimeRange::new(datetime!(2026-11-01 0:00 UTC), datetime!(2026-12-01 0:00 UTC)).unwrap();
    Buckets::new(range, width, &Zone::UTC)
}

/// A day of usage, by nothing.
pub(super) fn over_time() -> Answer {
    let now = measures();
    let row = usage::Row {
        bucket: 0,
        keys: Some(Vec::new()),
        measures: now,
        before: None,
    };
    Answer {
        object: "usage",
        group_by: Vec::new(),
        range: Range::of(&november(BucketWidth::Day)),
        currency: CURRENCY,
        totals: (&now).into(),
        comparison: None,
        projection: None,
        data: Data::Buckets(vec![Bucket {
            start_time: datetime!(2026-11-01 0:00 UTC),
            end_time: datetime!(2026-11-02 0:00 UTC),
            state: BucketState::Closed,
            results: vec![Line::new(&[], &row)],
        }]),
        has_more: false,
        next_page: None,
        freshness: Freshness::new(&fresh(Some(1.5)), &now, 60.0),
    }
}

/// One model with all there is to say about it, which is less than before.
pub(super) fn compared_by_model(model: &str) -> Answer {
    let latency = Latency {
        sum_ms: 200,
        count: 3,
        histogram: Some([1; latency::BUCKETS]),
    };
    let now = Measures {
        latency: Some(latency),
        ..measures()
    };
    let before = Measures { requests: 5, ..now };
    let row = usage::Row {
        bucket: 0,
        keys: Some(vec![model.to_owned()]),
        measures: now,
        before: Some(before),
    };
    let buckets = november(BucketWidth::All);
    Answer {
        object: "models",
        group_by: vec!["model"],
        comparison: Some(Comparison::new(&buckets, &now, &before)),
        totals: (&now).into(),
        range: Range::of(&buckets),
        data: Data::Lines(vec![Line::new(&[Dimension::Model], &row)]),
        ..over_time()
    }
}

#[test]
fn freshness_is_never_invented() {
    let state = |age_seconds, requests| {
        let totals = Measures {
            requests,
            ..Measures::default()
        };
        Freshness::new(&fresh(age_seconds), &totals, 60.0).state
    };
    assert_eq!(state(Some(0.5), 1), State::Live);
    assert_eq!(state(Some(60.0), 1), State::Live);
    assert_eq!(state(Some(60.1), 1), State::Delayed);
    assert_eq!(state(None, 1), State::Delayed);
    assert_eq!(state(Some(0.5), 0), State::NoData);
    assert_eq!(state(None, 0), State::NoData);
}

#[test]
fn a_bucket_is_open_closed_or_final() {
    let state = |end| {
        let bucket = TimeRange::new(datetime!(2026-01-01 0:00 UTC), end).unwrap();
        BucketState::of(&bucket, &fresh(None))
    };
    assert_eq!(state(datetime!(2026-11-25 0:00 UTC)), BucketState::Open);
    assert_eq!(state(datetime!(2026-11-24 10:00 UTC)), BucketState::Closed);
    assert_eq!(state(datetime!(2026-08-26 9:30 UTC)), BucketState::Closed);
    assert_eq!(state(datetime!(2026-08-26 9:00 UTC)), BucketState::Final);
}

#[test]
fn a_list_has_the_documented_shape() {
    let (now, before) = (measures(), Measures::default());
    let row = |keys: Option<Vec<String>>| usage::Row {
        bucket: 0,
        keys,
        measures: now,
        before: Some(before),
    };
    let line = |keys| Line::new(&[Dimension::Model], &row(keys));
    let answer = Answer {
        object: "models",
        group_by: vec!["model"],
        range: Range::of(&november(BucketWidth::All)),
        currency: CURRENCY,
        totals: (&now).into(),
        comparison: Some(Comparison::new(&november(BucketWidth::All), &now, &before)),
        projection: None,
        data: Data::Lines(vec![line(Some(vec!["gpt".into()])), line(None)]),
        has_more: false,
        next_page: None,
        freshness: Freshness::new(&fresh(Some(1.5)), &now, 60.0),
    };
    let figures = json!({
        "requests": 3, "errors": 1, "error_rate": 0.333_333, "input_tokens": 3, "output_tokens": 4,
        "total_tokens": 7, "cost": "0.002122",
    });
    let nothing = json!({
        "requests": 0, "errors": 0, "error_rate": null, "input_tokens": 0, "output_tokens": 0,
        "total_tokens": 0, "cost": "0",
    });
    let change = json!({
        "requests": 3, "errors": 1, "input_tokens": 3, "output_tokens": 4, "total_tokens": 7,
        "cost": "0.002122",
        "percent": {
            "requests": null, "errors": null, "input_tokens": null, "output_tokens": null,
            "total_tokens": null, "cost": null,
        },
    });
    let mut model = figures.clone();
    model["previous"] = nothing.clone();
    model["change"] = change.clone();
    let mut other = model.clone();
    model["model"] = json!("gpt");
    model["other"] = json!(false);
    other["model"] = json!(null);
    other["other"] = json!(true);
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
            "totals": figures,
            "comparison": {
                "start_time": "2026-11-01T00:00:00Z",
                "end_time": "2026-12-01T00:00:00Z",
                "totals": nothing,
                "change": change,
            },
            "data": [model, other],
            "has_more": false,
            "next_page": null,
            "freshness": {
                "counted_through": "2026-11-24T10:00:00.25Z", "age_seconds": 1.5, "state": "live"
            },
        })
    );
}

#[test]
fn percentiles_come_with_their_bounds() {
    let mut histogram = [0; latency::BUCKETS];
    histogram[2] = 98;
    histogram[12] = 2;
    let mut totals = measures();
    totals.latency = Some(Latency {
        sum_ms: 200,
        count: 100,
        histogram: Some(histogram),
    });
    let figures = to_value(Figures::from(&totals)).unwrap();
    assert_eq!(
        figures["latency"],
        json!({
            "measured_requests": 100, "mean_ms": 2.0,
            "p50": {"estimate_ms": 76.0, "at_least_ms": 51, "at_most_ms": 100},
            "p95": {"estimate_ms": 98.5, "at_least_ms": 51, "at_most_ms": 100},
            "p99": {"estimate_ms": 30_001.0, "at_least_ms": 30_001, "at_most_ms": null},
        })
    );
    totals.latency = totals.latency.map(|latency| Latency {
        histogram: None,
        ..latency
    });
    let figures = to_value(Figures::from(&totals)).unwrap();
    assert_eq!(figures["latency"]["mean_ms"], 2.0);
    assert_eq!(figures["latency"]["p50"], json!(null));
}

#[test]
fn a_running_month_is_projected_and_no_other_range() {
    let project = |buckets: &Buckets, through: OffsetDateTime| {
        Projection::new(
            buckets,
            &measures(),
            Some(through),
            datetime!(2026-11-16 0:00 UTC),
        )
    };
    let month = november(BucketWidth::Day);
    let projected = project(&month, datetime!(2026-11-16 0:00 UTC)).unwrap();
    assert_eq!(
        to_value(&projected).unwrap(),
        json!({
            "kind": "projection", "method": "linear", "as_of": "2026-11-16T00:00:00Z",
            "end_time": "2026-12-01T00:00:00Z", "elapsed": 0.5, "requests": 6, "total_tokens": 14,
            "cost": "0",
        })
    );
    // What was counted through the tenth is not half a month's.
    let delayed = project(&month, datetime!(2026-11-11 0:00 UTC)).unwrap();
    assert_eq!(to_value(&delayed).unwrap()["requests"], 9);
    // Too early to say.
    assert_eq!(project(&month, datetime!(2026-11-01 20:00 UTC)), None);
    let week = TimeRange::new(datetime!(2026-11-01 0:00 UTC), datetime!(2026-11-08 0:00 UTC)).unwrap();
    let week = Buckets::new(week, BucketWidth::Day, &Zone::UTC);
    assert_eq!(project(&week, datetime!(2026-11-16 0:00 UTC)), None);
}
