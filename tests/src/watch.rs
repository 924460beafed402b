//! Asks the API all the time, as dashboards do: while servers come and go, it may say that it cannot
//! answer, but soon, and it may never say anything wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, Time};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api::{Client, buckets, measures};
use crate::truth::Measures;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(150);
/// Within what time it must say that it cannot answer: a second, and what a busy machine adds.
pub const REFUSES_WITHIN: Duration = Duration::from_millis(1_700);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Answers.
    pub answers: u64,
    /// Questions that were answered by a 503.
    pub refusals: u64,
    /// The longest time until a refusal.
    pub slowest_refusal: Duration,
    /// The totals of the closed days in the last answer.
    pub last: Measures,
    /// The midnight before which days were closed then.
    pub until: Option<OffsetDateTime>,
    /// The first thing that must not be.
    pub wrong: Option<String>,
}

/// Asks until it is told to stop.
pub struct Watch {
    stop: watch::Sender<bool>,
    task: JoinHandle<Seen>,
}

impl Watch {
    /// Starts to ask for the days before today, which are closed: their totals may grow, by late events,
    /// and never shrink.
    pub fn start(client: Client) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self {
            stop,
            task: tokio::spawn(run(Arc::new(client), stopped)),
        }
    }

    /// Stops, and returns what was seen.
    pub async fn finish(self) -> Result<Seen> {
        self.stop.send_replace(true);
        let seen = self.task.await.context("the watch ended by a panic")?;
        match &seen.wrong {
            Some(wrong) => anyhow::bail!("the API while it was watched: {wrong}"),
            None => Ok(seen),
        }
    }
}

async fn run(client: Arc<Client>, mut stopped: watch::Receiver<bool>) -> Seen {
    let mut seen = Seen::default();
    while !*stopped.borrow_and_update() {
        if let Err(error) = ask(&client, &mut seen).await {
            seen.wrong = Some(format!("{error:#}"));
            return seen;
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

async fn ask(client: &Client, seen: &mut Seen) -> Result<()> {
    let today = OffsetDateTime::now_utc().replace_time(Time::MIDNIGHT);
    let (from, until) = (
        (today - time::Duration::days(5)).format(&Rfc3339)?,
        today.format(&Rfc3339)?,
    );
    let began = Instant::now();
    let (status, answer) = client
        .ask("system/usage", &[("start_time", &from), ("end_time", &until)])
        .await?;
    let took = began.elapsed();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        seen.refusals += 1;
        seen.slowest_refusal = seen.slowest_refusal.max(took);
        ensure!(took <= REFUSES_WITHIN, "it took {took:?} to say 503");
        return Ok(());
    }
    ensure!(status == StatusCode::OK, "{status}: {answer}");
    let totals = measures(&answer["totals"])?;
    let mut sum = Measures::default();
    for measures in buckets(&answer)?.values() {
        sum.requests += measures.requests;
        sum.cost_e10 += measures.cost_e10;
        sum.total_tokens += measures.total_tokens;
    }
    ensure!(
        (sum.requests, sum.cost_e10, sum.total_tokens)
            == (totals.requests, totals.cost_e10, totals.total_tokens),
        "rows add up to {sum:?}, totals are {totals:?}"
    );
    if seen.until.replace(today) != Some(today) {
        // Other days than before.
        seen.last = Measures::default();
    }
    let last = &seen.last;
    ensure!(
        totals.requests >= last.requests
            && totals.errors >= last.errors
            && totals.total_tokens >= last.total_tokens
            && totals.cost_e10 >= last.cost_e10,
        "closed days went down from {last:?} to {totals:?}"
    );
    seen.last = totals;
    seen.answers += 1;
    Ok(())
}
