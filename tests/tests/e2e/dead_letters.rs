//! The operator's work on dead letters.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::malformed::{self, Malformed};
use e2e::publisher::Queues;
use nix::sys::signal::Signal;
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::operator::{run, run_with, signal};
use crate::platform::{Flavor, Platform, setting};
use crate::rollups;

crate::in_both_flavors!(
    letters_are_listed_shown_and_exported_to_the_byte,
    replayed_letters_count_once_like_any_other,
    replays_and_ingest_at_once_count_once,
    a_replay_that_is_cut_short_is_finished_by_the_next,
    a_database_that_is_busy_is_waited_for,
    letters_are_forgotten_after_their_own_retention,
    letters_tell_whose_money_is_missing_and_totals_can_be_recomputed,
);

fn generator(seed: u64) -> Generator {
    let end = OffsetDateTime::now_utc();
    Generator::new(&Shape {
        seed,
        organizations: 5,
        start: end - Duration::days(20),
        end,
    })
}

/// Puts messages into the table as an earlier, more narrow-minded worker would have.
async fn keep(platform: &Platform, bodies: &[Vec<u8>], reason: &str) -> Result<()> {
    platform
        .owner
        .execute(
            "INSERT INTO dead_letters (queue, body, headers, reason, detail) \
             SELECT 'usage-events', body, '{}', $2, 'by an earlier worker' FROM unnest($1::bytea[]) AS body",
            &[&bodies, &reason],
        )
        .await?;
    Ok(())
}

/// All twenty kinds of malformed messages, as the worker keeps them.
async fn with_malformed(flavor: Flavor) -> Result<(Platform, Vec<Malformed>)> {
    let platform = Platform::new(flavor).await?;
    let mut worker = platform.worker(&[]).await?;
    let messages = malformed::twenty(OffsetDateTime::now_utc());
    platform
        .publisher()
        .await?
        .publish(messages.iter().map(|message| &message.body))
        .await?;
    platform.wait_stored(0, 20).await?;
    worker.terminate(std::time::Duration::from_secs(20)).await?;
    Ok((platform, messages))
}

fn lines(said: &str) -> Result<Vec<Value>> {
    said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// The body of an exported line.
fn body(line: &Value) -> Result<Vec<u8>> {
    match (line.get("body"), line.get("body_base64")) {
        (Some(text), None) => Ok(text.as_str().context("a text")?.as_bytes().to_vec()),
        (None, Some(coded)) => from_base64(coded.as_str().context("a text")?),
        other => anyhow::bail!("{other:?}"),
    }
}

/// Not the library that wrote it.
fn from_base64(text: &str) -> Result<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = DIGITS
            .iter()
            .position(|known| *known == digit)
            .context("a digit")?;
        held = held << 6 | u32::try_from(value)?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff)?);
        }
    }
    Ok(bytes)
}

