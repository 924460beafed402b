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
             request_id FROM usage_events WHERE org_id = $1",
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

/// All columns of all rollups are what the stored events add up to.
pub async fn assert_rollups(database: &Client) -> Result<()> {
    let (by_user, by_model) = ("user_id, api_key_id, model_name, status", "model_name, status");
    assert_rollup(database, "usage_daily_by_user", "day", "1 day", by_user, false).await?;
    assert_rollup(
        database,
        "usage_quarter_hourly",
        "bucket",
        "15 minutes",
        by_model,
        true,
    )
    .await?;
    assert_rollup(database, "usage_hourly", "hour", "1 hour", by_model, true).await?;
    assert_rollup(database, "usage_daily", "day", "1 day", by_model, true).await?;
    assert_rollup(
        database,
        "usage_weekly_by_key",
        "week",
        "7 days",
        "user_id, api_key_id",
        false,
    )
    .await
}

async fn assert_rollup(
    database: &Client,
    relation: &str,
    time: &str,
    width: &str,
    keys: &str,
    histogram: bool,
) -> Result<()> {
    let mut raw = String::new();
    let mut columns = String::new();
    if relation == "usage_weekly_by_key" {
        columns += ", error_count";
        raw += ", count(*) FILTER (WHERE status <> 'success')";
    }
    if histogram {
        let mut below = -1;
        for bound in LATENCY_BOUNDS {
            columns += &format!(", latency_to_{bound}ms");
            raw += &format!(", count(*) FILTER (WHERE latency_ms > {below} AND latency_ms <= {bound})");
            below = bound;
        }
        columns += &format!(", latency_above_{below}ms");
        raw += &format!(", count(*) FILTER (WHERE latency_ms > {below})");
    }
    let raw = format!(
        "SELECT date_bin('{width}', time, '2000-01-03Z'), org_id, {keys}, count(*), \
         sum(input_tokens), sum(output_tokens), (sum(cost) * 10000000000)::bigint, \
         coalesce(sum(latency_ms), 0), count(latency_ms){raw} \
         FROM usage_events GROUP BY date_bin('{width}', time, '2000-01-03Z'), org_id, {keys}"
    );
    let rollup = format!(
        "SELECT {time}, org_id, {keys}, request_count, total_input_tokens, \
         total_output_tokens, total_cost_e10, latency_ms_sum, latency_count{columns} FROM {relation}"
    );
    let row = database
        .query_one(
            &format!(
                "SELECT (SELECT count(*) FROM (({raw}) EXCEPT ({rollup})) a) \
                 + (SELECT count(*) FROM (({rollup}) EXCEPT ({raw})) b), \
                 (SELECT count(*) FROM {relation}), (SELECT count(*) FROM ({raw}) r)"
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
