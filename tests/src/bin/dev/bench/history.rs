//! A history to ask about, straight into the schema: COPY through the table and its triggers, by as many connections as
//! keep two cores busy, and checked before anything is timed.

use std::fmt::Write as _;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::generator::{Fact, Generator, Shape, decimal};
use e2e::servers::connect;
use futures_util::SinkExt as _;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_postgres::Client;

/// Events of one transaction: the more, the fewer rows of rollups are written twice.
const PART: usize = 50_000;
const WRITERS: usize = 2;

const COPY: &str = "COPY usage_events (time, event_id, org_id, user_id, api_key_id, model_name, input_tokens, \
    output_tokens, total_tokens, cost, latency_ms, status, request_id, cached_input_tokens, reasoning_tokens) FROM STDIN";

/// Stores so many events, nearly in the order of their times.
pub(crate) async fn load(url: &str, shape: Shape, events: usize) -> Result<()> {
    let (parts, waiting) = mpsc::channel::<Vec<Fact>>(2 * WRITERS);
    let waiting = Arc::new(Mutex::new(waiting));
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let client = connect(url).await?;
        // What is lost with the machine is loaded again.
        client.batch_execute("SET synchronous_commit = off").await?;
        let waiting = Arc::clone(&waiting);
        writers.spawn(async move {
            loop {
                let part = waiting.lock().await.recv().await;
                match part {
                    Some(part) => copy(&client, part).await?,
                    None => return anyhow::Ok(()),
                }
            }
        });
    }
    let generating = tokio::task::spawn_blocking(move || {
        let mut generator = Generator::new(&shape);
        let mut stream = generator.in_order(events).map(|event| event.fact);
        loop {
            let part: Vec<Fact> = stream.by_ref().take(PART).collect();
            if part.is_empty() || parts.blocking_send(part).is_err() {
                return;
            }
        }
    });
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(generating.await?)
}

async fn copy(client: &Client, mut part: Vec<Fact>) -> Result<()> {
    // Two writers lock the same rows in one order.
    part.sort_unstable_by_key(|fact| (fact.org_id, fact.time_us, fact.event_id));
    let mut lines = String::with_capacity(part.len() * 256);
    for fact in &part {
        line(&mut lines, fact)?;
    }
    let mut sink = pin!(client.copy_in(COPY).await?);
    sink.send(std::io::Cursor::new(lines.into_bytes())).await?;
    let stored = sink.finish().await?;
    ensure!(
        stored == part.len() as u64,
        "{stored} of {} were stored",
        part.len()
    );
    Ok(())
}

/// Models and statuses of the generator have nothing to escape; error messages are left out.
fn line(lines: &mut String, fact: &Fact) -> Result<()> {
    let null = |number: Option<i32>| number.map_or("\\N".to_owned(), |number| number.to_string());
    let seconds = fact.time_us.div_euclid(1_000_000);
    let time = time::OffsetDateTime::from_unix_timestamp(seconds)?;
    writeln!(
        lines,
        "{} {}.{:06}Z\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
        time.date(),
        time.time().to_string().split('.').next().context("a time")?,
        fact.time_us.rem_euclid(1_000_000),
        fact.event_id,
        fact.org_id,
        fact.user_id,
        fact.api_key_id,
        fact.model,
        fact.input_tokens,
        fact.output_tokens,
        i64::from(fact.input_tokens) + i64::from(fact.output_tokens),
        decimal::text(fact.cost_e10),
        null(fact.latency_ms),
        fact.status,
        fact.request_id.as_deref().unwrap_or("\\N"),
        null(fact.cached_input_tokens),
        null(fact.reasoning_tokens)
    )?;
    Ok(())
}

/// Each rollup has the events' sums.
pub(crate) async fn check(client: &Client) -> Result<()> {
    let raw = "SELECT count(*)::numeric, sum(input_tokens + output_tokens)::numeric, (sum(cost) * 10000000000)::numeric(40) \
               FROM usage_events";
    let events = sums(client, raw).await?;
    let rollups = client
        .query(
            "SELECT replace(rung, 'closed_', 'usage_') FROM ladder ORDER BY place",
            &[],
        )
        .await?;
    for row in rollups {
        let rollup: &str = row.get(0);
        let kept = format!(
            "SELECT sum(request_count), sum(total_input_tokens + total_output_tokens), sum(total_cost_e10)::numeric(40) FROM {rollup}"
        );
        let found = sums(client, &kept).await?;
        ensure!(found == events, "{rollup} has {found:?}, the events {events:?}");
    }
    Ok(())
}

async fn sums(client: &Client, statement: &str) -> Result<[String; 3]> {
    let statement = format!("SELECT a::text, b::text, c::text FROM ({statement}) AS sums (a, b, c)");
    let row = client.query_one(&statement, &[]).await?;
    Ok([row.get(0), row.get(1), row.get(2)])
}

/// Bytes of all relations for each event.
pub(crate) async fn bytes_per_event(client: &Client, events: usize) -> Result<f64> {
    let bytes: i64 = client
        .query_one("SELECT pg_database_size(current_database())", &[])
        .await?
        .get(0);
    Ok(bytes as f64 / events as f64)
}