async fn letters_are_listed_shown_and_exported_to_the_byte(flavor: Flavor) -> Result<()> {
    let (platform, messages) = with_malformed(flavor).await?;

    let listed = run(&platform, &["dead-letters", "list", "--json"])
        .await?
        .json()?;
    ensure!(listed["matching"] == 20, "{listed}");
    let letters = listed["dead_letters"].as_array().context("letters")?;
    ensure!(letters.len() == 20);
    let said = run(
        &platform,
        &[
            "dead-letters",
            "list",
            "--reason",
            "missing_field",
            "--limit",
            "1",
        ],
    )
    .await?
    .with_code(0)?;
    ensure!(
        said.contains("missing_field") && said.contains("1 of 2 dead letters"),
        "{said}"
    );
    let reasons = run(&platform, &["dead-letters", "list", "--by-reason", "--json"])
        .await?
        .json()?;
    ensure!(
        reasons["reasons"].as_array().context("reasons")?.len() == 20,
        "{reasons}"
    );
    let said = run(&platform, &["dead-letters", "list", "--by-reason"])
        .await?
        .with_code(0)?;
    ensure!(said.contains("total_mismatch"), "{said}");

    let exported = lines(&run(&platform, &["dead-letters", "export"]).await?.with_code(0)?)?;
    let mut by_body: HashMap<Vec<u8>, &Value> = HashMap::new();
    for line in &exported {
        by_body.insert(body(line)?, line);
    }
    ensure!(exported.len() == 20 && by_body.len() == 20);
    for message in &messages {
        let line = by_body
            .get(&message.body)
            .with_context(|| format!("{} is not exported", message.what))?;
        ensure!(line["reason"] == message.reason && line["field"].as_str() == message.field);
        ensure!(line["headers"]["content_type"] == "application/json" && line["queue"] == *platform.queue);
        // Alone as well.
        let id = line["id"].to_string();
        let shown = run(&platform, &["dead-letters", "show", &id, "--json"])
            .await?
            .json()?;
        ensure!(shown == **line, "{shown} {line}");
    }
    ensure!(
        exported
            .iter()
            .filter(|line| line.get("body_base64").is_some())
            .count()
            == 1
    );
    let steering = by_body[&messages[1].body]["id"].to_string();
    let shown = run(&platform, &["dead-letters", "show", &steering])
        .await?
        .with_code(0)?;
    ensure!(shown.contains("still none: invalid_utf8"), "{shown}");

    // Selections by time, and those that match nothing.
    let now = OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339)?;
    let today = run(&platform, &["dead-letters", "export", "--until", &now])
        .await?
        .with_code(0)?;
    ensure!(lines(&today)?.len() == 20);
    for nothing in [
        &["dead-letters", "list", "--since", &now][..],
        &["dead-letters", "export", "--reason", "nonsense"],
        &["dead-letters", "replay", "--until", "2020-01-01"],
    ] {
        let said = run(&platform, nothing).await?;
        ensure!(
            said.err.contains("no dead letter matches") && said.code == Some(0) && said.out.is_empty(),
            "{said:?}"
        );
    }
    let absent = run(&platform, &["dead-letters", "show", "999999"]).await?;
    ensure!(
        absent.code == Some(1) && absent.err.contains("no dead letter 999999"),
        "{absent:?}"
    );
    // Whoever means all of them says so.
    for misunderstood in [
        &["dead-letters", "replay"][..],
        &["dead-letters", "replay", "--all", "--reason", "empty_body"],
        &["dead-letters", "list", "--since", "yesterday"],
    ] {
        run(&platform, misunderstood).await?.with_code(2)?;
    }
    Ok(())
}

async fn replayed_letters_count_once_like_any_other(flavor: Flavor) -> Result<()> {
    let (platform, _) = with_malformed(flavor).await?;
    let events: Vec<Event> = generator(51).take(1_500).collect();
    let bodies: Vec<Vec<u8>> = events.iter().map(|event| event.body.clone()).collect();
    keep(&platform, &bodies, "wrong_type").await?;
    // Some are stored already, and two that differ in a field that is none are the same event.
    let _worker = platform.worker(&[]).await?;
    platform.publisher().await?.publish(&bodies[..300]).await?;
    platform.wait_stored(300, 1_520).await?;
    let twin = String::from_utf8(bodies[1_000].clone())?.replacen('{', "{\"twin\":1,", 1);
    keep(&platform, &[twin.into_bytes()], "wrong_type").await?;
    // One that only the database refuses, before another of the same key that it does not.
    platform
        .owner
        .batch_execute(
            "ALTER TABLE usage_events ADD CONSTRAINT no_seven CHECK (latency_ms IS DISTINCT FROM 777777)",
        )
        .await?;
    let mut refused: Value = serde_json::from_slice(&generator(52).next().context("an event")?.body)?;
    let accepted = refused.to_string().into_bytes();
    refused["latency_ms"] = 777_777.into();
    let refused = refused.to_string().into_bytes();
    keep(&platform, &[refused.clone(), accepted], "wrong_type").await?;
    let letters = "SELECT count(*) FROM dead_letters";
    ensure!(platform.count(letters).await? == 1_523);

    let forecast = run(&platform, &["dead-letters", "replay", "--all", "--dry-run"]).await?;
    ensure!(
        forecast.number("would be recognised as stored before")? == 302,
        "{forecast:#?}"
    );
    ensure!(forecast.number("would be stored")? == 1_201 && forecast.number("still no events")? == 20);
    ensure!(platform.count(letters).await? == 1_523);
    platform.wait_stored(300, 1_523).await?;

    // By reason: the others are not touched.
    let said = run(&platform, &["dead-letters", "replay", "--reason", "wrong_type"]).await?;
    ensure!(said.number("stored")? == 1_201, "{said:#?}");
    ensure!(said.number("recognised as stored before")? == 301 && said.number("still no events")? == 2);
    said.with_code(3)?;
    platform.wait_stored(1_501, 21).await?;
    let news = platform
        .owner
        .query_one(
            "SELECT reason, detail FROM dead_letters WHERE body = $1",
            &[&refused],
        )
        .await?;
    ensure!(news.get::<_, &str>(0) == "refused_by_database" && news.get::<_, &str>(1).contains("no_seven"));
    rollups::assert_equal_raw(&platform).await?;

    // What was too early is accepted once its time has come; the rule of the database is gone.
    platform
        .owner
        .batch_execute("ALTER TABLE usage_events DROP CONSTRAINT no_seven")
        .await?;
    let said = run(
        &platform,
        &["dead-letters", "replay", "--reason", "refused_by_database"],
    )
    .await?;
    ensure!(said.number("recognised as stored before")? == 1, "{said:#?}");
    said.with_code(0)?;
    let said = run(&platform, &["dead-letters", "replay", "--all"]).await?;
    ensure!(said.number("still no events")? == 20, "{said:#?}");
    said.with_code(3)?;
    platform.wait_stored(1_501, 20).await?;
    rollups::assert_equal_raw(&platform).await
}

