//! What must be true of a database once everything published has arrived: each row is the published event,
//! column for column, each malformed message a dead letter with its reason, and every rollup equals the raw
//! events to the last digit.

use std::collections::HashMap;
use std::pin::pin;

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt as _;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::generator::{Fact, decimal};
use crate::malformed::Malformed;

/// Upper bounds of the latency buckets in milliseconds; one more is above them.
const LATENCY_BOUNDS: [i64; 12] = [25, 50, 100, 175, 300, 500, 800, 1300, 2500, 5000, 10_000, 30_000];

/// The stored rows are these events, each once, column for column.
pub async fn assert_stored(database: &Client, facts: impl IntoIterator<Item = &Fact>) -> Result<()> {
    // By organization, so that a long run's events need not be in memory twice.
    let mut organizations: HashMap<Uuid, HashMap<(i64, Uuid), &Fact>> = HashMap::new();
    for fact in facts {
        let key = (fact.time_us, fact.event_id);
        organizations.entry(fact.org_id).or_default().insert(key, fact);
    }
    let all: i64 = organizations
        .values()
        .map(HashMap::len)
        .sum::<usize>()
        .try_into()?;
    for (org_id, expected) in organizations {
        assert_stored_of(database, org_id, expected).await?;
    }
    let stored: i64 = database
        .query_one("SELECT count(*) FROM usage_events", &[])
        .await?
        .get(0);
    ensure!(stored == all, "{stored} events are stored, {all} were published");
    Ok(())
}

async fn assert_stored_of(
    database: &Client,
    org_id: Uuid,
    mut expected: HashMap<(i64, Uuid), &Fact>,
) -> Result<()> {
    // Row by row, for the same reason.
    let rows = database
        .query_raw(
            "SELECT (extract(epoch FROM time) * 1000000)::bigint, event_id, user_id, api_key_id, model_name, \
             input_tokens, output_tokens, total_tokens, cost::text, latency_ms, status, error_message, \
             request_id, cached_input_tokens, reasoning_tokens FROM usage_events WHERE org_id = $1",
            [org_id],
        )
        .await?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await? {
        let key = (row.get(0), row.get(1));
        let fact = expected
            .remove(&key)
            .with_context(|| format!("{org_id} {key:?} is stored twice or was never published"))?;
        let stored = Fact {
            time_us: key.0,
            event_id: key.1,
            org_id,
            user_id: row.get(2),
            api_key_id: row.get(3),
            model: fact.model,
            input_tokens: row.get(5),
            output_tokens: row.get(6),
            cached_input_tokens: row.get(13),
            reasoning_tokens: row.get(14),
            cost_e10: decimal::e10(row.get(8)).context("a cost is a decimal number")?,
            latency_ms: row.get(9),
            status: fact.status,
            error_message: row.get(11),
            request_id: row.get(12),
        };
        ensure!(&stored == fact, "stored {stored:?}, published {fact:?}");
        ensure!(
            (row.get::<_, &str>(4), row.get::<_, &str>(10)) == (fact.model, fact.status),
            "model or status of {fact:?}"
        );
        ensure!(
            row.get::<_, i32>(7) == fact.input_tokens + fact.output_tokens,
            "total of {fact:?}"
        );
    }
    ensure!(
        expected.is_empty(),
        "{} published events of {org_id} are not stored",
        expected.len()
    );
    Ok(())
}

/// The dead letters are these messages, each body once, with the reason and the field that are wrong.
pub async fn assert_dead_letters<'a>(
    database: &Client,
    malformed: impl IntoIterator<Item = &'a Malformed>,
) -> Result<()> {
    let mut expected: HashMap<&[u8], &Malformed> = malformed
        .into_iter()
        .map(|message| (&*message.body, message))
        .collect();
    let rows = database
        .query("SELECT body, reason, field, detail FROM dead_letters", &[])
        .await?;
    for row in &rows {
        let body: &[u8] = row.get(0);
        let message = expected.remove(body).with_context(|| {
            format!(
                "a dead letter is there twice or is no malformed message: {:?} {}",
                row.get::<_, &str>(1),
                String::from_utf8_lossy(body)
            )
        })?;
        let found: (&str, Option<&str>) = (row.get(1), row.get(2));
        ensure!(
            found == (message.reason, message.field),
            "{}: {found:?}",
            message.what
        );
        ensure!(
            !row.get::<_, &str>(3).is_empty(),
            "{}: without a detail",
            message.what
        );
    }
    ensure!(
        expected.is_empty(),
        "{} malformed messages are no dead letters",
        expected.len()
    );
    Ok(())
}

/// A rollup of the ladder.
struct Rollup {
    time: &'static str,
    width: &'static str,
    keys: &'static str,
    histogram: bool,
}

