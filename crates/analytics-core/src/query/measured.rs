//! The part that all questions share: sums of the measures by one key, over the segments of a range.

use std::fmt::Write as _;

use super::{Param, Question, Scope};
use crate::rollup::{Relation, Segment};

/// What the sums are by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// The hour an event falls into.
    Hour,
    /// The UTC day an event falls into.
    Day,
    /// Nothing: one sum, at the start of the range.
    Whole,
    /// A column of that name.
    Column(&'static str),
}

/// `SELECT key, measures` over all segments, and the parameters it takes.
pub(super) struct Measured {
    pub(super) sql: String,
    pub(super) params: Vec<Param>,
}

impl Measured {
    pub(super) fn bind(&mut self, value: Param) -> usize {
        bind(&mut self.params, value)
    }
}

fn bind(params: &mut Vec<Param>, value: Param) -> usize {
    params.push(value);
    params.len()
}

/// Sums by `key`: each segment is grouped where it is read, then the groups of all segments are added.
pub(super) fn measured(question: &Question, segments: &[Segment], key: Key) -> Measured {
    let mut params = Vec::new();
    let mut filter = String::new();
    if let Scope::Organization(org_id) = question.scope {
        let n = bind(&mut params, Param::Id(org_id));
        let _ = write!(filter, " AND org_id = ${n}");
    }
    if !question.filter.models.is_empty() {
        let n = bind(&mut params, Param::Texts(question.filter.models.clone()));
        let _ = write!(filter, " AND model_name = ANY(${n}::text[])");
    }
    if !question.filter.user_ids.is_empty() {
        let n = bind(&mut params, Param::Ids(question.filter.user_ids.clone()));
        let _ = write!(filter, " AND user_id = ANY(${n}::uuid[])");
    }
    let whole = match key {
        Key::Whole => bind(&mut params, Param::Time(question.range.start())),
        _ => 0,
    };
    let mut parts = Vec::with_capacity(segments.len());
    for segment in segments {
        let from = bind(&mut params, Param::Time(segment.range.start()));
        let to = bind(&mut params, Param::Time(segment.range.end()));
        let time = segment.relation.time_column();
        let key = match key {
            Key::Hour => format!("date_bin('1 hour', {time}, timestamptz '2000-01-01 00:00Z')"),
            Key::Day if segment.relation == Relation::Daily => time.to_owned(),
            Key::Day => format!("date_bin('1 day', {time}, timestamptz '2000-01-01 00:00Z')"),
            Key::Whole => format!("${whole}::timestamptz"),
            Key::Column(column) => column.to_owned(),
        };
        parts.push(format!(
            "    SELECT {key} AS key, {sums}\n    FROM {relation}\n    WHERE {time} >= ${from} AND {time} < ${to}{filter}\n    GROUP BY 1",
            sums = sums(segment.relation),
            relation = segment.relation.name(),
        ));
    }
    // One segment is grouped by the key already.
    let sql = if let [only] = parts.as_slice() {
        only.clone()
    } else {
        format!(
            "    SELECT key, sum(requests) AS requests, sum(errors) AS errors, \
             sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, \
             sum(cost_e10) AS cost_e10\n    FROM (\n{}\n    ) AS segment\n    GROUP BY key",
            parts.join("\n    UNION ALL\n")
        )
    };
    Measured { sql, params }
}

fn sums(relation: Relation) -> &'static str {
    match relation {
        Relation::Events => {
            "count(*) AS requests, count(*) FILTER (WHERE status <> 'success') AS errors, \
             sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, \
             round(sum(cost) * 10000000000) AS cost_e10"
        }
        _ => {
            "sum(request_count) AS requests, \
             sum(request_count) FILTER (WHERE status <> 'success') AS errors, \
             sum(total_input_tokens) AS input_tokens, sum(total_output_tokens) AS output_tokens, \
             sum(total_cost_e10) AS cost_e10"
        }
    }
}

/// The columns of a line of the answer: sums are numeric up to here, and null over nothing.
pub(super) const MEASURE_COLUMNS: &str = "coalesce(requests, 0)::bigint AS requests, \
    coalesce(errors, 0)::bigint AS errors, coalesce(input_tokens, 0)::bigint AS input_tokens, \
    coalesce(output_tokens, 0)::bigint AS output_tokens, coalesce(cost_e10, 0) AS cost_e10";

/// The same, added up over all groups.
pub(super) const TOTAL_COLUMNS: &str = "coalesce(sum(requests), 0)::bigint AS requests, \
    coalesce(sum(errors), 0)::bigint AS errors, coalesce(sum(input_tokens), 0)::bigint AS input_tokens, \
    coalesce(sum(output_tokens), 0)::bigint AS output_tokens, coalesce(sum(cost_e10), 0) AS cost_e10";
