//! Raw events held against every rollup, key by key (and days by user against weeks), and rollups mended by the
//! difference.
//!
//! A statement sees one snapshot, and a batch commits its events and its rollups together: so the
//! difference between the two that a statement sees is a fault, whatever is being written meanwhile. It is
//! mended by *adding* it: what a batch adds to the same row before or after stays. Nobody is kept from
//! writing, but for the rows that are mended, until the commit. Two repairs at once would add the difference
//! twice: whoever mends holds the lock of maintenance.

use time::{Duration, OffsetDateTime};

use crate::range::floor_to;
use crate::rollup::Relation;
use crate::schema::Flavor;

/// The rollups, in the order in which the triggers write them.
pub const ROLLUPS: [Relation; 5] = [
    Relation::DailyByUser,
    Relation::QuarterHourly,
    Relation::Hourly,
    Relation::Daily,
    Relation::WeeklyByKey,
];

/// What of a rollup is compared for a day: the day, or the week that it is of.
#[must_use]
pub fn span(relation: Relation, day: OffsetDateTime) -> (OffsetDateTime, OffsetDateTime) {
    let width = relation
        .grain()
        .map_or(Duration::DAY, |grain| grain.max(Duration::DAY));
    let start = floor_to(day, width);
    (start, start + width)
}

/// Begins a repair. It waits for a batch that has a row locked, but not for long.
pub const BEGIN_REPAIR: &str = "-- begin_repair
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '5s';
SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0";

/// Ends it.
pub const COMMIT_REPAIR: &str = "-- commit_repair\nCOMMIT";

/// Event ids that stand in `$1` to `$2` more than once, that is with two times or organizations: how many
/// there are, and each row of the first `$3`.
pub const REPEATED_IDS: &str = "-- repeated_event_ids
WITH repeated AS MATERIALIZED (
    SELECT event_id FROM usage_events WHERE time >= $1 AND time < $2 GROUP BY 1 HAVING count(*) > 1
), shown AS MATERIALIZED (
    SELECT event_id FROM repeated ORDER BY 1 LIMIT $3
)
SELECT (SELECT count(*) FROM repeated), event_id, org_id, time
FROM usage_events JOIN shown USING (event_id)
WHERE time >= $1 AND time < $2
ORDER BY event_id, time, org_id";

/// A measure, and how it is added up from events.
const MEASURES: [(&str, &str); 6] = [
    ("request_count", "count(*)"),
    ("total_input_tokens", "sum(input_tokens)::bigint"),
    ("total_output_tokens", "sum(output_tokens)::bigint"),
    ("total_cost_e10", "sum((cost * 10000000000)::bigint)::bigint"),
    ("latency_ms_sum", "coalesce(sum(latency_ms), 0)::bigint"),
    ("latency_count", "count(latency_ms)"),
];

/// Upper bounds of the latency buckets, in milliseconds; one more is above them.
const LATENCY_BOUNDS: [u32; 12] = [25, 50, 100, 175, 300, 500, 800, 1300, 2500, 5000, 10_000, 30_000];

fn measures(relation: Relation) -> Vec<(String, String)> {
    let mut measures: Vec<_> = MEASURES
        .iter()
        .map(|(name, sum)| ((*name).to_owned(), (*sum).to_owned()))
        .collect();
    match relation {
        Relation::DailyByUser => return measures,
        Relation::WeeklyByKey => {
            // Of the days that make the week.
            for (name, sum) in &mut measures {
                *sum = format!("sum({name})::bigint");
            }
            let errors = "coalesce(sum(request_count) FILTER (WHERE status <> 'success'), 0)::bigint";
            measures.push(("error_count".to_owned(), errors.to_owned()));
            return measures;
        }
        _ => {}
    }
    let mut condition = String::new();
    for bound in LATENCY_BOUNDS {
        measures.push((
            format!("latency_to_{bound}ms"),
            format!("count(*) FILTER (WHERE {condition}latency_ms <= {bound})"),
        ));
        condition = format!("latency_ms > {bound} AND ");
    }
    let last = LATENCY_BOUNDS[LATENCY_BOUNDS.len() - 1];
    measures.push((
        format!("latency_above_{last}ms"),
        format!("count(*) FILTER (WHERE latency_ms > {last})"),
    ));
    measures
}

/// The key's columns in the order in which the triggers lock rows.
fn key(relation: Relation) -> String {
    let time = relation.time_column();
    match relation {
        Relation::DailyByUser => format!("org_id, user_id, {time}, api_key_id, model_name, status"),
        Relation::WeeklyByKey => format!("org_id, {time}, user_id, api_key_id"),
        _ => format!("org_id, {time}, model_name, status"),
    }
}