/// All columns of all rollups are what the stored events add up to: of the rungs that are written, of those that are
/// derived as far as they are closed, and of the views that complete these.
pub async fn assert_rollups(database: &Client) -> Result<()> {
    let (user, model) = (
        "org_id, user_id, api_key_id, model_name, status",
        "org_id, model_name, status",
    );
    let by = |time, width, keys, histogram| Rollup {
        time,
        width,
        keys,
        histogram,
    };
    let all = "'infinity'";
    let quarters_by_user = by("bucket", "15 minutes", user, false);
    assert_rollup(database, "usage_quarter_hourly_by_user", &quarters_by_user, all).await?;
    assert_rollup(
        database,
        "usage_quarter_hourly",
        &by("bucket", "15 minutes", model, true),
        all,
    )
    .await?;
    for (name, rollup) in [
        ("hourly", by("hour", "1 hour", model, true)),
        ("daily", by("day", "1 day", model, true)),
        ("daily_by_user", by("day", "1 day", user, false)),
        (
            "weekly_by_key",
            by("week", "7 days", "org_id, user_id, api_key_id", false),
        ),
        ("hourly_by_org", by("hour", "1 hour", "org_id", false)),
        ("daily_by_org", by("day", "1 day", "org_id", false)),
        (
            "system_quarter_hourly",
            by("bucket", "15 minutes", "model_name, status", true),
        ),
        ("system_daily", by("day", "1 day", "model_name, status", true)),
    ] {
        let closed = format!("closed_{name}");
        let watermark = format!("(SELECT closed_through FROM ladder WHERE rung = '{closed}')");
        assert_rollup(database, &closed, &rollup, &watermark).await?;
        assert_rollup(database, &format!("usage_{name}"), &rollup, all).await?;
    }
    Ok(())
}

/// Rows of a key may be two, of which one counts late events.
async fn assert_rollup(database: &Client, relation: &str, rollup: &Rollup, until: &str) -> Result<()> {
    let Rollup {
        time,
        width,
        keys,
        histogram,
    } = rollup;
    let mut measures = vec![
        ("request_count".to_owned(), "count(*)".to_owned()),
        (
            "error_count".to_owned(),
            "count(*) FILTER (WHERE status <> 'success')".to_owned(),
        ),
        ("total_input_tokens".to_owned(), "sum(input_tokens)".to_owned()),
        ("total_output_tokens".to_owned(), "sum(output_tokens)".to_owned()),
        (
            "total_cached_input_tokens".to_owned(),
            "coalesce(sum(cached_input_tokens), 0)".to_owned(),
        ),
        (
            "total_reasoning_tokens".to_owned(),
            "coalesce(sum(reasoning_tokens), 0)".to_owned(),
        ),
        ("total_cost_e10".to_owned(), "sum(cost) * 10000000000".to_owned()),
        (
            "latency_ms_sum".to_owned(),
            "coalesce(sum(latency_ms), 0)".to_owned(),
        ),
        ("latency_count".to_owned(), "count(latency_ms)".to_owned()),
    ];
    if *histogram {
        let mut below = -1;
        for bound in LATENCY_BOUNDS {
            measures.push((
                format!("latency_to_{bound}ms"),
                format!("count(*) FILTER (WHERE latency_ms > {below} AND latency_ms <= {bound})"),
            ));
            below = bound;
        }
        measures.push((
            format!("latency_above_{below}ms"),
            format!("count(*) FILTER (WHERE latency_ms > {below})"),
        ));
    }
    let list = |write: &dyn Fn(&str, &str) -> String| {
        let all = measures.iter().map(|(name, sum)| write(name, sum));
        all.collect::<Vec<_>>().join(", ")
    };
    let bucket = format!("date_bin('{width}', time, '2000-01-03Z')");
    let raw = format!(
        "SELECT {bucket}, {keys}, {} FROM usage_events WHERE {bucket} < {until} GROUP BY {bucket}, {keys}",
        list(&|_, sum| format!("({sum})::bigint"))
    );
    let rollup = format!(
        "SELECT {time}, {keys}, {} FROM {relation} WHERE {time} < {until} GROUP BY {time}, {keys}",
        list(&|name, _| format!("sum({name})::bigint"))
    );
    let row = database
        .query_one(
            &format!(
                "SELECT (SELECT count(*) FROM (({raw}) EXCEPT ({rollup})) a) \
                 + (SELECT count(*) FROM (({rollup}) EXCEPT ({raw})) b), \
                 (SELECT count(*) FROM ({rollup}) k), (SELECT count(*) FROM ({raw}) r)"
            ),
            &[],
        )
        .await?;
    let (differences, rows, groups): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    ensure!(
        differences == 0,
        "{relation} differs from raw events in {differences} rows"
    );
    ensure!(rows == groups, "{relation} has {rows} rows for {groups} groups");
    Ok(())
}
