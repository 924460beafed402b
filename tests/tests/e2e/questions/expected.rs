//! What a question's answer must be, counted event by event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use e2e::local;
use e2e::truth::{Counted, Measures, Truth};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::spelled::{Asked, Shown};

/// The values of the columns that a question is grouped by; none for the rest of all groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group(Option<Vec<String>>);

impl Group {
    /// Reads it from a row of an answer, and holds it against the row's own word for it.
    pub(super) fn read(row: &Value, names: &[&str]) -> Result<Self> {
        let values: Option<Vec<String>> = names
            .iter()
            .map(|name| row[name].as_str().map(str::to_owned))
            .collect();
        let said = row.get("other").and_then(Value::as_bool);
        let expected = (!names.is_empty()).then_some(values.is_none());
        ensure!(said == expected, "other in {row}");
        Ok(Self(values))
    }

    fn of(org_id: Uuid, event: &Counted, names: &[&str]) -> Self {
        let value = |name: &&str| match *name {
            "org_id" => org_id.to_string(),
            "user_id" => event.user_id.to_string(),
            "api_key_id" => event.api_key_id.to_string(),
            "model" => event.model.to_owned(),
            _ => event.status.to_owned(),
        };
        Self(Some(names.iter().map(value).collect()))
    }
}

/// Local buckets that were looked up: the walk through a day is long.
#[derive(Debug, Default)]
pub(super) struct Calendar(HashMap<(String, String, i64), i64>);

impl Calendar {
    fn bucket(&mut self, time_us: i64, width: &str, zone: &str) -> Result<i64> {
        // Every offset and every change of a clock is on a quarter of an hour.
        let grain = if width == "1m" { 60_000_000 } else { 900_000_000 };
        let at = time_us.div_euclid(grain) * grain;
        let key = (width.to_owned(), zone.to_owned(), at);
        if let Some(start) = self.0.get(&key) {
            return Ok(*start);
        }
        let start = local::bucket(at, width, &local::zone(zone)?)?;
        self.0.insert(key, start);
        Ok(start)
    }
}

/// What the answer must be.
pub(super) struct Expected {
    pub(super) total: Measures,
    pub(super) before: Option<Measures>,
    /// The start of the range, unix microseconds.
    pub(super) start: i64,
    /// How many buckets the range has.
    pub(super) buckets: usize,
    /// By the beginning of the bucket, and the group.
    pub(super) rows: BTreeMap<(i64, Group), Measures>,
    latencies: Vec<i32>,
}

impl Expected {
    pub(super) fn of(asked: &Asked, truth: &Truth, calendar: &mut Calendar) -> Result<Self> {
        let question = asked.question();
        let start = i64::try_from(asked.start.unix_timestamp_nanos() / 1_000)?;
        let end = i64::try_from(asked.end.unix_timestamp_nanos() / 1_000)?;
        let mut failed = None;
        let mut bucket = |time_us: i64| match calendar.bucket(time_us, &asked.width, &asked.zone) {
            Ok(bucket) => bucket.max(start),
            Err(error) => {
                failed = Some(error);
                0
            }
        };
        let by_event = std::cell::RefCell::new(&mut bucket);
        let rows = truth.grouped(&question, |org_id, event| {
            let bucket = (by_event.borrow_mut())(event.time_us);
            (bucket, Group::of(org_id, event, &asked.group_by))
        });
        let buckets = if asked.fills() {
            // Minute by minute through the range, where minutes are asked for; else by the quarter.
            let step = if asked.width == "1m" {
                60_000_000
            } else {
                900_000_000
            };
            let first = start.div_euclid(step) * step;
            let instants = (0..).map(|count| first + count * step).take_while(|at| *at < end);
            instants
                .map(|at| bucket(at.max(start)))
                .collect::<BTreeSet<_>>()
                .len()
        } else {
            0
        };
        if let Some(error) = failed {
            return Err(error);
        }
        let latencies = truth
            .latencies(&question, |_, _| ())
            .remove(&())
            .unwrap_or_default();
        Ok(Self {
            total: truth.total(&question),
            before: asked.compare.then(|| before(asked, truth)).transpose()?,
            start,
            buckets,
            rows: leaders(rows, asked),
            latencies,
        })
    }

