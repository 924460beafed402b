//! Maintenance: what it keeps up, and what it must not touch.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use time::OffsetDateTime;

use crate::platform::{Flavor, Platform};
use crate::rollups;

crate::in_both_flavors!(
    retention_drops_raw_events_and_no_rollup,
    the_worker_maintains_by_itself,
    the_audit_finds_rows_that_went_in_past_the_triggers,
    a_member_of_the_owner_maintains,
);

fn shape(seed: u64, days: i64) -> Shape {
    let end = OffsetDateTime::now_utc();
    Shape {
        seed,
        organizations: 5,
        start: end - time::Duration::days(days),
        end,
    }
}

async fn retention_drops_raw_events_and_no_rollup(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    let events: Vec<Event> = Generator::new(&shape(41, 60)).take(2_000).collect();
    let publisher = platform.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    platform.wait_stored(2_000, 0).await?;
    platform.maintain().await?;
    let sums = "SELECT sum(request_count)::bigint FROM ";
    platform
        .command(&["maintain"], &[("RAW_RETENTION_DAYS", "30")])
        .await?;
    let left = platform.count("SELECT count(*) FROM usage_events").await?;
    ensure!(
        (500..1_500).contains(&left),
        "{left} raw events are left of 2,000"
    );
    for _ in 0..2 {
        for relation in [
            "usage_daily_by_user",
            "usage_weekly_by_key",
            "usage_quarter_hourly",
            "usage_hourly",
            "usage_daily",
            "usage_hourly_by_org",
            "usage_daily_by_org",
            "usage_system_quarter_hourly",
            "usage_system_daily",
        ] {
            let counted = platform.count(&format!("{sums}{relation}")).await?;
            ensure!(
                counted == 2_000,
                "{relation} counts {counted} of 2,000 after the drop"
            );
        }
        platform
            .command(&["maintain"], &[("RAW_RETENTION_DAYS", "30")])
            .await?;
    }
    // A redelivery of what was dropped must not count again: it is too old now.
    let floor = OffsetDateTime::now_utc() - time::Duration::days(29);
    let old: Vec<&Event> = events
        .iter()
        .filter(|event| i128::from(event.fact.time_us) * 1_000 < floor.unix_timestamp_nanos())
        .collect();
    publisher.publish(old.iter().map(|event| &event.body)).await?;
    platform.wait_stored(left, i64::try_from(old.len())?).await?;
    let too_old = platform
        .count("SELECT count(*) FROM dead_letters WHERE reason = 'too_old'")
        .await?;
    ensure!(too_old == i64::try_from(old.len())?);
    ensure!(platform.count(&format!("{sums}usage_daily")).await? == 2_000);
    Ok(())
}

async fn the_worker_maintains_by_itself(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    if flavor == Flavor::Postgres {
        // Tomorrow's partition is missing, and so is one of the past that an event will need.
        platform
            .owner
            .batch_execute(
                "DO $$ DECLARE day date; BEGIN FOREACH day IN ARRAY ARRAY[current_date + 1, current_date - 3] LOOP \
                 EXECUTE format('DROP TABLE usage_events_p%s', to_char(day, 'YYYYMMDD')); END LOOP; END $$",
            )
            .await?;
    }
    let events: Vec<Event> = Generator::new(&shape(42, 10)).take(2_000).collect();
    let owner = platform.owner_url()?;
    let _worker = platform
        .worker(&[
            ("MAINTENANCE_ENABLED", "true"),
            ("MAINTENANCE_DATABASE_URL", &owner),
        ])
        .await?;
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    platform.wait_stored(2_000, 0).await?;
    rollups::assert_equal_raw(&platform).await?;
    // By hand as well, while the worker is at it: it waits for its turn.
    let said = tokio::time::timeout(Duration::from_secs(60), platform.maintain()).await??;
    ensure!(said.contains("workers: 0 workers forgotten"), "{said}");
    ensure!(
        said.contains("close: nothing to close"),
        "the worker has not closed: {said}"
    );
    rollups::assert_equal_raw(&platform).await
}

async fn the_audit_finds_rows_that_went_in_past_the_triggers(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let _worker = platform.worker(&[]).await?;
    let events: Vec<Event> = Generator::new(&shape(43, 1)).take(300).collect();
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    let mut now_and_then = Generator::new(&shape(44, 1));
    let today = now_and_then.at(OffsetDateTime::now_utc());
    platform.publisher().await?.publish([&today.body]).await?;
    platform.wait_stored(301, 0).await?;
    let said = platform.maintain().await?;
    ensure!(said.contains("no rollup differs"), "{said}");
    let child = platform
        .owner
        .query_one(
            "SELECT tableoid::regclass::text FROM usage_events ORDER BY time DESC LIMIT 1",
            &[],
        )
        .await?
        .get::<_, String>(0);
    platform
        .owner
        .batch_execute(&format!(
            "INSERT INTO {child} SELECT time, gen_random_uuid(), org_id, user_id, api_key_id, model_name, \
             input_tokens, output_tokens, total_tokens, cost, latency_ms, status FROM usage_events \
             ORDER BY time DESC LIMIT 1"
        ))
        .await?;
    let said = platform.maintain().await?;
    ensure!(
        said.contains("usage_quarter_hourly_by_user, usage_quarter_hourly differ"),
        "{said}"
    );
    // Of what is derived, the first quarter of an hour of today that is closed.
    platform
        .owner
        .batch_execute("DELETE FROM closed_system_quarter_hourly")
        .await?;
    let said = platform.maintain().await?;
    let closed_today = platform
        .count(
            "SELECT count(*) FROM usage_quarter_hourly JOIN ladder ON rung = 'closed_system_quarter_hourly' \
                WHERE bucket >= date_trunc('day', now(), 'UTC') AND bucket < closed_through",
        )
        .await?;
    ensure!(
        closed_today == 0 || said.contains("closed_system_quarter_hourly"),
        "{said}"
    );
    Ok(())
}

