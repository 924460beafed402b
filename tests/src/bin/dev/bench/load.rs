//! Events as they happen, from what stands for the platform.
//!
//! Its broker and its publishers would have machines of their own. Here they share one with what is measured, and take
//! more of it than the worker and PostgreSQL together: they run at a lower priority, so that what is measured is ours.
//! That they keep up all the same is counted.

use std::ops::AddAssign;
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
use time::OffsetDateTime;

/// Events per second.
pub(crate) const PER_SECOND: usize = 5_000;
/// Of which so many have to arrive, or what was measured was something else.
const AT_LEAST: f64 = 0.95;

/// Events that arrived, and in what time.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Arrived {
    pub(crate) events: usize,
    took: Duration,
}

impl Arrived {
    pub(crate) fn per_second(self) -> f64 {
        self.events as f64 / self.took.as_secs_f64()
    }
}

impl AddAssign for Arrived {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.took += other.took;
    }
}

/// Events of the same organizations, on a thread of their own.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    published: JoinHandle<Result<Arrived>>,
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

    /// Stops it; what it has published.
    pub(crate) async fn stop(self) -> Result<Arrived> {
        self.stop.store(true, Ordering::Relaxed);
        let arrived = tokio::task::spawn_blocking(|| self.published.join())
            .await?
            .map_err(|_| anyhow!("the load panicked"))??;
        let (rate, wanted) = (arrived.per_second(), PER_SECOND as f64);
        ensure!(
            rate >= AT_LEAST * wanted,
            "{rate:.0} events/s were published in place of {wanted}: the machine is too busy for this load"
        );
        Ok(arrived)
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

async fn publish(publisher: Publisher, shape: &Shape, stopped: &AtomicBool) -> Result<Arrived> {
    // The same ids with each start, at other times: other events.
    let mut generator = Generator::new(shape);
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
                let bodies: Vec<_> = (0..PER_SECOND / 100).map(|_| generator.at(now).body).collect();
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
    Ok(Arrived { events, took })
}