fn width(relation: Relation) -> &'static str {
    match relation {
        Relation::QuarterHourly => "15 minutes",
        Relation::Hourly => "1 hour",
        Relation::WeeklyByKey => "7 days",
        _ => "1 day",
    }
}

/// `wrap` around each name, with commas.
fn each(measures: &[(String, String)], wrap: impl Fn(&str) -> String) -> String {
    measures
        .iter()
        .map(|(name, _)| wrap(name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Groups of raw events and rows of the rollup from `$1` to `$2`, side by side: `raw` and `kept`.
///
/// Weeks are held against the days by user, which are kept as long as they are: `raw` is what those add up to.
/// Raw events of a whole week may not be kept.
fn side_by_side(relation: Relation, measures: &[(String, String)]) -> String {
    let (name, time, key) = (relation.name(), relation.time_column(), key(relation));
    let (events, event_time) = match relation {
        Relation::WeeklyByKey => ("usage_daily_by_user", "day"),
        _ => ("usage_events", "time"),
    };
    let raw_key = key.replacen(
        time,
        &format!(
            "date_bin('{}', {event_time}, '2000-01-03 00:00Z') AS {time}",
            width(relation)
        ),
        1,
    );
    let columns = (1..=key.split(", ").count())
        .map(|column| column.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let sums = measures
        .iter()
        .map(|(name, sum)| format!("{sum} AS {name}"))
        .collect::<Vec<_>>()
        .join(", ");
    let names = each(measures, str::to_owned);
    format!(
        "WITH raw AS (\n    SELECT {raw_key}, {sums}\n    FROM {events} WHERE {event_time} >= $1 AND {event_time} < $2 GROUP BY {columns}\n\
         ), kept AS (\n    SELECT {key}, {names} FROM {name} WHERE {time} >= $1 AND {time} < $2\n)"
    )
}

fn differs(measures: &[(String, String)]) -> String {
    format!(
        "({}) IS DISTINCT FROM ({})",
        each(measures, |name| format!("raw.{name}")),
        each(measures, |name| format!("kept.{name}"))
    )
}

/// Whether a continuous aggregate stands for the rollup; else a trigger keeps it.
#[must_use]
pub fn is_aggregate(relation: Relation, flavor: Flavor) -> bool {
    flavor == Flavor::TimescaleDb && matches!(relation, Relation::Hourly | Relation::Daily)
}

/// Spans that the next refresh will compute again, of an aggregate or of the one below it. A change stands
/// in these logs from its commit on until it is materialized, each step in one transaction: so what a
/// statement sees in them fits what it sees in the aggregate. From its watermark on an aggregate answers live.
const AWAITED: &str = ", awaited AS MATERIALIZED (
    SELECT lowest, least(greatest, filled.watermark - 1) AS greatest
    FROM (
        SELECT aggregate.mat_hypertable_id, changed.lowest_modified_value, changed.greatest_modified_value
        FROM _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log changed
        JOIN _timescaledb_catalog.continuous_agg aggregate ON aggregate.raw_hypertable_id = changed.hypertable_id
        UNION ALL SELECT * FROM _timescaledb_catalog.continuous_aggs_materialization_invalidation_log
    ) AS log (mat_hypertable_id, lowest, greatest)
    JOIN _timescaledb_catalog.continuous_agg aggregate USING (mat_hypertable_id)
    JOIN _timescaledb_catalog.continuous_aggs_watermark filled USING (mat_hypertable_id)
    WHERE aggregate.user_view_schema = 'public' AND aggregate.user_view_name IN ";

/// Where a rollup differs from raw events between `$1` and `$2`: a row for each bucket and organization,
/// with the number of rows that the rollup lacks, has too many, and has with other measures, and both sums.
/// What an aggregate awaits from the next refresh is no difference.
#[must_use]
pub fn compare(relation: Relation, flavor: Flavor) -> String {
    let measures = measures(relation);
    let (name, time) = (relation.name(), relation.time_column());
    let sum = |side: &str, name: &str| format!("coalesce(sum({side}.{name}), 0)");
    let tokens = |side: &str| {
        format!(
            "{} + {}",
            sum(side, "total_input_tokens"),
            sum(side, "total_output_tokens")
        )
    };
    let (awaited, condition) = if is_aggregate(relation, flavor) {
        let chain = match relation {
            Relation::Daily => "('usage_hourly', 'usage_daily')",
            _ => "('usage_hourly')",
        };
        (
            format!("{AWAITED}{chain}\n)"),
            format!(
                "WHERE NOT EXISTS (SELECT FROM awaited\n\
                 \x20   WHERE lowest < _timescaledb_functions.to_unix_microseconds({time} + interval '{}')\n\
                 \x20       AND greatest >= _timescaledb_functions.to_unix_microseconds({time}))\n",
                width(relation)
            ),
        )
    } else {
        (String::new(), String::new())
    };
    format!(
        "-- reconcile_compare_{name}\n{}{awaited}\n\
         SELECT {time} AS bucket, org_id,\n\
         \x20   count(*) FILTER (WHERE kept.request_count IS NULL) AS missing,\n\
         \x20   count(*) FILTER (WHERE raw.request_count IS NULL) AS surplus,\n\
         \x20   count(*) FILTER (WHERE raw.request_count IS NOT NULL AND kept.request_count IS NOT NULL AND {}) AS other,\n\
         \x20   {}::bigint AS raw_requests, {}::bigint AS kept_requests,\n\
         \x20   ({})::bigint AS raw_tokens, ({})::bigint AS kept_tokens,\n\
         \x20   {} AS raw_cost_e10, {} AS kept_cost_e10\n\
         FROM raw FULL JOIN kept USING ({})\n{condition}\
         GROUP BY 1, 2 HAVING bool_or({}) ORDER BY 1, 2",
        side_by_side(relation, &measures),
        differs(&measures),
        sum("raw", "request_count"),
        sum("kept", "request_count"),
        tokens("raw"),
        tokens("kept"),
        sum("raw", "total_cost_e10"),
        sum("kept", "total_cost_e10"),
        key(relation),
        differs(&measures),
    )
}

/// Adds to a rollup what it lacks between `$1` and `$2`, which is less than nothing where it has too much.
/// Says how many rows that were, and which organizations have rows now that count nothing.
#[must_use]
pub fn repair(relation: Relation) -> String {
    let measures = measures(relation);
    let (name, key) = (relation.name(), key(relation));
    format!(
        "-- reconcile_repair_{name}\n{}, mended AS (\n\
         \x20   INSERT INTO {name} AS r ({key}, {})\n\
         \x20   SELECT {key}, {}\n\
         \x20   FROM raw FULL JOIN kept USING ({key})\n\
         \x20   WHERE {}\n\
         \x20   ORDER BY {key}\n\
         \x20   ON CONFLICT ({key}) DO UPDATE SET {}\n\
         \x20   RETURNING org_id, r.request_count = 0 AS is_empty\n)\n\
         SELECT count(*), coalesce(array_agg(DISTINCT org_id) FILTER (WHERE is_empty), '{{}}') FROM mended",
        side_by_side(relation, &measures),
        each(&measures, str::to_owned),
        each(&measures, |name| format!(
            "coalesce(raw.{name}, 0) - coalesce(kept.{name}, 0)"
        )),
        differs(&measures),
        each(&measures, |name| format!("{name} = r.{name} + excluded.{name}")),
    )
}

/// Takes out the rows of the organizations `$3` that count nothing any more.
#[must_use]
pub fn delete_empty(relation: Relation) -> String {
    let measures = measures(relation);
    let (name, time) = (relation.name(), relation.time_column());
    format!(
        "-- reconcile_delete_empty_{name}\nDELETE FROM {name} WHERE {time} >= $1 AND {time} < $2 AND org_id = ANY ($3)\n\
         \x20   AND ({}) = ({})",
        each(&measures, str::to_owned),
        each(&measures, |_| "0".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The triggers of the migrations spell the same sums; what they have and this has not would be compared by nobody.
    #[test]
    fn every_measure_of_the_triggers_is_compared() {
        let triggers = include_str!("../../../migrations/common/V3__triggers.sql");
        let added = |text: &str| -> std::collections::BTreeSet<String> {
            text.lines()
                .filter_map(|line| Some(line.trim().split_once(" = r.")?.0.to_owned()))
                .collect()
        };
        let (by_user, others) = triggers
            .split_once("CREATE FUNCTION add_to_usage_weekly_by_key")
            .unwrap();
        let (by_week, by_time) = others
            .split_once("CREATE FUNCTION add_to_rollup_by_time")
            .unwrap();
        for (relation, part) in [
            (Relation::DailyByUser, by_user),
            (Relation::Hourly, by_time),
            (Relation::WeeklyByKey, by_week),
        ] {
            let names = measures(relation).into_iter().map(|(name, _)| name).collect();
            assert_eq!(added(part), names, "{relation:?}");
        }
        for (_, sum) in measures(Relation::Hourly).iter().skip(6) {
            assert!(by_time.contains(sum.trim_start_matches("coalesce(")), "{sum}");
        }
    }

    #[test]
    fn every_statement_begins_with_its_name() {
        for relation in ROLLUPS {
            for statement in [
                compare(relation, Flavor::TimescaleDb),
                repair(relation),
                delete_empty(relation),
            ] {
                assert!(statement.starts_with("-- reconcile_"), "{statement}");
            }
        }
    }
}
