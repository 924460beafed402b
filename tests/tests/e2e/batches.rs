//! Batches that the database refuses, in part or for a while: the offender is found, and nobody else pays.

use std::fmt::Write as _;
use std::io::Cursor;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::malformed;
use e2e::oracle::assert_stored;
use e2e::servers::connect;
use futures_util::{SinkExt as _, pin_mut};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::platform::{Flavor, Platform};
use crate::rollups;

crate::in_both_flavors!(
    letters_that_the_database_refuses_are_not_blamed_on_events,
    a_batch_that_takes_too_long_is_written_in_halves,
    deadlocks_and_serialization_failures_pass,
    a_row_is_not_condemned_for_its_sessions_past,
    of_two_with_one_key_the_one_that_can_be_stored_is,
    sessions_keep_what_the_promise_needs,
    a_session_that_stands_still_in_a_copy_is_ended,
);

fn events(seed: u64, count: usize) -> Vec<Event> {
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed,
        organizations: 10,
        start: end - time::Duration::minutes(50),
        end,
    };
    Generator::new(&shape).take(count).collect()
}

/// Runs `body` before each insert into raw events, as the owner.
async fn before_inserts(platform: &Platform, body: &str) -> Result<()> {
    let trigger = format!(
        "CREATE FUNCTION interfere() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
         BEGIN {body} RETURN NULL; END $$;
         CREATE TRIGGER zz_interfere AFTER INSERT ON usage_events
             REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION interfere()"
    );
    Ok(platform.owner.batch_execute(&trigger).await?)
}

async fn letters_that_the_database_refuses_are_not_blamed_on_events(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    platform.declare_queue().await?;
    platform
        .owner
        .batch_execute("ALTER TABLE dead_letters ADD CONSTRAINT no_headers CHECK (NOT headers ? 'headers')")
        .await?;
    let events = events(71, 500);
    let publisher = platform.publisher().await?;
    publisher
        .publish(events[..250].iter().map(|event| &event.body))
        .await?;
    for message in malformed::twenty(OffsetDateTime::now_utc()).iter().take(3) {
        let mut headers = FieldTable::default();
        headers.insert("x-origin".into(), AMQPValue::LongString("gateway".into()));
        let properties = BasicProperties::default().with_headers(headers);
        publisher.publish_with(&message.body, properties).await?;
    }
    publisher
        .publish(events[250..].iter().map(|event| &event.body))
        .await?;
    let _worker = platform.worker(&[]).await?;
    platform.wait_stored(500, 3).await?;
    let blamed = platform
        .count("SELECT count(*) FROM dead_letters WHERE reason = 'refused_by_database'")
        .await?;
    ensure!(blamed == 0, "{blamed} events were blamed");
    rollups::assert_equal_raw(&platform).await
}

async fn a_batch_that_takes_too_long_is_written_in_halves(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    platform.declare_queue().await?;
    before_inserts(
        &platform,
        "PERFORM pg_sleep(0.02 * (SELECT count(*) FROM added));",
    )
    .await?;
    let events = events(72, 400);
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    let worker = platform
        .worker(&[("BATCH_DEADLINE_SECONDS", "1"), ("WRITER_LANES", "1")])
        .await?;
    // What was given up does not go on at the server: the whole batch would sleep in the trigger for 8 s, and all
    // of its pieces take longer than that.
    let role = platform.role("writer");
    let goes_on = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}' AND state = 'active' \
         AND wait_event = 'PgSleep' AND query_start < clock_timestamp() - interval '4 s'"
    );
    let began = Instant::now();
    while platform.count("SELECT count(*) FROM usage_events").await? < 400 {
        let busy = platform.count(&goes_on).await?;
        ensure!(busy == 0, "{busy} sessions go on");
        ensure!(began.elapsed() < Duration::from_secs(60), "it is never done");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(
        began.elapsed() > Duration::from_secs(8),
        "too fast to see what goes on"
    );
    ensure!(
        worker.log().contains("not done within 1 s"),
        "it was fast enough: {}",
        worker.log()
    );
    rollups::assert_equal_raw(&platform).await
}

async fn deadlocks_and_serialization_failures_pass(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    platform.declare_queue().await?;
    platform.owner.batch_execute("CREATE SEQUENCE tries").await?;
    // What a sequence has given out stays given out when the transaction is rolled back.
    let body = "CASE nextval('public.tries')
        WHEN 1 THEN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01';
        WHEN 2 THEN RAISE EXCEPTION 'serialization' USING ERRCODE = '40001';
        WHEN 3 THEN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100';
        WHEN 4 THEN RAISE EXCEPTION 'never heard of' USING ERRCODE = 'ZZ999';
        ELSE NULL; END CASE;";
    before_inserts(&platform, body).await?;
    let events = events(73, 300);
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    let worker = platform.worker(&[("WRITER_LANES", "1")]).await?;
    platform.wait_stored(300, 0).await?;
    let retried = worker.metric("usage_ingest_batches_retried_total").await?;
    ensure!(retried == 4.0, "{retried} tries were repeated");
    rollups::assert_equal_raw(&platform).await
}

async fn a_row_is_not_condemned_for_its_sessions_past(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    platform.declare_queue().await?;
    platform
        .owner
        .batch_execute("CREATE TABLE stale (pid integer)")
        .await?;
    let body = "IF EXISTS (SELECT FROM public.stale WHERE pid = pg_backend_pid()) THEN
            RAISE EXCEPTION 'cached plan must not change result type' USING ERRCODE = '0A000';
        END IF;";
    before_inserts(&platform, body).await?;
    let _worker = platform.worker(&[]).await?;
    let events = events(74, 200);
    let publisher = platform.publisher().await?;
    publisher
        .publish(events[..100].iter().map(|event| &event.body))
        .await?;
    platform.wait_stored(100, 0).await?;
    let role = platform.role("writer");
    let stale = format!("INSERT INTO stale SELECT pid FROM pg_stat_activity WHERE usename = '{role}'");
    platform.owner.batch_execute(&stale).await?;
    publisher
        .publish(events[100..].iter().map(|event| &event.body))
        .await?;
    platform.wait_stored(200, 0).await?;
    rollups::assert_equal_raw(&platform).await
}

