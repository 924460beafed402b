//! A lane: the only writer for its consumers. It collects a batch, stores it, and only then acknowledges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::amqp::Acker;
use crate::batch::{Arrival, Batch};
use crate::held::Held;
use crate::metrics;
use crate::sink::Sink;

/// When a batch closes.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Deliveries.
    pub size: usize,
    /// Counted from its first delivery.
    pub max_age: Duration,
}

/// A consumer's way back to the broker, and the record of what is held.
pub struct Return {
    /// Acknowledges.
    pub acker: Acker,
    /// Forgets what was acknowledged.
    pub held: Arc<Held>,
}

/// Runs until its consumers are over and everything they received is stored and acknowledged, or until
/// the generation is dead: what is unacknowledged then comes again. Gives the sink back.
pub async fn run(
    mut arrivals: Receiver<Arrival>,
    limits: BatchLimits,
    mut sink: Sink,
    returns: BTreeMap<usize, Return>,
    death: CancellationToken,
) -> Sink {
    while let Some(Some(batch)) = death.run_until_cancelled(collect(&mut arrivals, limits)).await {
        let (rows, oldest, began) = (batch.len(), batch.oldest(), Instant::now());
        let tags: Vec<(usize, u64)> = batch.last_tags().collect();
        let Ok(written) = sink.write(batch, &death).await else {
            break;
        };
        ::metrics::histogram!(metrics::BATCH_ROWS).record(as_f64(rows));
        ::metrics::histogram!(metrics::WRITE_SECONDS).record(began.elapsed());
        if let Some(oldest) = oldest {
            ::metrics::histogram!(metrics::LATENCY_SECONDS).record(oldest.elapsed());
        }
        ::metrics::counter!(metrics::STORED).increment(written.stored);
        ::metrics::counter!(metrics::DUPLICATES).increment(written.duplicates);
        tracing::debug!(
            rows,
            stored = written.stored,
            duplicates = written.duplicates,
            "batch committed"
        );
        if !acknowledge(&tags, &returns).await {
            death.cancel();
            break;
        }
    }
    sink
}

/// The commit is done: everything up to these tags is resolved.
async fn acknowledge(tags: &[(usize, u64)], returns: &BTreeMap<usize, Return>) -> bool {
    for (consumer, tag) in tags {
        let Some(Return { acker, held }) = returns.get(consumer) else {
            continue;
        };
        if let Err(error) = acker.ack_through(*tag).await {
            // The events will come again and be recognised.
            tracing::warn!(%error, "a batch is stored but could not be acknowledged");
            return false;
        }
        held.resolved_through(*tag);
    }
    true
}

/// The next batch; `None` when the consumers are over and nothing is left.
async fn collect(arrivals: &mut Receiver<Arrival>, limits: BatchLimits) -> Option<Batch> {
    let mut batch = Batch::default();
    let mut taken = Vec::new();
    let mut deadline = None;
    loop {
        let room = limits.size - batch.len();
        let count = match deadline {
            None => arrivals.recv_many(&mut taken, room).await,
            Some(deadline) => tokio::select! {
                // Past its time, a batch still takes what is waiting: a backlog fills batches.
                biased;
                count = arrivals.recv_many(&mut taken, room) => count,
                () = tokio::time::sleep_until(deadline) => break,
            },
        };
        if count == 0 {
            return (!batch.is_empty()).then_some(batch);
        }
        for arrival in taken.drain(..) {
            batch.push(arrival);
        }
        if batch.len() >= limits.size {
            break;
        }
        deadline = batch
            .oldest()
            .map(|oldest| tokio::time::Instant::from_std(oldest + limits.max_age));
    }
    Some(batch)
}

fn as_f64(count: usize) -> f64 {
    // Batches are far below 2^32 rows.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
