//! Events as they happen, from what stands for the platform.
//!
//! Its broker and its publishers would have machines of their own. Here they share one with what is measured, and take
//! more of it than the worker and PostgreSQL together: the broker gives way to everything else, the publisher to what
//! is in its session, which is all but PostgreSQL. That events arrive and are stored all the same is counted.

use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::generator::{Generator, Shape};
use e2e::publisher::Publisher;
use e2e::servers::NICENESS_ASIDE;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use nix::unistd::gettid;
use serde::Serialize;
use time::OffsetDateTime;

/// Events per second.
pub(crate) const PER_SECOND: usize = 5_000;
/// Of which so many have to arrive, or what was measured was something else.
const AT_LEAST: f64 = 0.95;
/// And all have to be stored so long after the last one was published.
const BEHIND_AT_MOST: Duration = Duration::from_secs(1);

/// Events that arrived, in several phases.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct Arrived {
    pub(crate) events: usize,
    per_second: f64,
    seconds: f64,
    /// The longest time from the end of a phase until everything was stored.
    behind_seconds: f64,
}

impl Arrived {
    /// One more phase, and how long after its end everything was stored.
    pub(crate) fn add(&mut self, (events, took): (usize, Duration), behind: Duration) {
        self.events += events;
        self.seconds += took.as_secs_f64();
        self.per_second = self.events as f64 / self.seconds;
        self.behind_seconds = self.behind_seconds.max(behind.as_secs_f64());
    }

    /// Whether they are what was to arrive.
    pub(crate) fn is_enough(&self) -> bool {
        self.per_second >= AT_LEAST * PER_SECOND as f64 && self.behind_seconds <= BEHIND_AT_MOST.as_secs_f64()
    }
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{:.0} events/s arrive, all of them stored {:.2} s after the last one at the latest",
            if self.is_enough() { "" } else { "MISSED " },
            self.per_second,
            self.behind_seconds
        )
    }
}

/// Events of the same organizations, on a thread of their own.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    published: JoinHandle<Result<(usize, Duration)>>,
}

impl Load {
    /// Begins to publish; returns when it is connected.
    pub(crate) async fn start(url: &str, queue: &str, shape: Shape) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (url, queue) = (url.to_owned(), queue.to_owned());
        let (connected, connects) = tokio::sync::oneshot::channel();
        let published = thread::Builder::new().name("load".to_owned()).spawn(move || {
            step_aside()?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let publisher = Publisher::connect(&url, &queue).await?;
                let _ = connected.send(());
                publish(publisher, &shape, &stopped).await
            })
        })?;
        let load = Self { stop, published };
        match connects.await {
            Ok(()) => Ok(load),
            Err(_) => Err(load.stop().await.err().context("the load ended at once")?),
        }
    }

    /// Stops it; how many events it has published, and in what time.
    pub(crate) async fn stop(self) -> Result<(usize, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = tokio::task::spawn_blocking(|| self.published.join()).await?;
        joined.map_err(|_| anyhow!("the load panicked"))?
    }
}

/// The priority of this thread, and of those that it starts.
fn step_aside() -> Result<()> {
    let (niceness, thread) = (NICENESS_ASIDE.to_string(), gettid().to_string());
    let output = Command::new("renice")
        .args(["-n", &niceness, "-p", &thread])
        .output()
        .context("running renice")?;
    ensure!(
        output.status.success(),
        "renice: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

async fn publish(publisher: Publisher, shape: &Shape, stopped: &AtomicBool) -> Result<(usize, Duration)> {
    // The same ids with each start, at other times: other events.
    let mut generator = Generator::new(shape);
    let mut late = Late::default();
    // A tick that is late is made up for.
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let began = Instant::now();
    let mut events = 0;
    // The next ones do not wait for the broker's confirmation of these.
    let mut unconfirmed = FuturesUnordered::new();
    while !stopped.load(Ordering::Relaxed) {
        tokio::select! {
            _ = tick.tick() => {
                let now = OffsetDateTime::now_utc();
                let bodies: Vec<_> = (0..PER_SECOND / 100).map(|_| generator.at(late.next(now)).body).collect();
                unconfirmed.push(publisher.publish(bodies));
            }
            Some(published) = unconfirmed.next() => events += published?,
        }
    }
    while let Some(published) = unconfirmed.next().await {
        events += published?;
    }
    let took = began.elapsed();
    drop(unconfirmed);
    publisher.close().await?;
    Ok((events, took))
}

/// When events happen: one in a hundred is late, half of these within a day, half over what the history has.
#[derive(Default)]
struct Late {
    events: u64,
}

impl Late {
    const ONE_IN: u64 = 100;
    /// Multiples of it, less their whole part, are spread evenly.
    const GOLDEN: f64 = 0.618_033_988_749_895;

    fn next(&mut self, now: OffsetDateTime) -> OffsetDateTime {
        self.events += 1;
        if !self.events.is_multiple_of(Self::ONE_IN) {
            return now;
        }
        let late = self.events / Self::ONE_IN;
        let share = (late as f64 * Self::GOLDEN).fract();
        let most = if late.is_multiple_of(2) { 1.0 } else { 59.0 };
        now - time::Duration::DAY * (share * most)
    }
}
