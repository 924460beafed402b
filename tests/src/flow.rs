//! Events that keep coming while something is done to the servers: in shuffled order, one in twenty more
//! than once, malformed messages among them. Like the platform's router, it publishes the same body again
//! until the broker has confirmed it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::generator::random::Random;
use crate::generator::{Event, Generator, Shape};
use crate::malformed::{self, Malformed};
use crate::publisher::Publisher;

/// Between two groups of messages.
const TICK: Duration = Duration::from_millis(1_000 / TICKS_PER_SECOND);
const TICKS_PER_SECOND: u64 = 20;
/// How long the broker may take to confirm a group before it is published again.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many events later one may be repeated.
const REPEATED_WITHIN: u64 = 3_000;

/// What keeps coming.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Another seed, other events.
    pub seed: u64,
    /// Messages in a second.
    pub rate: u64,
    /// One message in so many is malformed.
    pub malformed_one_in: u64,
    /// One event in so many happened hours or days ago; the others within the last half hour.
    pub late_one_in: u64,
    /// Whether bodies are kept after the time in which they may be repeated: for a short flow.
    pub keep_bodies: bool,
}

impl Load {
    /// 1,000 messages in a second, one in 100 malformed, one in 20 late.
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            rate: 1_000,
            malformed_one_in: 100,
            late_one_in: 20,
            keep_bodies: true,
        }
    }
}

/// What was published.
#[derive(Debug, Default)]
pub struct Published {
    /// Each event once.
    pub events: Vec<Event>,
    /// Messages that are none.
    pub malformed: Vec<Malformed>,
    /// How many messages were repeats.
    pub repeats: usize,
}

impl Published {
    /// Every body once more.
    pub fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        let events = self.events.iter().map(|event| &*event.body);
        events.chain(self.malformed.iter().map(|message| &*message.body))
    }
}

/// A running flow.
pub struct Flow {
    stop: watch::Sender<bool>,
    published: Arc<Mutex<Published>>,
    task: JoinHandle<()>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Flow {
    /// Starts to publish to a queue, which may come to exist later.
    pub fn start(url: &str, queue: &str, load: Load) -> Self {
        let (stop, stopped) = watch::channel(false);
        let published = Arc::<Mutex<Published>>::default();
        let (url, queue) = (url.to_owned(), queue.to_owned());
        let task = tokio::spawn(run(url, queue, load, stopped, Arc::clone(&published)));
        Self {
            stop,
            published,
            task,
        }
    }

    /// How many events were made so far, confirmed or not.
    pub fn events(&self) -> usize {
        lock(&self.published).events.len()
    }

    /// Stops making events, and waits until all that were made are confirmed.
    pub async fn finish(mut self) -> Result<Published> {
        self.stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(60), &mut self.task)
            .await
            .context("the broker did not confirm everything within a minute")??;
        Ok(std::mem::take(&mut *lock(&self.published)))
    }
}

fn lock(published: &Mutex<Published>) -> MutexGuard<'_, Published> {
    published.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(
    url: String,
    queue: String,
    load: Load,
    mut stopped: watch::Receiver<bool>,
    published: Arc<Mutex<Published>>,
) {
    let now = OffsetDateTime::now_utc();
    let mut generator = Generator::new(&Shape {
        seed: load.seed,
        organizations: 12,
        start: now - time::Duration::days(3),
        end: now,
    });
    let mut random = Random::of(&[load.seed, 7]);
    let mut publisher = None;
    let mut tick = tokio::time::interval(TICK);
    while !*stopped.borrow_and_update() {
        tick.tick().await;
        let group = make(&load, &mut generator, &mut random, &published);
        // Nothing goes on until this group is confirmed: what is published twice is so on purpose, or
        // because the broker was lost in between.
        while !confirm(&url, &queue, &group, &mut publisher).await {
            publisher = None;
            tokio::time::sleep(TICK * 4).await;
        }
    }
}

async fn confirm(url: &str, queue: &str, group: &[Vec<u8>], kept: &mut Option<Publisher>) -> bool {
    let attempt = async {
        let publisher = match kept.take() {
            Some(publisher) => publisher,
            None => Publisher::connect(url, queue).await?,
        };
        publisher.publish(group).await?;
        *kept = Some(publisher);
        anyhow::Ok(())
    };
    matches!(tokio::time::timeout(PATIENCE, attempt).await, Ok(Ok(())))
}

fn make(
    load: &Load,
    generator: &mut Generator,
    random: &mut Random,
    published: &Mutex<Published>,
) -> Vec<Vec<u8>> {
    let now = OffsetDateTime::now_utc();
    let mut published = lock(published);
    let mut group = Vec::new();
    for _ in 0..(load.rate / TICKS_PER_SECOND).max(1) {
        if random.one_in(load.malformed_one_in) {
            let mut candidates = malformed::twenty(now);
            candidates.extend(malformed::further(now));
            let chosen = random.below(candidates.len() as u64);
            if let Some(message) = candidates.into_iter().nth(usize::try_from(chosen).unwrap_or(0)) {
                group.push(message.body.clone());
                published.malformed.push(message);
            }
            continue;
        }
        let reach = if random.one_in(load.late_one_in) {
            3 * 24 * 3600
        } else {
            1800
        };
        let event = generator.at(now - time::Duration::milliseconds(below(random, reach * 1000)));
        group.push(event.body.clone());
        published.events.push(event);
        if random.one_in(20) {
            let made = published.events.len() as u64;
            // Of the last few thousand, so that the first copy may be stored, or still be on its way.
            let earlier = made - 1 - random.below(made.min(REPEATED_WITHIN));
            group.push(
                published.events[usize::try_from(earlier).unwrap_or(0)]
                    .body
                    .clone(),
            );
            published.repeats += 1;
        }
    }
    if !load.keep_bodies {
        let past = published
            .events
            .len()
            .saturating_sub(usize::try_from(REPEATED_WITHIN).unwrap_or(0));
        let recent = past.saturating_sub(group.len());
        for event in &mut published.events[recent..past] {
            event.body = Vec::new();
        }
    }
    for i in (1..group.len()).rev() {
        let other = usize::try_from(random.below(i as u64 + 1)).unwrap_or(i);
        group.swap(i, other);
    }
    group
}

fn below(random: &mut Random, bound: u64) -> i64 {
    i64::try_from(random.below(bound)).unwrap_or(0)
}
