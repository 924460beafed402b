//! What producers do: repeats in any order, one event in many spellings, floods of what is none, events
//! that are late, early or exactly on an edge.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::flow::Load;
use e2e::generator::{Event, Generator, Shape};
use e2e::malformed::Malformed;
use e2e::raw;
use e2e::servers::MAX_MESSAGE_BYTES;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, Time, UtcOffset};

use crate::ground::Flavor;
use crate::scene::Scene;
use crate::worker::DUPLICATES;

crate::in_both_flavors!(;
    once: one_to_five_times_in_other_orders_to_several_workers,
    one_event_in_many_spellings_and_one_id_at_two_times;
    slow: floods_of_malformed_messages,
    events_on_every_boundary,
    late_early_and_into_compressed_chunks,
    headers_as_deep_as_a_frame,
    more_large_messages_than_memory,
);

fn shuffle<T>(items: &mut [T], scene: &mut Scene) {
    for i in (1..items.len()).rev() {
        let other = usize::try_from(scene.random.below(i as u64 + 1)).unwrap_or(i);
        items.swap(i, other);
    }
}

async fn one_to_five_times_in_other_orders_to_several_workers(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::calm(flavor, "1 to 5 times to 3 workers").await?;
    for _ in 0..3 {
        scene
            .start_worker(&[("BATCH_SIZE", "300"), ("PREFETCH", "200")])
            .await?;
    }
    let events = scene.events(6_000);
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for event in &events {
        for _ in 0..=scene.random.below(5) {
            bodies.push(event.body.clone());
        }
    }
    shuffle(&mut bodies, &mut scene);
    scene.publisher().await?.publish(&bodies).await?;
    scene.more.events.extend(events);
    let published = scene.end_of_flow().await?;
    scene.wait_all_stored(&published).await?;
    scene.more = published;
    scene.recovered().await?;
    for worker in &scene.workers {
        let duplicates = worker.metric(DUPLICATES).await?;
        scene.proof.add("duplicates that a worker met", duplicates);
    }
    scene.verdict().await
}

/// A body as it would be written by a producer that spells one of its texts in another way.
fn respelled(event: &Event, field: &str, spelling: &str) -> Result<Vec<u8>> {
    let mut body: Value = serde_json::from_slice(&event.body)?;
    body[field] = spelling.into();
    // The cost keeps its text: through a float it would be another number.
    let cost = &e2e::generator::decimal::text(event.fact.cost_e10);
    body["cost"] = cost.as_str().into();
    Ok(body.to_string().into_bytes())
}

async fn one_event_in_many_spellings_and_one_id_at_two_times(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "spellings, and one id at two times").await?;
    let mut bodies = Vec::new();
    let mut events = scene.events(300);
    for event in &events {
        let nanos = i128::from(event.fact.time_us) * 1_000;
        let exact = OffsetDateTime::from_unix_timestamp_nanos(nanos)?;
        let longer = OffsetDateTime::from_unix_timestamp_nanos(nanos + 999)?;
        for minutes in [0, 330, -720, 845] {
            let offset = UtcOffset::from_whole_seconds(minutes * 60)?;
            for time in [exact, longer] {
                bodies.push(respelled(
                    event,
                    "time",
                    &time.to_offset(offset).format(&Rfc3339)?,
                )?);
            }
        }
        for (field, id) in [
            ("event_id", event.fact.event_id),
            ("org_id", event.fact.org_id),
            ("user_id", event.fact.user_id),
        ] {
            bodies.push(respelled(event, field, &id.to_string().to_uppercase())?);
        }
    }
    // The same id at another time is another event; that it is suspicious is for `reconcile` to say.
    let mut others = Vec::new();
    for event in &events {
        let mut other = event.clone();
        other.fact.time_us -= 1;
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(other.fact.time_us) * 1_000)?;
        other.body = respelled(event, "time", &time.format(&Rfc3339)?)?;
        bodies.push(other.body.clone());
        others.push(other);
    }
    events.extend(others);
    shuffle(&mut bodies, &mut scene);
    scene.publisher().await?.publish(&bodies).await?;
    scene.more.events.extend(events);
    scene.recovered().await?;
    let published = scene.end_of_flow().await?;
    scene.wait_all_stored(&published).await?;
    scene.more = published;
    let duplicates = scene.metric(DUPLICATES).await?;
    scene
        .proof
        .add("spellings of what was stored already", duplicates);
    scene.verdict().await
}