async fn replays_and_ingest_at_once_count_once(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let events: Vec<Event> = generator(53).take(6_000).collect();
    let bodies: Vec<Vec<u8>> = events.iter().map(|event| event.body.clone()).collect();
    keep(&platform, &bodies, "wrong_type").await?;
    let _worker = platform.worker(&[]).await?;
    let publisher = platform.publisher().await?;
    let replay = || run(&platform, &["dead-letters", "replay", "--all"]);
    let (one, other, published) = tokio::join!(replay(), replay(), publisher.publish(bodies.iter().rev()));
    ensure!(published? == 6_000);
    for said in [one?, other?] {
        ensure!(
            said.number("stored")? + said.number("recognised as stored before")? <= 6_000,
            "{said:#?}"
        );
        said.with_code(0)?;
    }
    platform.wait_stored(6_000, 0).await?;
    let queues = Queues::connect(&setting("E2E_RABBITMQ_URL")?).await?;
    queues
        .wait_ready(&platform.queue, 0, std::time::Duration::from_secs(30))
        .await?;
    rollups::assert_equal_raw(&platform).await
}

/// The moment between the commit of the events and the end of their letters is held open by a lock.
async fn a_replay_that_is_cut_short_is_finished_by_the_next(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let events: Vec<Event> = generator(54).take(500).collect();
    let bodies: Vec<Vec<u8>> = events.iter().map(|event| event.body.clone()).collect();
    keep(&platform, &bodies, "wrong_type").await?;
    let lock = e2e::servers::connect(&platform.owner_url()?).await?;
    lock.batch_execute("BEGIN; SELECT FROM dead_letters ORDER BY id DESC LIMIT 1 FOR UPDATE")
        .await?;
    let mut replay = platform
        .operator(&["dead-letters", "replay", "--all"], &[])?
        .spawn()?;
    platform.wait_stored(500, 500).await?;
    platform.wait_for_a_lock_waiter().await?;
    replay.kill().await?;
    // A session that waits does not notice that its client is gone.
    platform
        .owner
        .batch_execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await?;
    lock.batch_execute("COMMIT").await?;
    ensure!(platform.count("SELECT count(*) FROM dead_letters").await? == 500);
    let said = run(&platform, &["dead-letters", "replay", "--all"]).await?;
    ensure!(
        said.number("stored")? == 0 && said.number("recognised as stored before")? == 500,
        "{said:#?}"
    );
    platform.wait_stored(500, 0).await?;
    rollups::assert_equal_raw(&platform).await?;
    Ok(())
}

/// A lock of somebody else's that is waited for: first beyond the session's patience, then until asked to
/// stop.
async fn a_database_that_is_busy_is_waited_for(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let bodies: Vec<Vec<u8>> = generator(55).take(10).map(|event| event.body).collect();
    keep(&platform, &bodies, "wrong_type").await?;
    let impatient = format!("{}?options=-c%20lock_timeout%3D50ms", platform.owner_url()?);
    let lock = e2e::servers::connect(&platform.owner_url()?).await?;
    lock.batch_execute("BEGIN; LOCK TABLE dead_letters").await?;
    let mut replay = platform
        .operator(
            &["dead-letters", "replay", "--all"],
            &[("MAINTENANCE_DATABASE_URL", &impatient)],
        )?
        .spawn()?;
    let mut said = BufReader::new(replay.stderr.take().context("stderr")?).lines();
    loop {
        let line = said.next_line().await?.context("it ended")?;
        if line.contains("counting dead letters failed; trying again") && line.contains("55P03") {
            break;
        }
    }
    lock.batch_execute("COMMIT").await?;
    ensure!(replay.wait().await?.success());
    platform.wait_stored(10, 0).await?;

    keep(&platform, &bodies, "wrong_type").await?;
    lock.batch_execute("BEGIN; LOCK TABLE dead_letters").await?;
    let replay = platform
        .operator(&["dead-letters", "replay", "--all"], &[])?
        .spawn()?;
    platform.wait_for_a_lock_waiter().await?;
    signal(&replay, Signal::SIGINT)?;
    let output = replay.wait_with_output().await?;
    lock.batch_execute("COMMIT").await?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(130) && words.contains("run it again to go on"),
        "{:?} {words}",
        output.status
    );
    ensure!(platform.count("SELECT count(*) FROM dead_letters").await? == 10);
    Ok(())
}

