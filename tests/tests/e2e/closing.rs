//! Buckets are closed while events for them are being committed: each event is counted once, whatever is cut short when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::generator::random::Random;
use e2e::servers::connect;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::platform::{Flavor, Platform};
use crate::rollups;

crate::in_both_flavors!(
    a_batch_under_way_is_closed_with_its_bucket,
    an_event_for_a_bucket_that_is_being_closed_is_late,
    a_closing_that_is_cut_short_is_done_again,
    random_operations_leave_every_rollup_exact,
);

/// When a session has done what it does, or waits for a lock.
pub(crate) async fn done_or_waiting<T>(platform: &Platform, task: &JoinHandle<T>, pid: i32) -> Result<()> {
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

/// So many events of one organization at a moment that is given in SQL.
fn insert(at: &str, count: usize) -> String {
    format!(
        "INSERT INTO usage_events (time, event_id, org_id, user_id, api_key_id, model_name, input_tokens, \
         output_tokens, total_tokens, cost, status) SELECT {at}, gen_random_uuid(), '{ORGANIZATION}', \
         '{ORGANIZATION}', '{ORGANIZATION}', 'm', 1, 1, 2, 0.1, 'success' FROM generate_series(1, {count})"
    )
}

const ORGANIZATION: &str = "00000000-0000-4000-8000-00000000000a";
/// Ten days ago, so that a week of it is over.
const PAST: &str = "now() - interval '10 days'";
const CLOSE: &str = "CALL close_buckets(now() - interval '10 minutes')";
/// In the order of their places.
const DERIVED: [&str; 8] = [
    "closed_hourly",
    "closed_daily",
    "closed_daily_by_user",
    "closed_weekly_by_key",
    "closed_hourly_by_org",
    "closed_daily_by_org",
    "closed_system_quarter_hourly",
    "closed_system_daily",
];

fn spawn(client: Client, sql: String) -> JoinHandle<Result<(), tokio_postgres::Error>> {
    tokio::spawn(async move { client.batch_execute(&sql).await })
}

async fn counted(platform: &Platform, relation: &str) -> Result<i64> {
    let sum = format!("SELECT coalesce(sum(request_count), 0)::bigint FROM {relation}");
    platform.count(&sum).await
}

/// A closing waits for a batch that has begun, and has its events.
async fn a_batch_under_way_is_closed_with_its_bucket(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let url = platform.owner_url()?;
    let (writer, closer) = (connect(&url).await?, connect(&url).await?);
    writer
        .batch_execute(&format!("BEGIN; {}", insert(PAST, 3)))
        .await?;
    let closer_pid = pid(&closer).await?;
    let closing = spawn(closer, CLOSE.to_owned());
    done_or_waiting(&platform, &closing, closer_pid).await?;
    ensure!(
        !closing.is_finished(),
        "the bucket was closed without a batch that was under way"
    );
    writer.batch_execute("COMMIT").await?;
    closing.await??;
    ensure!(counted(&platform, "closed_daily WHERE NOT late").await? == 3);
    rollups::assert_equal_raw(&platform).await
}

/// From the moment that a closing has taken its snapshot, whoever writes adds to the rungs by himself.
async fn an_event_for_a_bucket_that_is_being_closed_is_late(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    platform.owner.batch_execute(&insert(PAST, 3)).await?;
    let url = platform.owner_url()?;
    let (holder, closer, writer) = (connect(&url).await?, connect(&url).await?, connect(&url).await?);
    holder
        .batch_execute("BEGIN; LOCK TABLE closed_system_daily IN SHARE MODE")
        .await?;
    let closer_pid = pid(&closer).await?;
    let closing = spawn(closer, CLOSE.to_owned());
    done_or_waiting(&platform, &closing, closer_pid).await?;
    ensure!(!closing.is_finished(), "void: the closing was not held");
    let writer_pid = pid(&writer).await?;
    let written = spawn(writer, insert(PAST, 2));
    done_or_waiting(&platform, &written, writer_pid).await?;
    holder.batch_execute("ROLLBACK").await?;
    closing.await??;
    written.await??;
    for rung in DERIVED {
        let both = (
            counted(&platform, &format!("{rung} WHERE NOT late")).await?,
            counted(&platform, &format!("{rung} WHERE late")).await?,
        );
        ensure!(both == (3, 2), "{rung} counts {both:?}");
    }
    rollups::assert_equal_raw(&platform).await
}

/// At each rung in turn, and waiting for its lock: with an event between the two tries.
async fn a_closing_that_is_cut_short_is_done_again(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let url = platform.owner_url()?;
    platform.owner.batch_execute(&insert(PAST, 3)).await?;
    let mut published = 3;
    let lock = "SELECT pg_advisory_xact_lock_shared(7203118455612003)".to_owned();
    let steps = DERIVED
        .iter()
        .map(|rung| format!("LOCK TABLE {rung} IN SHARE MODE"));
    for hold in std::iter::once(lock).chain(steps) {
        let (holder, closer) = (connect(&url).await?, connect(&url).await?);
        holder.batch_execute(&format!("BEGIN; {hold}")).await?;
        let closer_pid = pid(&closer).await?;
        let closing = spawn(closer, CLOSE.to_owned());
        done_or_waiting(&platform, &closing, closer_pid).await?;
        ensure!(!closing.is_finished(), "void: nothing was held by {hold}");
        platform
            .owner
            .execute("SELECT pg_terminate_backend($1)", &[&closer_pid])
            .await?;
        ensure!(closing.await?.is_err(), "void: {hold} was not cut short");
        holder.batch_execute("ROLLBACK").await?;
        ensure!(
            counted(&platform, "closed_hourly WHERE NOT late").await? == 0,
            "something of it stayed"
        );
        platform.owner.batch_execute(&insert(PAST, 1)).await?;
        published += 1;
        rollups::assert_equal_raw(&platform).await?;
    }
    platform.owner.batch_execute(CLOSE).await?;
    for rung in DERIVED {
        let found = counted(&platform, rung).await?;
        ensure!(found == published, "{rung} counts {found} of {published}");
    }
    rollups::assert_equal_raw(&platform).await
}

/// Two writers with current and late events and duplicates, closings of which some are killed, chunks that go to the
/// columnstore. `LADDER_SECONDS` makes it longer.
async fn random_operations_leave_every_rollup_exact(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let seconds = match std::env::var_os("LADDER_SECONDS") {
        Some(text) => text.to_string_lossy().parse().context("LADDER_SECONDS")?,
        None => 8,
    };
    let clock = Clock {
        began: Instant::now(),
        length: Duration::from_secs(seconds),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let url = platform.owner_url()?;
    let writers: Vec<_> = (0..2)
        .map(|seed| tokio::spawn(write(url.clone(), seed, clock, Arc::clone(&stop))))
        .collect();
    let mut random = Random::of(&[7]);
    let (mut closed, mut killed, mut looked) = (0, 0, 0);
    let ended = loop {
        if clock.began.elapsed() > clock.length {
            break Ok(());
        }
        let closer = connect(&url).await?;
        let closer_pid = pid(&closer).await?;
        let closing = spawn(closer, format!("CALL close_buckets({})", clock.now()));
        if random.one_in(3) {
            tokio::time::sleep(Duration::from_millis(random.below(60))).await;
            platform
                .owner
                .execute("SELECT pg_terminate_backend($1)", &[&closer_pid])
                .await?;
        }
        match closing.await? {
            Ok(()) => closed += 1,
            Err(_) => killed += 1,
        }
        if flavor == Flavor::TimescaleDb && random.one_in(4) {
            compress(&platform, &clock).await?;
        }
        if random.one_in(8) {
            looked += 1;
            if let Err(error) = rollups::assert_equal_raw(&platform).await {
                break Err(error);
            }
        }
    };
    stop.store(true, Ordering::Relaxed);
    let mut batches = 0;
    for writer in writers {
        batches += writer.await??;
    }
    ended?;
    platform.maintain().await?;
    rollups::assert_equal_raw(&platform).await?;
    let late = counted(&platform, "closed_hourly WHERE late").await?;
    ensure!(
        closed > 3 && killed > 0 && looked > 0 && batches > 20 && late > 0,
        "void: {closed} closings, {killed} cut short, {looked} looks, {batches} batches, {late} late events"
    );
    Ok(())
}

/// Time as the events have it: twelve days in the length of the test.
#[derive(Clone, Copy)]
struct Clock {
    began: Instant,
    length: Duration,
}

impl Clock {
    /// As SQL.
    fn now(&self) -> String {
        let passed = (self.began.elapsed().as_secs_f64() / self.length.as_secs_f64()).min(1.0);
        format!("(now() - interval '12 days' * {})", 1.0 - passed)
    }
}

/// Moves a chunk that is over to the columnstore, or its late rows.
async fn compress(platform: &Platform, clock: &Clock) -> Result<()> {
    let chunk = format!(
        "SET lock_timeout = '200ms'; SET timescaledb.enable_exclusive_locking_recompression = on; \
         SELECT compress_chunk(format('%I.%I', chunk_schema, chunk_name)::regclass) \
         FROM timescaledb_information.chunks WHERE range_end < {} ORDER BY random() LIMIT 2",
        clock.now()
    );
    let compressor = connect(&platform.owner_url()?).await?;
    // What is locked is left for another time.
    let _ = compressor.batch_execute(&chunk).await;
    Ok(())
}

/// Batches until it is told to stop; returns how many.
async fn write(url: String, seed: u64, clock: Clock, stop: Arc<AtomicBool>) -> Result<usize> {
    let client = connect(&url).await?;
    client
        .batch_execute("SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0")
        .await
        .ok();
    let mut random = Random::of(&[seed, 1]);
    let mut batches = 0;
    while !stop.load(Ordering::Relaxed) {
        let now = clock.now();
        let count = 1 + random.below(60);
        // Most are of now, a tenth of any time in five days, a tenth of the start of an hour; ids repeat.
        let batch = format!(
            "INSERT INTO usage_events (time, event_id, org_id, user_id, api_key_id, model_name, input_tokens, \
             output_tokens, total_tokens, cost, latency_ms, status, cached_input_tokens) \
             SELECT CASE WHEN kind < 8 THEN {now} - n * interval '1 second' \
                 WHEN kind = 8 THEN date_trunc('hour', {now}) ELSE {now} - n * interval '2 hours' END, \
                 md5('{seed}' || n % 50 || '{batches}')::uuid, ('00000000-0000-4000-8000-00000000000' || n % 3)::uuid, \
                 ('00000000-0000-4000-8000-00000000001' || n % 5)::uuid, ('00000000-0000-4000-8000-00000000002' || n % 7)::uuid, \
                 'm' || n % 3, n, 1, n + 1, n * 0.001, CASE WHEN n % 4 > 0 THEN n * 50 END, \
                 CASE n % 5 WHEN 0 THEN 'error' ELSE 'success' END, n / 2 \
             FROM generate_series(1, {count}) AS n CROSS JOIN LATERAL (SELECT n % 10 AS kind) AS k \
             ORDER BY 3, 1, 2 ON CONFLICT DO NOTHING"
        );
        let end = if random.one_in(10) { "ROLLBACK" } else { "COMMIT" };
        client
            .batch_execute(&format!("BEGIN; {batch}; {end}"))
            .await
            .with_context(|| format!("batch {batches}"))?;
        batches += 1;
    }
    Ok(batches)
}