/// Closing, compressing and dropping are the owner's alone: a login of its own, without rights, becomes the owner for
/// it.
async fn a_member_of_the_owner_maintains(flavor: Flavor) -> Result<()> {
    let platform = Platform::bare(flavor).await?;
    let (owner, login) = (platform.role("owner"), platform.role("maintainer"));
    let roles = format!(
        "CREATE ROLE {owner} LOGIN; CREATE ROLE {login} LOGIN NOINHERIT IN ROLE {owner};
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO {owner}', current_database()); END $$"
    );
    platform.owner.batch_execute(&roles).await?;
    let url = platform.url_of("owner")?;
    platform.migrate(&[("DATABASE_URL", &url)]).await?;
    let _worker = platform.worker(&[("MAINTENANCE_ENABLED", "false")]).await?;
    let events: Vec<Event> = Generator::new(&shape(44, 30)).take(500).collect();
    let publisher = platform.publisher().await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    platform.wait_stored(500, 0).await?;
    let url = platform.url_of("maintainer")?;
    let settings = [("DATABASE_URL", &*url), ("RAW_RETENTION_DAYS", "15")];
    platform.command(&["maintain"], &settings).await?;
    let left = platform.count("SELECT count(*) FROM usage_events").await?;
    ensure!((100..400).contains(&left), "{left} raw events are left of 500");
    let counted = platform
        .count("SELECT sum(request_count)::bigint FROM usage_daily")
        .await?;
    ensure!(counted == 500, "{counted} of 500 are counted");
    Ok(())
}

/// Made inside the parent, a partition would wait for whoever reads, and all writers behind it.
#[tokio::test]
async fn a_partition_is_made_behind_an_open_reader() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let day = OffsetDateTime::now_utc().date() + time::Duration::days(5);
    let name = format!("usage_events_p{}", day.to_string().replace('-', ""));
    platform
        .owner
        .batch_execute(&format!("DROP TABLE {name}"))
        .await?;
    let reader = e2e::servers::connect(&platform.url_of("reader")?).await?;
    reader
        .batch_execute("BEGIN; SELECT count(*) FROM usage_events")
        .await?;
    // What is past its retention is dropped in a later round: that has to wait for the reader.
    let said = match platform.maintain().await {
        Ok(said) => said,
        Err(error) => format!("{error:#}"),
    };
    let made = platform
        .count(&format!(
            "SELECT count(*) FROM pg_inherits WHERE inhrelid = to_regclass('{name}')"
        ))
        .await?;
    ensure!(made == 1, "{name} is no partition: {said}");
    Ok(reader.batch_execute("COMMIT").await?)
}

#[tokio::test]
async fn a_week_that_begins_in_the_month_before_has_its_partition() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    platform
        .owner
        .batch_execute(
            "SELECT ensure_partitions('2031-03-01', '2031-03-01'); \
             INSERT INTO usage_events (time, event_id, org_id, user_id, api_key_id, model_name, \
                 input_tokens, output_tokens, total_tokens, cost, status) \
             SELECT '2031-03-01 00:00Z', id, id, id, id, 'model', 1, 2, 3, 0.5, 'success' FROM gen_random_uuid() AS id",
        )
        .await?;
    platform
        .owner
        .batch_execute("CALL close_buckets('2031-03-10 00:00Z')")
        .await?;
    let weeks = "SELECT count(*) FROM closed_weekly_by_key WHERE week = '2031-02-24 00:00Z'";
    ensure!(platform.count(weeks).await? == 1, "the event is in no week");
    Ok(())
}

/// Of every rollup, and of none that is kept: by name, as what was detached has no parent any more.
#[tokio::test]
async fn months_past_their_retention_are_dropped_from_every_rollup() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let months = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '_p\\d{6}$'";
    let before = platform.count(months).await?;
    platform
        .owner
        .batch_execute("SELECT ensure_partitions((now() - interval '20 months')::date, (now() - interval '20 months')::date)")
        .await?;
    let rollups = platform
        .count("SELECT count(*) FROM ladder WHERE rung <> 'usage_quarter_hourly_by_user'")
        .await?;
    // The week of the first days of a month is in the month before.
    let made = platform.count(months).await? - before;
    ensure!(
        made == rollups || made == rollups + 1,
        "{made} for {rollups} rollups"
    );
    platform.maintain().await?;
    let left = platform.count(months).await?;
    ensure!(
        left == before,
        "{left} months are left of {before} and {rollups} expired"
    );
    Ok(())
}