/// Two messages with one key and another content: the first one is refused, so the second one is the event.
async fn of_two_with_one_key_the_one_that_can_be_stored_is(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    platform.declare_queue().await?;
    platform
        .owner
        .batch_execute(
            "ALTER TABLE usage_events ADD CONSTRAINT no_seven CHECK (latency_ms IS DISTINCT FROM 777777)",
        )
        .await?;
    let event = events(75, 1).remove(0);
    let mut refused: serde_json::Value = serde_json::from_slice(&event.body)?;
    refused["latency_ms"] = 777_777.into();
    let refused = refused.to_string().into_bytes();
    platform
        .publisher()
        .await?
        .publish([&refused, &event.body, &event.body])
        .await?;
    let worker = platform
        .worker(&[("BATCH_MAX_AGE_MS", "1000"), ("WRITER_LANES", "1")])
        .await?;
    platform.wait_stored(1, 1).await?;
    worker.wait_acknowledged().await?;
    let duplicates = worker.metric("usage_ingest_events_duplicate_total").await?;
    ensure!(duplicates == 1.0, "{duplicates} duplicates were counted");
    rollups::assert_equal_raw(&platform).await
}

/// Whatever the database's own settings are: a strict isolation level ends in serialization failures, an asynchronous
/// commit is none, and late events need any number of decompressed rows.
async fn sessions_keep_what_the_promise_needs(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    platform.declare_queue().await?;
    let day = OffsetDateTime::now_utc().replace_time(time::Time::MIDNIGHT) - time::Duration::days(20);
    let shape = Shape {
        seed: 76,
        organizations: 2,
        start: day,
        end: day + time::Duration::DAY,
    };
    let events: Vec<Event> = Generator::new(&shape).take(900).collect();
    let publisher = platform.publisher().await?;
    let mut worker = platform.worker(&[("MAINTENANCE_ENABLED", "false")]).await?;
    publisher
        .publish(events[..600].iter().map(|event| &event.body))
        .await?;
    platform.wait_stored(600, 0).await?;
    worker.terminate(Duration::from_secs(20)).await?;
    platform.maintain().await?;

    let limit = match flavor {
        Flavor::Postgres => "",
        Flavor::TimescaleDb => {
            "EXECUTE format('ALTER DATABASE %I SET timescaledb.max_tuples_decompressed_per_dml_transaction = 1', \
             current_database());"
        }
    };
    let settings = format!(
        "DO $$ BEGIN
             EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database());
             EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
             {limit}
         END $$"
    );
    platform.owner.batch_execute(&settings).await?;
    let body = "IF current_setting('transaction_isolation') <> 'read committed'
            OR current_setting('synchronous_commit') <> 'on' THEN
            RAISE EXCEPTION 'as the database has it';
        END IF;";
    before_inserts(&platform, body).await?;
    let worker = platform.worker(&[("MAINTENANCE_ENABLED", "false")]).await?;
    // Those that are stored already are looked for in the columnstore.
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    platform.wait_stored(900, 0).await?;
    worker.wait_acknowledged().await?;
    let duplicates = worker.metric("usage_ingest_events_duplicate_total").await?;
    ensure!(duplicates == 600.0, "{duplicates} duplicates were counted");
    drop(worker);
    platform.maintain().await?;
    rollups::assert_equal_raw(&platform).await
}

/// As that of a worker whose process is frozen: its kernel answers, so that nothing else ends it.
async fn a_session_that_stands_still_in_a_copy_is_ended(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    platform.declare_queue().await?;
    let events = events(76, 2_000);
    let standing = connect(&platform.url_of("writer")?).await?;
    standing.batch_execute("BEGIN").await?;
    let columns = "time, event_id, org_id, user_id, api_key_id, model_name, input_tokens, output_tokens, \
                   total_tokens, cost, status";
    let copy = standing
        .copy_in(&format!("COPY usage_events ({columns}) FROM STDIN"))
        .await?;
    pin_mut!(copy);
    // The server takes rows in by the thousand.
    let mut lines = String::new();
    for Event { fact, .. } in &events {
        let micros = i128::from(fact.time_us) * 1_000;
        let time = OffsetDateTime::from_unix_timestamp_nanos(micros)?.format(&Rfc3339)?;
        let (organization, user, key) = (fact.org_id, fact.user_id, fact.api_key_id);
        writeln!(
            lines,
            "{time}\t{}\t{organization}\t{user}\t{key}\tm\t1\t1\t2\t0\tsuccess",
            fact.event_id
        )?;
    }
    copy.send(Cursor::new(lines)).await?;
    let worker = platform
        .worker(&[("BATCH_DEADLINE_SECONDS", "3"), ("WRITER_LANES", "1")])
        .await?;
    platform
        .publisher()
        .await?
        .publish(events.iter().map(|event| &event.body))
        .await?;
    platform.wait_for_a_lock_waiter().await?;
    platform.wait_stored(2_000, 0).await?;
    ensure!(
        standing.is_closed(),
        "the session that stands still goes on: {}",
        worker.log()
    );
    assert_stored(&platform.owner, events.iter().map(|event| &event.fact)).await?;
    rollups::assert_equal_raw(&platform).await
}
