//! Every rollup equals the raw events, to the last digit.

use anyhow::{Result, ensure};

use crate::platform::Platform;

/// Upper bounds of the latency buckets in milliseconds; one more is above them.
const LATENCY_BOUNDS: [i64; 12] = [25, 50, 100, 175, 300, 500, 800, 1300, 2500, 5000, 10_000, 30_000];

/// Compares all columns of all rollups with what the events add up to.
pub(crate) async fn assert_equal_raw(platform: &Platform) -> Result<()> {
    assert_relation(
        platform,
        "usage_daily_by_user",
        "day",
        "1 day",
        "user_id, api_key_id, ",
        false,
    )
    .await?;
    assert_relation(platform, "usage_quarter_hourly", "bucket", "15 minutes", "", true).await?;
    assert_relation(platform, "usage_hourly", "hour", "1 hour", "", true).await?;
    assert_relation(platform, "usage_daily", "day", "1 day", "", true).await
}

async fn assert_relation(
    platform: &Platform,
    relation: &str,
    time: &str,
    width: &str,
    keys: &str,
    histogram: bool,
) -> Result<()> {
    let mut raw = String::new();
    let mut columns = String::new();
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
        "SELECT date_bin('{width}', time, '2000-01-01Z'), org_id, {keys}model_name, status, count(*), \
         sum(input_tokens), sum(output_tokens), (sum(cost) * 10000000000)::bigint, \
         coalesce(sum(latency_ms), 0), count(latency_ms){raw} \
         FROM usage_events GROUP BY date_bin('{width}', time, '2000-01-01Z'), org_id, {keys}model_name, status"
    );
    let rollup = format!(
        "SELECT {time}, org_id, {keys}model_name, status, request_count, total_input_tokens, \
         total_output_tokens, total_cost_e10, latency_ms_sum, latency_count{columns} FROM {relation}"
    );
    let differences = platform
        .count(&format!(
            "SELECT (SELECT count(*) FROM (({raw}) EXCEPT ({rollup})) a) \
             + (SELECT count(*) FROM (({rollup}) EXCEPT ({raw})) b)"
        ))
        .await?;
    ensure!(
        differences == 0,
        "{relation} differs from raw events in {differences} rows"
    );
    let (rows, keys_of_rows) = (
        platform
            .count(&format!("SELECT count(*) FROM {relation}"))
            .await?,
        platform.count(&format!("SELECT count(*) FROM ({raw}) r")).await?,
    );
    ensure!(
        rows == keys_of_rows,
        "{relation} has {rows} rows for {keys_of_rows} groups"
    );
    Ok(())
}