    /// The true percentiles lie between their bounds.
    pub(super) fn check_latency(&self, asked: &Asked, answered: &Value) -> Result<()> {
        let count = self.latencies.len();
        ensure!(
            answered["measured_requests"] == count,
            "{answered}, of {count} latencies"
        );
        let sum: i64 = self.latencies.iter().map(|latency| i64::from(*latency)).sum();
        if let Some(mean) = answered["mean_ms"].as_f64() {
            ensure!(
                (mean * count as f64 - sum as f64).abs() < 0.01 * count as f64,
                "{answered}"
            );
        }
        for (name, percent) in [("p50", 50), ("p95", 95), ("p99", 99)] {
            let found = &answered[name];
            if asked.is_by_user() || count == 0 {
                ensure!(found.is_null(), "{name} of {answered}");
                continue;
            }
            let truth = i64::from(self.latencies[(count * percent).div_ceil(100) - 1]);
            let least = found["at_least_ms"].as_i64().context("a lower bound")?;
            let most = found["at_most_ms"].as_i64().unwrap_or(i64::MAX);
            ensure!(
                least <= truth && truth <= most,
                "{name} is {truth}, and not in {found}"
            );
        }
        Ok(())
    }
}

/// The groups with the most tokens in the whole range, and the rest of each bucket as one.
fn leaders(rows: BTreeMap<(i64, Group), Measures>, asked: &Asked) -> BTreeMap<(i64, Group), Measures> {
    let top = match asked.shown {
        Shown::Buckets { top: Some(top), .. } => top,
        Shown::List { by_id: false, limit } => usize::try_from(limit).unwrap_or(usize::MAX),
        _ => return rows,
    };
    let mut groups: BTreeMap<Group, i64> = BTreeMap::new();
    for ((_, group), measures) in &rows {
        *groups.entry(group.clone()).or_default() += measures.total_tokens;
    }
    let mut ranked: Vec<_> = groups.into_iter().collect();
    ranked.sort_by_key(|(group, tokens)| (Reverse(*tokens), group.clone()));
    let leading: BTreeSet<Group> = ranked.into_iter().take(top).map(|(group, _)| group).collect();
    let mut folded: BTreeMap<(i64, Group), Measures> = BTreeMap::new();
    for ((bucket, group), measures) in rows {
        let group = if leading.contains(&group) {
            group
        } else {
            Group(None)
        };
        *folded.entry((bucket, group)).or_default() += &measures;
    }
    folded
}

/// The totals of the range before: as many local months, as many local days, or as long a span.
fn before(asked: &Asked, truth: &Truth) -> Result<Measures> {
    let zone = local::zone(&asked.zone)?;
    let bucket = |at: OffsetDateTime, width: &str| -> Result<OffsetDateTime> {
        let microseconds = i64::try_from(at.unix_timestamp_nanos() / 1_000)?;
        let start = local::bucket(microseconds, width, &zone)?;
        Ok(OffsetDateTime::from_unix_timestamp_nanos(
            i128::from(start) * 1_000,
        )?)
    };
    let mut start = asked.start - (asked.end - asked.start);
    for width in ["1mo", "1d"] {
        if bucket(asked.start, width)? == asked.start && bucket(asked.end, width)? == asked.end {
            // From bucket to bucket: forwards through the range, and as often backwards.
            let (mut at, mut back) = (asked.end, asked.start);
            while at > asked.start {
                at = bucket(at - Duration::SECOND, width)?;
                back = bucket(back - Duration::SECOND, width)?;
            }
            start = back;
            break;
        }
    }
    Ok(truth.total(&asked.filter.clone().between(start, asked.start)))
}
