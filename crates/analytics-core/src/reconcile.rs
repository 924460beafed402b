//! Every rung of the ladder held against what it is added up from, key by key, and mended by the difference: the written
//! rungs against raw events, a derived one against the rung below it, as far as it is closed.
//!
//! A statement sees one snapshot, and a batch commits its events and its rollups together: so the
//! difference between the two that a statement sees is a fault, whatever is being written meanwhile. It is
//! mended by *adding* it: what a batch adds to the same row before or after stays. Nobody is kept from
//! writing, but for the rows that are mended, until the commit. Two repairs at once would add the difference
//! twice, and so would a repair beside a closing: whoever mends holds the lock of maintenance.

use time::{Duration, OffsetDateTime};

use crate::latency::{self, COLUMNS};
use crate::range::floor_to;
use crate::rollup::Relation;

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
const MEASURES: [(&str, &str); 9] = [
    ("request_count", "count(*)"),
    ("error_count", "count(*) FILTER (WHERE status <> 'success')"),
    ("total_input_tokens", "sum(input_tokens)"),
    ("total_output_tokens", "sum(output_tokens)"),
    (
        "total_cached_input_tokens",
        "coalesce(sum(cached_input_tokens), 0)",
    ),
    ("total_reasoning_tokens", "coalesce(sum(reasoning_tokens), 0)"),
    ("total_cost_e10", "sum((cost * 10000000000)::bigint)"),
    ("latency_ms_sum", "coalesce(sum(latency_ms), 0)"),
    ("latency_count", "count(latency_ms)"),
];

/// What a rung is added up from, and what of it the audit adds up.
fn source(relation: Relation) -> Relation {
    match relation {
        Relation::Events | Relation::QuarterHourlyByUser | Relation::QuarterHourly => Relation::Events,
        Relation::Hourly | Relation::SystemQuarterHourly => Relation::QuarterHourly,
        Relation::Daily | Relation::HourlyByOrg => Relation::Hourly,
        Relation::DailyByUser => Relation::QuarterHourlyByUser,
        Relation::WeeklyByKey => Relation::DailyByUser,
        Relation::DailyByOrg => Relation::HourlyByOrg,
        Relation::SystemDaily => Relation::SystemQuarterHourly,
    }
}

fn has_histogram(relation: Relation) -> bool {
    matches!(
        relation,
        Relation::QuarterHourly
            | Relation::Hourly
            | Relation::Daily
            | Relation::SystemQuarterHourly
            | Relation::SystemDaily
    )
}

/// The key's columns in the order in which rows are locked.
fn key(relation: Relation) -> Vec<&'static str> {
    let time = relation.time_column();
    match relation {
        Relation::Events => vec!["org_id", time, "event_id"],
        Relation::QuarterHourlyByUser | Relation::DailyByUser => {
            vec!["org_id", "user_id", time, "api_key_id", "model_name", "status"]
        }
        Relation::WeeklyByKey => vec!["org_id", time, "user_id", "api_key_id"],
        Relation::QuarterHourly | Relation::Hourly | Relation::Daily => {
            vec!["org_id", time, "model_name", "status"]
        }
        Relation::HourlyByOrg | Relation::DailyByOrg => vec!["org_id", time],
        Relation::SystemQuarterHourly | Relation::SystemDaily => vec![time, "model_name", "status"],
    }
}

/// The measures of a rung, and how each is added up from its source.
fn measures(relation: Relation) -> Vec<(String, String)> {
    let mut measures: Vec<(String, String)> = MEASURES
        .iter()
        .map(|(name, sum)| ((*name).to_owned(), (*sum).to_owned()))
        .collect();
    if has_histogram(relation) {
        measures.extend(COLUMNS.iter().enumerate().map(|(bucket, name)| {
            let (least, most) = latency::bounds(bucket);
            let most = most.map_or(String::new(), |most| format!(" AND latency_ms <= {most}"));
            let sum = format!("count(*) FILTER (WHERE latency_ms >= {least}{most})");
            ((*name).to_owned(), sum)
        }));
    }
    if source(relation) != Relation::Events {
        for (name, sum) in &mut measures {
            *sum = format!("sum({name})");
        }
    }
    measures
}