fn malformed(what: &'static str, body: Vec<u8>, reason: &'static str) -> Malformed {
    Malformed {
        what,
        body,
        reason,
        field: None,
    }
}

async fn floods_of_malformed_messages(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::calm(flavor, "floods of malformed messages").await?;
    scene.start_worker(&[]).await?;
    // Nothing but, then one in ten, then nearly none.
    for malformed_one_in in [1, 10, 5_000] {
        scene.start_flow(Load {
            malformed_one_in,
            ..Load::of(scene.seed() + malformed_one_in)
        });
        tokio::time::sleep(Duration::from_secs(4)).await;
        let part = scene.end_of_flow().await?;
        scene.proof.add("events and malformed messages", {
            (part.events.len() + part.malformed.len()) as f64
        });
        scene.more = part;
    }
    // The largest that the broker takes, the deepest, the emptiest.
    let extremes = vec![
        malformed("1 MiB of x", vec![b'x'; MAX_MESSAGE_BYTES], "invalid_json"),
        malformed(
            "half a million brackets",
            vec![b'['; MAX_MESSAGE_BYTES / 2],
            "invalid_json",
        ),
        malformed(
            "deep objects",
            "{\"a\":".repeat(100_000).into_bytes(),
            "invalid_json",
        ),
        malformed("1 MiB of NUL", vec![0; MAX_MESSAGE_BYTES], "invalid_json"),
        malformed("1 MiB of no UTF-8", vec![0xff; MAX_MESSAGE_BYTES], "invalid_utf8"),
    ];
    let publisher = scene.publisher().await?;
    for _ in 0..5 {
        publisher
            .publish(extremes.iter().map(|message| &message.body))
            .await?;
    }
    scene.more.malformed.extend(extremes);
    // A good one as large as it may be, among them.
    let mut large = scene.events(1).remove(0);
    let words = "w".repeat(MAX_MESSAGE_BYTES - 2_000);
    large.body = respelled(&large, "error_message", &words)?;
    large.fact.error_message = Some(words);
    publisher.publish([&large.body]).await?;
    scene.more.events.push(large);
    scene.recovered().await?;
    scene.verdict().await
}

/// Microseconds around every hour of the last 80 days, the two days of the year among them whose local
/// hours are 23 or 25, and around every quarter of an hour of the last two.
async fn events_on_every_boundary(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::calm(flavor, "events on bucket boundaries").await?;
    scene.start_worker(&[]).await?;
    let now = OffsetDateTime::now_utc();
    let midnight = now.replace_time(Time::MIDNIGHT);
    let mut generator = Generator::new(&Shape {
        seed: scene.seed(),
        organizations: 4,
        start: midnight - time::Duration::days(80),
        end: now,
    });
    let mut events = Vec::new();
    let hours = (0..80 * 24).map(|hour| midnight - time::Duration::hours(hour));
    let quarters = (0..48 * 4).map(|quarter| midnight - time::Duration::minutes(15 * quarter));
    for boundary in hours.chain(quarters) {
        for off in [-1, 0, 1] {
            events.push(generator.at(boundary + time::Duration::microseconds(off)));
        }
    }
    let mut order: Vec<usize> = (0..events.len()).collect();
    shuffle(&mut order, &mut scene);
    let publisher = scene.publisher().await?;
    publisher
        .publish(order.iter().map(|place| &events[*place].body))
        .await?;
    scene.proof.add("events on a boundary", (events.len() / 3) as f64);
    scene.more.events.extend(events);
    scene.recovered().await?;
    scene.verdict().await
}

