//! Continuous aggregates close their buckets while events for them are being committed. What was answered once
//! stays in the answer; what is not in it yet stands in a log that freshness looks at. Each of these orders went
//! wrong once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::servers::connect;
use tokio_postgres::Client;

use crate::platform::{Flavor, Platform};

/// When a session has done what it does, or waits for a lock.
pub(crate) async fn done_or_waiting<T>(
    platform: &Platform,
    task: &tokio::task::JoinHandle<T>,
    pid: i32,
) -> Result<()> {
    let waits = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {pid}");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !task.is_finished() && platform.count(&waits).await? == 0 {
        ensure!(Instant::now() < deadline, "it neither ends nor waits");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub(crate) async fn pid(client: &Client) -> Result<i32> {
    Ok(client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0))
}

/// One event at a moment that is given in SQL.
fn insert(at: &str) -> String {
    format!(
        "INSERT INTO usage_events (time, event_id, org_id, user_id, api_key_id, model_name, input_tokens, \
         output_tokens, total_tokens, cost, status) SELECT {at}, gen_random_uuid(), gen_random_uuid(), \
         gen_random_uuid(), gen_random_uuid(), 'm', 1, 1, 2, 0.1, 'success'"
    )
}

async fn counted(platform: &Platform, relation: &str) -> Result<i64> {
    let sum = format!("SELECT coalesce(sum(request_count), 0)::bigint FROM {relation}");
    platform.count(&sum).await
}

async fn awaits_refresh(platform: &Platform) -> Result<bool> {
    Ok(platform
        .owner
        .query_one("SELECT awaits_refresh()", &[])
        .await?
        .get(0))
}

/// The materialized part of an aggregate.
async fn materialized(platform: &Platform, aggregate: &str) -> Result<String> {
    let name = "SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name) \
                FROM timescaledb_information.continuous_aggregates WHERE view_name = $1";
    Ok(platform.owner.query_one(name, &[&aggregate]).await?.get(0))
}

/// Two days ago, so that neither this nor the next hour or day matters.
const PAST: &str = "date_trunc('day', now(), 'UTC') - interval '36 hours'";

/// The span of an aggregate's bucket with the past in it, as arguments.
fn bucket(width: &str) -> String {
    let begin = format!("date_bin('{width}', {PAST}, '2000-01-01 00:00Z')");
    format!("{begin}, {begin} + interval '{width}'")
}

#[tokio::test]
async fn an_answered_event_stays_while_its_hour_is_closed() -> Result<()> {
    if !Flavor::TimescaleDb.is_here() {
        return Ok(());
    }
    let platform = Platform::new(Flavor::TimescaleDb).await?;
    platform.owner.batch_execute(&insert(PAST)).await?;
    stays_while_closed(&platform, "usage_hourly", "1 hour", PAST).await
}

#[tokio::test]
async fn an_answered_event_stays_while_its_day_is_closed() -> Result<()> {
    if !Flavor::TimescaleDb.is_here() {
        return Ok(());
    }
    let platform = Platform::new(Flavor::TimescaleDb).await?;
    platform.owner.batch_execute(&insert(PAST)).await?;
    // Hours are closed, and live all the same after the last one that has a row.
    let hours = format!("CALL close_buckets('usage_hourly', {})", bucket("1 day"));
    platform.owner.batch_execute(&hours).await?;
    let later = format!("{PAST} + interval '4 hours'");
    stays_while_closed(&platform, "usage_daily", "1 day", &later).await
}

/// One event is stored, and another one is committed between the reading of its bucket and the watermark's move
/// past it.
async fn stays_while_closed(platform: &Platform, aggregate: &str, width: &str, at: &str) -> Result<()> {
    let url = platform.owner_url()?;
    let (holder, closer, writer) = (connect(&url).await?, connect(&url).await?, connect(&url).await?);
    // The refresh has read and written its rows, and cannot move the watermark.
    holder
        .batch_execute("BEGIN; SELECT FROM _timescaledb_catalog.continuous_aggs_watermark FOR UPDATE")
        .await?;
    let closing = format!("CALL close_buckets('{aggregate}', {})", bucket(width));
    let closer_pid = pid(&closer).await?;
    let closed = tokio::spawn(async move { closer.batch_execute(&closing).await });
    done_or_waiting(platform, &closed, closer_pid).await?;
    ensure!(!closed.is_finished(), "the watermark was not held");

    let writer_pid = pid(&writer).await?;
    let event = insert(at);
    let written = tokio::spawn(async move { writer.batch_execute(&event).await });
    done_or_waiting(platform, &written, writer_pid).await?;
    let answered = counted(platform, aggregate).await?;
    holder.batch_execute("ROLLBACK").await?;
    closed.await??;
    let after = counted(platform, aggregate).await?;
    ensure!(
        after >= answered,
        "{aggregate} counted {answered} before it was closed, and {after} after"
    );
    written.await??;
    ensure!(
        counted(platform, aggregate).await? == 2 || awaits_refresh(platform).await?,
        "{aggregate} lacks an event and nothing says so"
    );
    platform.maintain().await?;
    ensure!(counted(platform, aggregate).await? == 2 && !awaits_refresh(platform).await?);
    Ok(())
}

