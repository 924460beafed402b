//! A lane: the only writer for its organizations. It collects a batch, stores it, and only then lets the
//! broker forget it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::amqp::{Acker, BrokerError};
use crate::batch::{Arrival, Batch};
use crate::failpoint::{self, Point, Rule};
use crate::ledger::Ledger;
use crate::metrics;
use crate::sink::Sink;

/// When a batch closes.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Deliveries; the last part that a consumer hands over may go beyond.
    pub size: usize,
    /// Counted from its first delivery, at most.
    pub max_age: Duration,
    /// One of the instants at which this lane closes what it has; they are `max_age` apart.
    pub beat: Instant,
}

impl BatchLimits {
    /// Those of each of so many lanes: their beats are evenly apart.
    pub fn of_lanes(size: usize, max_age: Duration, lanes: usize) -> impl Iterator<Item = Self> {
        let apart = max_age / u32::try_from(lanes).unwrap_or(u32::MAX).max(1);
        let beats = std::iter::successors(Some(Instant::now()), move |beat| Some(*beat + apart));
        beats.take(lanes).map(move |beat| Self { size, max_age, beat })
    }

    /// When a batch closes whose oldest delivery was read at that instant: at the lane's next beat. Each lane has its own,
    /// so that at a steady rate they write one after the other and leave the database's other cores to those who ask.
    fn closes(&self, oldest: Instant) -> Instant {
        let since = oldest.saturating_duration_since(self.beat).as_nanos() % self.max_age.as_nanos().max(1);
        let since = Duration::from_nanos(u64::try_from(since).unwrap_or(0));
        oldest + (self.max_age - since)
    }
}

/// A consumer's way back to the broker: several lanes resolve its deliveries.
pub struct Return {
    acker: Acker,
    ledger: Arc<Ledger>,
    /// The last tag that was acknowledged. The broker closes a channel that acknowledges a tag twice, or
    /// a lower one after a higher one, so acknowledgements go out one by one.
    acknowledged: Mutex<u64>,
}

impl Return {
    /// The way back of the consumer that `acker` and `ledger` belong to.
    pub fn new(acker: Acker, ledger: Arc<Ledger>) -> Self {
        Self {
            acker,
            ledger,
            acknowledged: Mutex::new(0),
        }
    }

    /// These deliveries are committed: acknowledges as far as everything before is, too.
    async fn resolve(&self, tags: &[u64]) -> Result<(), BrokerError> {
        self.ledger.resolve(tags);
        let mut acknowledged = self.acknowledged.lock().await;
        let watermark = if failpoint::is_broken(Rule::AckUpToWatermark) {
            tags.iter().copied().max().unwrap_or(0)
        } else {
            self.ledger.watermark()
        };
        if watermark > *acknowledged {
            self.acker.ack_through(watermark).await?;
            *acknowledged = watermark;
        }
        Ok(())
    }
}

/// Runs until the consumers are over and everything they received for this lane is stored and
/// acknowledged, or until they are to `abandon` it: what is unacknowledged then comes again. Gives the sink
/// back. `death` is that of the session.
pub async fn run(
    mut arrivals: Receiver<Vec<Arrival>>,
    limits: BatchLimits,
    mut sink: Sink,
    returns: Arc<Vec<Return>>,
    abandon: CancellationToken,
    death: CancellationToken,
) -> Sink {
    while let Some(Some(mut batch)) = abandon.run_until_cancelled(collect(&mut arrivals, limits)).await {
        let (rows, oldest, began) = (batch.len(), batch.oldest(), Instant::now());
        let tags = batch.take_tags();
        if failpoint::is_broken(Rule::CommitBeforeAck) {
            let _ = acknowledge(&tags, &returns).await;
        }
        let Ok(written) = sink.write(batch, &abandon).await else {
            break;
        };
        ::metrics::histogram!(metrics::BATCH_ROWS).record(metrics::as_f64(rows));
        ::metrics::histogram!(metrics::WRITE_SECONDS).record(began.elapsed());
        if let Some(oldest) = oldest {
            ::metrics::histogram!(metrics::LATENCY_SECONDS).record(oldest.elapsed());
        }
        if let Some(newest) = written.newest {
            let lag = OffsetDateTime::now_utc() - newest;
            ::metrics::gauge!(metrics::EVENT_LAG).set(lag.as_seconds_f64());
        }
        ::metrics::counter!(metrics::STORED).increment(written.stored);
        ::metrics::counter!(metrics::DUPLICATES).increment(written.duplicates);
        tracing::debug!(
            rows,
            stored = written.stored,
            duplicates = written.duplicates,
            "batch committed"
        );
        failpoint::reach(Point::BeforeAck).await;
        if let Err(error) = acknowledge(&tags, &returns).await {
            // The events will come again and be recognised.
            tracing::warn!(%error, "a batch is stored but could not be acknowledged");
            death.cancel();
            break;
        }
        failpoint::reach(Point::AfterAck).await;
    }
    sink
}

async fn acknowledge(tags: &BTreeMap<usize, Vec<u64>>, returns: &[Return]) -> Result<(), BrokerError> {
    for (consumer, tags) in tags {
        returns[*consumer].resolve(tags).await?;
    }
    Ok(())
}

/// The next batch; `None` when the consumers are over and nothing is left.
async fn collect(arrivals: &mut Receiver<Vec<Arrival>>, limits: BatchLimits) -> Option<Batch> {
    let mut batch = Batch::default();
    while batch.len() < limits.size {
        let part = match batch.oldest() {
            None => arrivals.recv().await,
            Some(oldest) => tokio::select! {
                // Past its time, a batch still takes what is waiting: a backlog fills batches.
                biased;
                part = arrivals.recv() => part,
                () = tokio::time::sleep_until(limits.closes(oldest).into()) => break,
            },
        };
        match part {
            Some(part) => part.into_iter().for_each(|arrival| batch.push(arrival)),
            None => break,
        }
    }
    (!batch.is_empty()).then_some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_batch_closes_at_the_next_beat(age_ms in 1_u64..60_000, after_us in 0_u64..100_000_000) {
            let (max_age, beat) = (Duration::from_millis(age_ms), Instant::now());
            let limits = BatchLimits { size: 1, max_age, beat };
            let oldest = beat + Duration::from_micros(after_us);
            let closes = limits.closes(oldest);
            prop_assert!(oldest < closes && closes <= oldest + max_age);
            prop_assert_eq!((closes - beat).as_nanos() % max_age.as_nanos(), 0);
        }

        #[test]
        fn beats_of_lanes_are_evenly_apart(age_ms in 1_u64..60_000, lanes in 1_usize..64) {
            let max_age = Duration::from_millis(age_ms);
            let beats: Vec<Instant> = BatchLimits::of_lanes(1, max_age, lanes).map(|limits| limits.beat).collect();
            prop_assert_eq!(beats.len(), lanes);
            let apart = max_age / u32::try_from(lanes).unwrap();
            prop_assert!(beats.windows(2).all(|two| two[1] - two[0] == apart));
            prop_assert!(beats[lanes - 1] < beats[0] + max_age);
        }

        #[test]
        fn before_the_first_beat_it_closes_by_its_age(age_ms in 1_u64..60_000, before_us in 1_u64..100_000_000) {
            let (max_age, oldest) = (Duration::from_millis(age_ms), Instant::now());
            let beat = oldest + Duration::from_micros(before_us);
            prop_assert_eq!(BatchLimits { size: 1, max_age, beat }.closes(oldest), oldest + max_age);
        }
    }
}
