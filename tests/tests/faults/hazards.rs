//! The data model's own hazards, each with what keeps it away. (Missing partitions, rows past the triggers,
//! changed events and a shadowed search path are in the suite's other part.)

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::flow::Load;
use e2e::servers::connect;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::ground::Flavor;
use crate::scene::{Scene, setting};

crate::in_both_flavors!(;
    once: ;
    slow: an_interrupted_detach_is_finished,
    recompression_gives_way_to_a_batch,
    recompression_under_late_writes,
);

/// Neither attached nor gone, a partition blocks every later detach.
async fn an_interrupted_detach_is_finished(flavor: Flavor) -> Result<()> {
    if flavor == Flavor::TimescaleDb {
        return Ok(());
    }
    let mut scene =
        Scene::begin_with(flavor, "interrupted detach", &[("MAINTENANCE_ENABLED", "false")]).await?;
    let partition = "usage_events_p' || to_char((now() AT TIME ZONE 'UTC')::date + 3, 'YYYYMMDD')";
    let name: String = scene
        .owner
        .query_one(&format!("SELECT '{partition}"), &[])
        .await?
        .get(0);
    let url = scene.owner_url();
    // Whoever reads holds the second half of a concurrent detach up.
    let reader = connect(&url).await?;
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM usage_events")
        .await?;
    let detaching = connect(&url).await?;
    detaching
        .batch_execute("SET statement_timeout = '1500ms'")
        .await?;
    let cut = detaching
        .batch_execute(&format!(
            "ALTER TABLE usage_events DETACH PARTITION {name} CONCURRENTLY"
        ))
        .await;
    ensure!(cut.is_err(), "void: the detach was not interrupted");
    reader.batch_execute("ROLLBACK").await?;
    let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
    let interrupted = scene.count(pending).await?;
    scene.proof.add("detaches cut short", interrupted as f64);
    let said = scene.maintain().await?;
    ensure!(said.contains("1 detaches finished"), "{said}");
    ensure!(scene.count(pending).await? == 0, "it is still pending");
    let attached = scene
        .count(&format!(
            "SELECT count(*) FROM pg_inherits WHERE inhrelid = '{name}'::regclass"
        ))
        .await?;
    ensure!(attached == 1, "the partition of a day to come is gone");
    scene.recovered().await?;
    scene.verdict().await
}

/// Without the exclusive lock it would move rows first, and then wait 5 s for the batch to end, which waits
/// for those rows: no deadlock detection sees that.
async fn recompression_gives_way_to_a_batch(flavor: Flavor) -> Result<()> {
    if flavor == Flavor::Postgres {
        return Ok(());
    }
    let mut scene = Scene::calm(flavor, "recompression and a batch").await?;
    scene.start_worker(&[("MAINTENANCE_ENABLED", "false")]).await?;
    let day = time::OffsetDateTime::now_utc().replace_time(time::Time::MIDNIGHT) - time::Duration::days(3);
    let mut generator = e2e::generator::Generator::new(&e2e::generator::Shape {
        seed: scene.seed(),
        organizations: 3,
        start: day,
        end: day + time::Duration::DAY,
    });
    let publisher = scene.publisher().await?;
    let mut publish = async |scene: &mut Scene| -> Result<()> {
        let events: Vec<_> = generator.by_ref().take(300).collect();
        publisher.publish(events.iter().map(|event| &event.body)).await?;
        scene.more.events.extend(events);
        scene
            .wait_stored_at_least(i64::try_from(scene.more.events.len())?)
            .await
    };
    publish(&mut scene).await?;
    scene.maintain().await?;
    publish(&mut scene).await?;
    let late = "SELECT count(*) FROM _timescaledb_catalog.chunk WHERE compressed_chunk_id IS NOT NULL AND status & 8 = 8";
    let reached = scene.count(late).await?;
    scene
        .proof
        .add("compressed chunks that late rows had reached", reached as f64);

    let url = scene.owner_url();
    let batch = connect(&url).await?;
    // Without triggers, so that the closing before it has nothing to wait for.
    batch
        .batch_execute(
            "BEGIN; SET LOCAL session_replication_role = replica; CREATE TEMP TABLE late ON COMMIT DROP AS SELECT * FROM usage_events LIMIT 1; \
             UPDATE late SET event_id = gen_random_uuid(); INSERT INTO usage_events SELECT * FROM late",
        )
        .await?;
    // It leaves the chunk to the batch, and asks for it again until the batch has ended.
    let mut maintenance = tokio::process::Command::new(setting("E2E_WORKER_BIN")?)
        .arg("maintain")
        .env_clear()
        .env("DATABASE_URL", &url)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = BufReader::new(maintenance.stderr.take().context("no stderr")?).lines();
    let asks_again = async {
        while let Some(line) = said.next_line().await? {
            if line.contains("asking again") && line.contains("columnstore") {
                return Ok(());
            }
        }
        bail!("maintenance ended before the batch")
    };
    tokio::time::timeout(Duration::from_secs(60), asks_again)
        .await
        .context("recompression did not leave the chunk to the batch")??;
    batch.batch_execute("ROLLBACK").await?;
    let mut rest = String::new();
    while let Some(line) = said.next_line().await? {
        rest.push_str(&line);
        rest.push('\n');
    }
    let ended = maintenance.wait().await?;
    ensure!(ended.success(), "maintenance ended with {ended}: {rest}");
    ensure!(
        scene.count(late).await? == 0,
        "late rows are not in the columnstore"
    );
    scene.verdict().await
}

/// Late rows reach compressed chunks all the time that maintenance compresses them again.
async fn recompression_under_late_writes(flavor: Flavor) -> Result<()> {
    if flavor == Flavor::Postgres {
        return Ok(());
    }
    let mut scene = Scene::calm(flavor, "recompression under late writes").await?;
    scene.start_worker(&[("MAINTENANCE_ENABLED", "false")]).await?;
    scene.start_flow(Load {
        late_one_in: 2,
        ..Load::of(scene.seed())
    });
    scene.wait_stored_at_least(3_000).await?;
    scene.maintain().await?;
    let late = "SELECT count(*) FROM _timescaledb_catalog.chunk WHERE compressed_chunk_id IS NOT NULL AND status & 8 = 8";
    let mut recompressed = 0;
    let mut slowest = Duration::ZERO;
    for _ in 0..6 {
        let before = scene.stored().await?;
        scene.wait_stored_at_least(before + 500).await?;
        recompressed += scene.count(late).await?;
        scene.maintain().await?;
        let began = Instant::now();
        scene.recovered().await?;
        slowest = slowest.max(began.elapsed());
    }
    scene.proof.add(
        "compressed chunks that late rows had reached",
        recompressed as f64,
    );
    ensure!(
        slowest < Duration::from_secs(10),
        "a writer was held back for {slowest:?}"
    );
    scene.verdict().await
}
