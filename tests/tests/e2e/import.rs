//! Events from files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::malformed;
use e2e::oracle::assert_stored;
use nix::sys::signal::Signal;
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tokio::io::AsyncWriteExt;

use crate::operator::{Said, run, run_with, signal};
use crate::platform::{Flavor, Platform};
use crate::rollups;

crate::in_both_flavors!(
    files_of_every_kind_are_imported_once,
    an_import_that_is_killed_is_finished_by_the_next,
    an_import_that_is_stopped_says_so,
    late_events_find_their_partitions_and_chunks,
    what_cannot_be_read_is_told,
);

fn generator(seed: u64, days: i64) -> Generator {
    let end = OffsetDateTime::now_utc();
    Generator::new(&Shape {
        seed,
        organizations: 8,
        start: end - Duration::days(days),
        end,
    })
}

/// A folder of one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(e2e::publisher::unique_queue("import"));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<String> {
        let path = self.0.join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.display().to_string())
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An event in one line: some are published in several, which are blanks to JSON.
fn line(event: &Event) -> Vec<u8> {
    let blank = |byte: &u8| {
        if matches!(byte, b'\n' | b'\r') {
            b' '
        } else {
            *byte
        }
    };
    event.body.iter().map(blank).collect()
}

fn lines<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<u8> {
    let mut text = Vec::new();
    for event in events {
        text.extend(line(event));
        text.push(b'\n');
    }
    text
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn tally(said: &Said) -> Result<(u64, u64, u64)> {
    Ok((
        said.number("stored")?,
        said.number("duplicate")?,
        said.number("rejected")?,
    ))
}

fn records(path: &str) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

async fn files_of_every_kind_are_imported_once(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let folder = Folder::new()?;
    let events: Vec<Event> = generator(61, 30).take(8_000).collect();
    // A hundred have come by the queue.
    let worker = platform.worker(&[]).await?;
    let publisher = platform.publisher().await?;
    publisher
        .publish(events[..100].iter().map(|event| &event.body))
        .await?;
    platform.wait_stored(100, 0).await?;
    drop(worker);

    // Twenty lines that are no events, empty ones, a line end of another system, no end at all.
    let wrong = malformed::twenty(OffsetDateTime::now_utc());
    let mut mixed = b"\n\r\n".to_vec();
    for (number, event) in events[..2_000].iter().enumerate() {
        mixed.extend(line(event));
        mixed.extend(if number % 2 == 0 { &b"\n"[..] } else { b"\r\n" });
        if number % 100 == 50 {
            mixed.extend(&wrong[number / 100].body);
            mixed.push(b'\n');
        }
    }
    mixed.pop();
    mixed.pop();
    let plain = folder.write("mixed.ndjson", &mixed)?;
    // Two members in a row, as `cat a.gz b.gz` makes them; the name says nothing.
    let members = [
        gzip(&lines(&events[2_000..3_000]))?,
        gzip(&lines(&events[3_000..4_000]))?,
    ]
    .concat();
    let zipped = folder.write("zipped", &members)?;
    let zstd = folder.write(
        "events.ndjson.zst",
        &zstd::encode_all(&*lines(&events[4_000..6_000]), 1)?,
    )?;
    let rejected = folder.path("rejected.ndjson");
    let arguments = ["import", "--rejected", &rejected, &plain, &zipped, &zstd, "-"];
    // Standard input repeats what a file has as well.
    let input = lines(&events[5_500..]);

    let said = run_with(&platform, &arguments, &[], Some(&input)).await?;
    // One of the twenty is an empty line here.
    ensure!(tally(&said)? == (7_900, 600, 19), "{said:#?}");
    ensure!(said.code == Some(3) && said.out.contains(&rejected), "{said:#?}");
    assert_stored(&platform.owner, events.iter().map(|event| &event.fact)).await?;
    ensure!(platform.count("SELECT count(*) FROM dead_letters").await? == 0);
    let records_of_first = records(&rejected)?;
    ensure!(records_of_first.len() == 19);
    for (number, message) in wrong
        .iter()
        .enumerate()
        .filter(|(_, message)| !message.body.is_empty())
    {
        let line = 2 + 100 * number + 51 + number + 1;
        let record = records_of_first
            .iter()
            .find(|record| record["line"] == line)
            .with_context(|| {
                format!(
                    "{} in line {line} is not rejected: {records_of_first:#?}",
                    message.what
                )
            })?;
        ensure!(
            record["file"] == *plain && record["reason"] == message.reason,
            "{record}"
        );
        ensure!(record["field"].as_str() == message.field, "{record}");
        match std::str::from_utf8(&message.body) {
            Ok(text) => ensure!(record["body"] == text, "{record}"),
            Err(_) => ensure!(record["body_base64"].is_string(), "{record}"),
        }
    }
    ensure!(records_of_first.is_sorted_by_key(|record| record["line"].as_u64()));

    // Again: everything is recognised.
    let said = run_with(&platform, &arguments, &[], Some(&input)).await?;
    ensure!(tally(&said)? == (0, 8_500, 19), "{said:#?}");
    ensure!(records(&rejected)? == records_of_first);
    rollups_after_maintenance(&platform).await?;

    // Nothing is rejected: exit code 0, and no file.
    let said = run(&platform, &["import", "--rejected", &rejected, &zipped]).await?;
    ensure!(tally(&said)? == (0, 2_000, 0), "{said:#?}");
    said.with_code(0)?;
    ensure!(!Path::new(&rejected).exists());
    Ok(())
}

async fn rollups_after_maintenance(platform: &Platform) -> Result<()> {
    platform.maintain().await?;
    rollups::assert_equal_raw(platform).await
}

async fn an_import_that_is_killed_is_finished_by_the_next(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let folder = Folder::new()?;
    let events: Vec<Event> = generator(62, 5).take(30_000).collect();
    let file = folder.write("events.ndjson", &lines(&events))?;
    let rejected = folder.path("rejected.ndjson");
    let arguments = ["import", "--rejected", &rejected, &file];
    let _worker = platform.worker(&[]).await?;
    let bodies: Vec<Vec<u8>> = events[25_000..].iter().map(|event| event.body.clone()).collect();
    let publisher = platform.publisher().await?;
    // The same events come by the queue meanwhile.
    let publishing = tokio::spawn(async move { publisher.publish(bodies).await });
    let mut lives = 0;
    loop {
        let before = platform.count("SELECT count(*) FROM usage_events").await?;
        let mut import = platform.operator(&arguments, &[("BATCH_SIZE", "500")])?.spawn()?;
        while platform.count("SELECT count(*) FROM usage_events").await? <= before
            && import.try_wait()?.is_none()
        {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let ended = import.try_wait()?;
        import.kill().await?;
        lives += 1;
        if ended.is_some() || lives == 4 {
            break;
        }
    }
    let said = run(&platform, &arguments).await?;
    let (stored, duplicates, none) = tally(&said)?;
    ensure!(
        stored + duplicates == 30_000 && none == 0 && duplicates > 0,
        "{said:#?}"
    );
    said.with_code(0)?;
    publishing.await??;
    platform.wait_stored(30_000, 0).await?;
    assert_stored(&platform.owner, events.iter().map(|event| &event.fact)).await?;
    rollups_after_maintenance(&platform).await
}

async fn an_import_that_is_stopped_says_so(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let folder = Folder::new()?;
    let events: Vec<Event> = generator(63, 5).take(3_000).collect();
    let rejected = folder.path("rejected.ndjson");
    let arguments = ["import", "--rejected", &rejected, "-"];
    let mut import = platform
        .operator(&arguments, &[])?
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = import.stdin.take().context("stdin")?;
    stdin.write_all(&lines(&events[..2_000])).await?;
    // The pipe stays open, and what has come is written all the same.
    platform.wait_stored(2_000, 0).await?;
    signal(&import, Signal::SIGINT)?;
    let output = import.wait_with_output().await?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        output.status.code() == Some(130) && out.contains("stored: 2000") && err.contains("run it again"),
        "{:?} {out} {err}",
        output.status
    );
    let said = run_with(&platform, &arguments, &[], Some(&lines(&events))).await?;
    ensure!(tally(&said)? == (1_000, 2_000, 0), "{said:#?}");
    rollups_after_maintenance(&platform).await
}

async fn late_events_find_their_partitions_and_chunks(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let folder = Folder::new()?;
    let rejected = folder.path("rejected.ndjson");
    let mut generator = generator(64, 80);
    let mut events: Vec<Event> = generator.by_ref().take(3_000).collect();
    let file = folder.write("first.ndjson", &lines(&events))?;
    run(&platform, &["import", "--rejected", &rejected, &file])
        .await?
        .with_code(0)?;
    rollups_after_maintenance(&platform).await?;
    let late: Vec<Event> = generator.by_ref().take(2_000).collect();
    let file = folder.write("late.ndjson", &lines(events.iter().step_by(3).chain(&late)))?;
    match flavor {
        Flavor::Postgres => {
            // Partitions that an event needs and that are gone, with what was in them.
            let dropped = OffsetDateTime::now_utc().date() - Duration::days(40);
            platform
                .owner
                .batch_execute(&format!(
                    "DROP TABLE usage_events_p{0:04}{1:02}{2:02}",
                    dropped.year(),
                    u8::from(dropped.month()),
                    dropped.day()
                ))
                .await?;
            let file = folder.write("again.ndjson", &lines(events.iter().chain(&late)))?;
            let said = run(&platform, &["import", "--rejected", &rejected, &file]).await?;
            ensure!(said.err.contains("no partition of relation"), "{said:#?}");
            said.with_code(0)?;
            events.extend(late);
            // The rollups had counted what was dropped with its partition.
            return assert_stored(&platform.owner, events.iter().map(|event| &event.fact)).await;
        }
        Flavor::TimescaleDb => {
            let compressed = platform
                .count("SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed")
                .await?;
            ensure!(compressed > 60, "{compressed} chunks are in the columnstore");
        }
    }
    let said = run(&platform, &["import", "--rejected", &rejected, &file]).await?;
    ensure!(tally(&said)? == (2_000, 1_000, 0), "{said:#?}");
    events.extend(late);
    assert_stored(&platform.owner, events.iter().map(|event| &event.fact)).await?;
    rollups_after_maintenance(&platform).await
}

async fn what_cannot_be_read_is_told(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let folder = Folder::new()?;
    let rejected = folder.path("rejected.ndjson");
    let events: Vec<Event> = generator(65, 3).take(3_000).collect();
    let file = folder.write("events.ndjson", &lines(&events[..1_000]))?;
    // A name that is wrong is told before anything is done.
    let missing = folder.path("missing.ndjson");
    let said = run(&platform, &["import", "--rejected", &rejected, &file, &missing]).await?;
    ensure!(
        said.code == Some(1) && said.err.contains("missing.ndjson"),
        "{said:#?}"
    );
    ensure!(platform.count("SELECT count(*) FROM usage_events").await? == 0);
    // A file that is cut off: what is before the cut is stored.
    let whole = gzip(&lines(&events))?;
    let cut = folder.write("cut.gz", &whole[..whole.len() / 2])?;
    let said = run(&platform, &["import", "--rejected", &rejected, &cut]).await?;
    let (stored, _, none) = tally(&said)?;
    ensure!(said.code == Some(1) && said.err.contains("cut.gz"), "{said:#?}");
    ensure!((500..2_500).contains(&stored) && none == 0, "{said:#?}");
    ensure!(platform.count("SELECT count(*) FROM usage_events").await? == i64::try_from(stored)?);
    // A row that only the database refuses, and a line beyond all measure.
    platform
        .owner
        .batch_execute(
            "ALTER TABLE usage_events ADD CONSTRAINT no_seven CHECK (latency_ms IS DISTINCT FROM 777777)",
        )
        .await?;
    let mut refused: Value = serde_json::from_slice(&events[2_999].body)?;
    refused["latency_ms"] = 777_777.into();
    let refused = refused.to_string();
    let mut text = format!("{refused}\n").into_bytes();
    text.resize(text.len() + 17 * 1024 * 1024, b'x');
    text.push(b'\n');
    text.extend(lines(&events[2_998..]));
    let file = folder.write("refused.ndjson", &text)?;
    let said = run(&platform, &["import", "--rejected", &rejected, &file]).await?;
    ensure!(tally(&said)? == (2, 0, 2), "{said:#?}");
    said.with_code(3)?;
    let records = records(&rejected)?;
    ensure!(
        records[0]["line"] == 1
            && records[0]["reason"] == "refused_by_database"
            && records[0]["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("no_seven"))
            && records[0]["body"].as_str() == Some(&*refused),
        "{records:#?}"
    );
    ensure!(
        records[1]["line"] == 2 && records[1]["reason"] == "too_long" && records[1].get("body").is_none(),
        "{}",
        records[1]
    );
    Ok(())
}