async fn late_early_and_into_compressed_chunks(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::calm(flavor, "late, early, and into compressed chunks").await?;
    scene.start_worker(&[]).await?;
    let now = OffsetDateTime::now_utc();
    let mut generator = Generator::new(&Shape {
        seed: scene.seed(),
        organizations: 6,
        start: now - time::Duration::days(88),
        end: now,
    });
    let publisher = scene.publisher().await?;
    let mut compressed = 0;
    for round in 0..3 {
        let mut events: Vec<Event> = generator.by_ref().take(3_000).collect();
        // Producers' clocks are ahead, by less than is refused.
        events.extend((0..50).map(|n| generator.at(now + time::Duration::seconds(n * 9))));
        shuffle(&mut events, &mut scene);
        publisher.publish(events.iter().map(|event| &event.body)).await?;
        scene.more.events.extend(events);
        scene.recovered().await?;
        let said = scene.maintain().await?;
        if flavor == Flavor::TimescaleDb {
            compressed = scene
                .count("SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed")
                .await?;
            ensure!(compressed > 60, "round {round}: {compressed} chunks; {said}");
        }
    }
    scene.proof.add("late events", 9_000.0);
    if flavor == Flavor::TimescaleDb {
        scene.proof.add("compressed chunks", compressed as f64);
    }
    // Repeats of what is compressed by now must be recognised there.
    let repeats: Vec<Vec<u8>> = scene
        .more
        .events
        .iter()
        .step_by(3)
        .map(|event| event.body.clone())
        .collect();
    publisher.publish(&repeats).await?;
    scene.recovered().await?;
    // The event of that may have overtaken them in another lane: what is compressed takes longer.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut recognised = 0.0;
    while recognised < repeats.len() as f64 {
        ensure!(
            Instant::now() < deadline,
            "{recognised} of {} repeats were recognised",
            repeats.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
        recognised = scene.metric(DUPLICATES).await?;
    }
    scene.proof.add("repeats that were recognised", recognised);
    scene.workers.first().context("a worker runs")?;
    scene.verdict().await
}

/// Nested headers that end a client's stack, in the middle of good messages, to three workers.
async fn headers_as_deep_as_a_frame(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "nested headers").await?;
    scene.start_worker(&[]).await?;
    scene.start_worker(&[]).await?;
    let (url, queue) = (scene.ground.rabbitmq().url(), scene.queue.clone());
    let (deep, deepest) = (raw::nested_tables(10_000), raw::deepest_arrays());
    // The broker itself takes seconds for each.
    let events = scene.events(5);
    for event in events {
        raw::publish(&url, &queue, &deep, &event.body).await?;
        raw::publish(&url, &queue, &deepest, &event.body).await?;
        scene.more.events.push(event);
        scene.proof.add("nested headers", 2.0);
    }
    scene.recovered().await?;
    scene.verdict().await
}

/// Gigabytes of messages in two sizes: the window shrinks to what fits and grows again, and nobody is killed.
async fn more_large_messages_than_memory(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::calm(flavor, "large messages").await?;
    let broker = scene.ground.rabbitmq();
    broker
        .ctl(&["eval", "application:set_env(rabbit, max_message_size, 16777216)."])
        .await?;
    // It declares the queue, with a delivery limit.
    scene.start_worker(&[]).await?;
    scene.workers.remove(0).terminate(Duration::from_secs(11)).await?;
    // Made at once, so that they are of few organizations. A third has no error_message, not even null.
    let mut events = scene.events(120_000);
    events.retain(|event| !event.body.windows(13).any(|part| part == b"error_message"));
    let mut bytes = 0;
    // The window begins narrow and widens twice.
    for (count, together, size, field) in [
        (300, 20, 4 << 20, "note"),
        (20_000, 500, 64 << 10, "error_message"),
        (5_000, 1_000, 10, "note"),
    ] {
        let publisher = scene.publisher().await?;
        let mut left = count;
        while left > 0 {
            let part = events.split_off(events.len() - together.min(left));
            left -= part.len();
            let bodies = part.iter().map(|event| with_text(&event.body, field, size));
            publisher.publish(bodies).await?;
            bytes += part.len() * size;
            for mut event in part {
                if field == "error_message" {
                    event.fact.error_message = Some(format!("{}…", "x".repeat(7_999)));
                }
                event.body = Vec::new();
                scene.more.events.push(event);
            }
        }
    }
    scene.proof.add("MiB beyond 256", (bytes >> 20) as f64 - 256.0);
    scene.start_worker(&[]).await?;
    scene.memory = 256 << 20;
    let published = scene.end_of_flow().await?;
    scene.wait_all_stored(&published).await?;
    scene.more = published;
    let peak = scene.workers[0].peak_rss_bytes().context("it runs")?;
    ensure!(peak < 256 << 20, "it took {} MiB", peak >> 20);
    e2e::progress::say(format_args!("large messages: {} MiB", peak >> 20));
    scene.verdict().await
}

/// A body with one more field.
fn with_text(body: &[u8], field: &str, size: usize) -> Vec<u8> {
    let end = body.iter().rposition(|byte| *byte == b'}').unwrap_or(0);
    let text = format!(",\"{field}\":\"{}\"", "x".repeat(size));
    [&body[..end], text.as_bytes(), &body[end..]].concat()
}