async fn letters_are_forgotten_after_their_own_retention(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    platform
        .owner
        .batch_execute(
            "INSERT INTO dead_letters (received_at, queue, body, headers, reason, detail) \
             SELECT now() - make_interval(days => CASE WHEN n <= 5100 THEN 31 ELSE 29 END), 'q', n::text::bytea, '{}', \
             'not_an_object', 'd' FROM generate_series(1, 5110) AS n",
        )
        .await?;
    let said = platform.maintain().await?;
    ensure!(said.contains("0 dead letters dropped after 90 days"), "{said}");
    let said = platform
        .command(&["maintain"], &[("DEAD_LETTER_RETENTION_DAYS", "30")])
        .await?;
    ensure!(said.contains("5100 dead letters dropped after 30 days"), "{said}");
    ensure!(platform.count("SELECT count(*) FROM dead_letters").await? == 10);
    let refused = run_with(
        &platform,
        &["dead-letters", "list"],
        &[("DEAD_LETTER_RETENTION_DAYS", "0")],
        None,
    )
    .await?;
    ensure!(
        refused.code == Some(1) && refused.err.contains("DEAD_LETTER_RETENTION_DAYS is not valid"),
        "{refused:?}"
    );
    Ok(())
}

/// A producer that counts reasoning tokens into the total: found by organization, and stored on an operator's word.
async fn letters_tell_whose_money_is_missing_and_totals_can_be_recomputed(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let mut worker = platform.worker(&[]).await?;
    let org = uuid::Uuid::new_v4();
    let body = |tokens: i32| {
        let mut event: Value = serde_json::json!({
            "time": OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339)?,
            "org_id": org, "model": "thinker", "input_tokens": 32, "output_tokens": 9, "total_tokens": 135,
            "cost": "0.5", "status": "success", "error_message": "half an emoji: %",
        });
        for name in ["event_id", "user_id", "api_key_id"] {
            event[name] = uuid::Uuid::new_v4().to_string().into();
        }
        event["output_tokens"] = tokens.into();
        anyhow::Ok(event.to_string().replace('%', "\\ud83d").into_bytes())
    };
    // The last one adds up.
    let bodies = [body(9)?, body(10)?, body(103)?];
    let publisher = platform.publisher().await?;
    publisher.publish(&bodies).await?;
    publisher.publish([b"nobody's".to_vec()]).await?;
    platform.wait_stored(1, 3).await?;
    ensure!(
        worker
            .metric("usage_ingest_texts_mended_total{field=\"error_message\"}")
            .await?
            == 1.0
    );
    ensure!(worker.metric("usage_ingest_deliveries_read_total").await? == 4.0);
    worker.terminate(std::time::Duration::from_secs(20)).await?;
    let said = run(
        &platform,
        &["dead-letters", "list", "--by-organization", "--json"],
    )
    .await?;
    let listed: Value = serde_json::from_str(&said.out)?;
    let organizations = listed["organizations"].as_array().context("organizations")?;
    let first = &organizations[0];
    ensure!(
        first["org_id"] == org.to_string() && first["model"] == "thinker" && first["count"] == 2,
        "{listed}"
    );
    ensure!(
        first["reason"] == "total_mismatch" && organizations.len() == 2,
        "{listed}"
    );
    ensure!(
        organizations[1]["org_id"].is_null() && organizations[1]["count"] == 1,
        "{listed}"
    );
    let replay = ["dead-letters", "replay", "--reason", "total_mismatch"];
    let said = run(&platform, &replay).await?;
    ensure!(said.code == Some(3) && said.number("stored")? == 0, "{said:#?}");
    let said = run(&platform, &[&replay[..], &["--recompute-total"]].concat()).await?;
    ensure!(said.code == Some(0) && said.number("stored")? == 2, "{said:#?}");
    platform.wait_stored(3, 1).await?;
    let stored =
        "SELECT sum(total_tokens)::bigint FROM usage_events WHERE error_message = 'half an emoji: \u{fffd}'";
    ensure!(platform.count(stored).await? == 41 + 42 + 135);
    rollups::assert_equal_raw(&platform).await
}