/// An event whose COMMIT has looked at the threshold below which changes are logged, and is not done when
/// maintenance wants to move it: it would be in the aggregates never.
#[tokio::test]
async fn a_commit_that_takes_its_time_is_not_left_out() -> Result<()> {
    if !Flavor::TimescaleDb.is_here() {
        return Ok(());
    }
    let platform = Platform::new(Flavor::TimescaleDb).await?;
    let url = platform.owner_url()?;
    let (writer, holder) = (connect(&url).await?, connect(&url).await?);
    platform.owner.batch_execute(&insert(PAST)).await?;
    // A temporary table is emptied after TimescaleDB's part of COMMIT and before the end of the transaction:
    // whoever reads the table holds it up there.
    writer
        .batch_execute("CREATE TEMP TABLE held (a integer) ON COMMIT DELETE ROWS")
        .await?;
    writer
        .batch_execute(&format!("BEGIN; INSERT INTO held VALUES (1); {}", insert(PAST)))
        .await?;
    let held: String = platform
        .owner
        .query_one(
            "SELECT format('%s.held', relnamespace::regnamespace) FROM pg_class WHERE relname = 'held'",
            &[],
        )
        .await?
        .get(0);
    holder
        .batch_execute(&format!("BEGIN; LOCK TABLE {held} IN ACCESS SHARE MODE"))
        .await?;
    let writer_pid = pid(&writer).await?;
    let committed = tokio::spawn(async move { writer.batch_execute("COMMIT").await });
    done_or_waiting(&platform, &committed, writer_pid).await?;
    ensure!(!committed.is_finished(), "the commit was not held");

    // Whether it waits for its turn in vain or not.
    let said = platform.maintain().await;
    for relation in ["usage_hourly", "usage_daily"] {
        ensure!(counted(&platform, relation).await? == 1, "{said:?}");
    }
    holder.batch_execute("ROLLBACK").await?;
    committed.await??;
    for relation in ["usage_hourly", "usage_daily"] {
        ensure!(
            counted(&platform, relation).await? == 2 || awaits_refresh(&platform).await?,
            "{relation} lacks an event and nothing says so"
        );
    }
    platform.maintain().await?;
    for relation in ["usage_hourly", "usage_daily"] {
        let found = counted(&platform, relation).await?;
        ensure!(found == 2, "{relation} counts {found} of 2 events");
    }
    ensure!(!awaits_refresh(&platform).await?);
    Ok(())
}

/// A late event for an hour that has no materialized row after it is answered live by the hour, and not by the day.
#[tokio::test]
async fn a_day_that_lacks_an_event_of_a_live_hour_says_so() -> Result<()> {
    if !Flavor::TimescaleDb.is_here() {
        return Ok(());
    }
    let platform = Platform::new(Flavor::TimescaleDb).await?;
    platform.owner.batch_execute(&insert(PAST)).await?;
    platform.maintain().await?;
    ensure!(!awaits_refresh(&platform).await?);
    let later = format!("{PAST} + interval '4 hours'");
    platform.owner.batch_execute(&insert(&later)).await?;
    ensure!(counted(&platform, "usage_hourly").await? == 2 && counted(&platform, "usage_daily").await? == 1);
    ensure!(awaits_refresh(&platform).await?);

    // The refresh of hours takes the event from the log of changes, and cannot go on.
    let holder = connect(&platform.owner_url()?).await?;
    let hours = materialized(&platform, "usage_hourly").await?;
    holder
        .batch_execute(&format!(
            "BEGIN; LOCK TABLE {hours} IN SHARE UPDATE EXCLUSIVE MODE"
        ))
        .await?;
    let said = platform.maintain().await;
    ensure!(
        said.as_ref()
            .is_err_and(|error| format!("{error:#}").contains("refresh_hourly")),
        "{said:?}"
    );
    ensure!(
        counted(&platform, "usage_daily").await? == 2 || awaits_refresh(&platform).await?,
        "the day lacks an event and nothing says so"
    );
    holder.batch_execute("ROLLBACK").await?;
    platform.maintain().await?;
    ensure!(counted(&platform, "usage_daily").await? == 2 && !awaits_refresh(&platform).await?);
    Ok(())
}

/// A day whose hours could not be closed stays open: events for them are in no log.
#[tokio::test]
async fn a_day_is_not_closed_before_its_hours() -> Result<()> {
    if !Flavor::TimescaleDb.is_here() {
        return Ok(());
    }
    let platform = Platform::new(Flavor::TimescaleDb).await?;
    platform.owner.batch_execute(&insert(PAST)).await?;
    let holder = connect(&platform.owner_url()?).await?;
    holder
        .batch_execute(
            "BEGIN; SELECT FROM _timescaledb_catalog.continuous_aggs_invalidation_threshold closed \
             JOIN _timescaledb_catalog.hypertable source ON source.id = closed.hypertable_id \
             WHERE source.table_name = 'usage_quarter_hourly' FOR UPDATE OF closed",
        )
        .await?;
    let said = platform.maintain().await;
    ensure!(
        said.as_ref()
            .is_err_and(|error| format!("{error:#}").contains("1 of ")),
        "{said:?}"
    );
    platform.owner.batch_execute(&insert(PAST)).await?;
    ensure!(
        counted(&platform, "usage_daily").await? == 2 || awaits_refresh(&platform).await?,
        "the day lacks an event and nothing says so"
    );
    holder.batch_execute("ROLLBACK").await?;
    platform.maintain().await?;
    ensure!(counted(&platform, "usage_daily").await? == 2 && !awaits_refresh(&platform).await?);
    Ok(())
}