/// `wrap` around each name, with commas.
fn each(measures: &[(String, String)], wrap: impl Fn(&str) -> String) -> String {
    measures
        .iter()
        .map(|(name, _)| wrap(name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The span `$1` to `$2` of a relation, as far as `of` is closed: a derived rung is read no further.
fn within(relation: Relation, of: Relation) -> String {
    let (time, rung) = (relation.time_column(), of.name());
    format!(
        "{time} >= $1 AND {time} < least($2, (SELECT coalesce(closed_through, 'infinity') FROM ladder WHERE rung = '{rung}'))"
    )
}

/// Groups of a rung's source and rows of the rung from `$1` to `$2`, side by side: `raw` and `kept`.
fn side_by_side(relation: Relation, measures: &[(String, String)]) -> String {
    let (from, time, key) = (source(relation), relation.time_column(), key(relation));
    let width = relation.grain().unwrap_or_default().whole_seconds();
    let raw_key: Vec<String> = key
        .iter()
        .map(|column| match *column == time {
            true => {
                let time_below = from.time_column();
                format!("date_bin('{width} seconds', {time_below}, '2000-01-03 00:00Z') AS {time}")
            }
            false => (*column).to_owned(),
        })
        .collect();
    let places: Vec<String> = (1..=key.len()).map(|place| place.to_string()).collect();
    let sums: Vec<String> = measures
        .iter()
        .map(|(name, sum)| format!("({sum})::bigint AS {name}"))
        .collect();
    format!(
        "WITH raw AS (\n    SELECT {raw_key}, {sums}\n    FROM {} WHERE {} GROUP BY {places}\n\
         ), kept AS (\n    SELECT {key}, {}\n    FROM {} WHERE {} GROUP BY {key}\n    HAVING ({}) <> ({})\n)",
        from.name(),
        within(from, relation),
        each(measures, |name| format!("sum({name})::bigint AS {name}")),
        relation.name(),
        within(relation, relation),
        each(measures, |name| format!("sum({name})")),
        each(measures, |_| "0".to_owned()),
        raw_key = raw_key.join(", "),
        sums = sums.join(", "),
        places = places.join(", "),
        key = key.join(", "),
    )
}

fn differs(measures: &[(String, String)]) -> String {
    format!(
        "({}) IS DISTINCT FROM ({})",
        each(measures, |name| format!("raw.{name}")),
        each(measures, |name| format!("kept.{name}"))
    )
}

/// Where a rung differs from its source between `$1` and `$2`: a row for each bucket and organization (null where the rung
/// does not tell them apart), with the number of rows that the rung lacks, has too many, and has with other measures, and
/// both sums.
#[must_use]
pub fn compare(relation: Relation) -> String {
    let (measures, key) = (measures(relation), key(relation));
    let (name, time) = (relation.name(), relation.time_column());
    let org_id = if key.contains(&"org_id") {
        "org_id"
    } else {
        "NULL::uuid AS org_id"
    };
    let sum = |side: &str, name: &str| format!("coalesce(sum({side}.{name}), 0)");
    let tokens = |side: &str| {
        format!(
            "{} + {}",
            sum(side, "total_input_tokens"),
            sum(side, "total_output_tokens")
        )
    };
    format!(
        "-- reconcile_compare_{name}\n{}\n\
         SELECT {time} AS bucket, {org_id},\n\
         \x20   count(*) FILTER (WHERE kept.request_count IS NULL) AS missing,\n\
         \x20   count(*) FILTER (WHERE raw.request_count IS NULL) AS surplus,\n\
         \x20   count(*) FILTER (WHERE raw.request_count IS NOT NULL AND kept.request_count IS NOT NULL AND {}) AS other,\n\
         \x20   {}::bigint AS raw_requests, {}::bigint AS kept_requests,\n\
         \x20   ({})::bigint AS raw_tokens, ({})::bigint AS kept_tokens,\n\
         \x20   {} AS raw_cost_e10, {} AS kept_cost_e10\n\
         FROM raw FULL JOIN kept USING ({})\n\
         GROUP BY 1, 2 HAVING bool_or({}) ORDER BY 1, 2",
        side_by_side(relation, &measures),
        differs(&measures),
        sum("raw", "request_count"),
        sum("kept", "request_count"),
        tokens("raw"),
        tokens("kept"),
        sum("raw", "total_cost_e10"),
        sum("kept", "total_cost_e10"),
        key.join(", "),
        differs(&measures),
    )
}

/// Adds to a rung what it lacks between `$1` and `$2`, which is less than nothing where it has too much. Says how many rows
/// that were, and how many of them have no source.
#[must_use]
pub fn repair(relation: Relation) -> String {
    let measures = measures(relation);
    let (name, key) = (relation.name(), key(relation).join(", "));
    format!(
        "-- reconcile_repair_{name}\n{}, lacking AS MATERIALIZED (\n\
         \x20   SELECT {key}, raw.request_count IS NULL AS is_surplus, {}\n\
         \x20   FROM raw FULL JOIN kept USING ({key}) WHERE {}\n\
         ), mended AS (\n\
         \x20   INSERT INTO {name} AS r ({key}, late, {})\n\
         \x20   SELECT {key}, true, {} FROM lacking ORDER BY {key}\n\
         \x20   ON CONFLICT ({key}, late) DO UPDATE SET {}\n)\n\
         SELECT count(*), count(*) FILTER (WHERE is_surplus) FROM lacking",
        side_by_side(relation, &measures),
        each(&measures, |name| format!(
            "coalesce(raw.{name}, 0) - coalesce(kept.{name}, 0) AS {name}"
        )),
        differs(&measures),
        each(&measures, str::to_owned),
        each(&measures, str::to_owned),
        each(&measures, |name| format!("{name} = r.{name} + excluded.{name}")),
    )
}

/// Takes out the rows from `$1` to `$2` that together count nothing any more.
#[must_use]
pub fn delete_empty(relation: Relation) -> String {
    let measures = measures(relation);
    let (name, time, key) = (relation.name(), relation.time_column(), key(relation).join(", "));
    format!(
        "-- reconcile_delete_empty_{name}\nDELETE FROM {name} WHERE {time} >= $1 AND {time} < $2 AND ({key}) IN (\n\
         \x20   SELECT {key} FROM {name} WHERE {time} >= $1 AND {time} < $2 GROUP BY {key}\n\
         \x20   HAVING ({}) = ({}))",
        each(&measures, |name| format!("sum({name})")),
        each(&measures, |_| "0".to_owned()),
    )
}

/// How many organizations (or days, of a rung that does not tell them apart) have other requests, tokens or costs in a rung
/// than in its source, between `$1` and `$2`.
#[must_use]
pub fn audit(relation: Relation) -> String {
    let from = source(relation);
    let name = relation.name();
    let group = if key(relation).contains(&"org_id") {
        "org_id"
    } else {
        "NULL::uuid"
    };
    let sums = |of: Relation| match of {
        Relation::Events => {
            "count(*)::numeric, sum(input_tokens)::numeric, sum(output_tokens)::numeric, sum(cost) * 10000000000"
        }
        _ => "sum(request_count), sum(total_input_tokens), sum(total_output_tokens), sum(total_cost_e10)",
    };
    let side = |of: Relation| {
        format!(
            "SELECT {group}, {} FROM {} WHERE {} GROUP BY 1",
            sums(of),
            of.name(),
            within(of, relation)
        )
    };
    format!(
        "-- audit_{name}\nWITH raw (grp, requests, input, output, cost) AS (\n    {}\n\
         ), kept (grp, requests, input, output, cost) AS (\n    {}\n)\n\
         SELECT count(DISTINCT coalesce(grp::text, '')) FROM (\n\
         \x20   (SELECT * FROM raw EXCEPT SELECT * FROM kept) UNION ALL (SELECT * FROM kept EXCEPT SELECT * FROM raw)\n) AS differing",
        side(from),
        side(relation),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LADDER: &str = include_str!("../../../migrations/common/V2__ladder.sql");

    /// The migrations spell the same measures, keys and sources; what they have and this has not would be compared by
    /// nobody.
    #[test]
    fn the_ladder_of_the_migrations_is_the_one_that_is_compared() {
        for (name, sum) in MEASURES {
            let spelled = format!("'{name}', '{}", sum.replace('\'', "''"));
            assert!(LADDER.contains(&spelled), "{spelled}");
        }
        let measures = LADDER.split_once("FUNCTION ladder_measures").unwrap().1;
        let rows = measures.split("UNION ALL").next().unwrap();
        assert_eq!(rows.matches("\n        (").count(), MEASURES.len());
        for (place, rung) in Relation::RUNGS.into_iter().enumerate() {
            let rest = LADDER
                .split_once(&format!(
                    "({}, '{}', '{}', '{}'",
                    place + 1,
                    rung.name(),
                    source(rung).name(),
                    rung.time_column()
                ))
                .unwrap_or_else(|| panic!("{rung:?}"))
                .1;
            let key = format!("'{{{}}}'", key(rung).join(","));
            assert!(
                rest.split_once("'{")
                    .is_some_and(|(_, from)| format!("'{{{from}").starts_with(&key)),
                "{rung:?}"
            );
        }
    }

    #[test]
    fn every_statement_begins_with_its_name() {
        for relation in Relation::RUNGS {
            for statement in [compare(relation), repair(relation), delete_empty(relation)] {
                assert!(statement.starts_with("-- reconcile_"), "{statement}");
            }
            assert!(audit(relation).starts_with("-- audit_"));
        }
    }
}
