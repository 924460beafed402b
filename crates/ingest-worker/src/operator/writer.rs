//! The worker's own sink, fed by a command.

use std::sync::Arc;
use std::time::{Duration, Instant};

use analytics_core::event::{Malformed, UsageEvent};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::OperatorError;
use crate::batch::{Arrival, Batch, Message};
use crate::config::{MaintenanceConfig, OperatorConfig};
use crate::maintenance;
use crate::sink::Sink;

/// How long a batch that is being written may still take once the command is asked to stop.
const GRACE: Duration = Duration::from_secs(7);
/// Between two tries to make partitions that are missing.
const PARTITIONS_EVERY: Duration = Duration::from_secs(5);

/// An event to be written, and what to call it.
pub struct Entry {
    /// Tells it from the others, to whoever asked.
    pub number: u64,
    /// The event.
    pub event: UsageEvent,
    /// What it was read from.
    pub body: Vec<u8>,
}

/// What became of some entries.
#[derive(Debug, Default)]
pub struct Settled {
    /// Events that are stored now.
    pub stored: u64,
    /// Events that were stored before, or stood there twice.
    pub duplicates: u64,
    /// Entries that cannot be stored, by their numbers.
    pub refused: Vec<Refused>,
}

/// An entry that cannot be stored.
#[derive(Debug)]
pub struct Refused {
    /// Its number.
    pub number: u64,
    /// Why.
    pub malformed: Malformed,
    /// What it was read from.
    pub body: Vec<u8>,
}

/// Writes events as the worker does.
pub struct Writer {
    sink: Sink,
    stop: CancellationToken,
    partitions: JoinHandle<()>,
}

impl Writer {
    /// A writer that has not connected yet.
    #[must_use]
    pub fn new(config: &OperatorConfig, stop: CancellationToken) -> Self {
        let missing = Arc::new(Notify::new());
        let partitions = tokio::spawn(make_partitions(config.maintenance.clone(), Arc::clone(&missing)));
        Self {
            sink: Sink::new(config.writer.clone(), config.queue.clone(), missing).handing_back(),
            stop,
            partitions,
        }
    }

    /// Stores the entries: afterwards each is a committed row or among the refused. Passing errors are waited
    /// out. Once asked to stop, what is being written may come to its end.
    ///
    /// # Errors
    /// If it was asked to stop before all was done; part of it may be stored.
    pub async fn write(&mut self, entries: Vec<Entry>) -> Result<Settled, OperatorError> {
        if self.stop.is_cancelled() {
            return Err(OperatorError::Stopped);
        }
        let mut batch = Batch::default();
        for Entry { number, event, body } in entries {
            batch.push(Arrival {
                consumer: 0,
                tag: number,
                read_at: Instant::now(),
                outcome: Ok(event),
                message: Box::new(Message {
                    body,
                    number,
                    ..Message::default()
                }),
            });
        }
        let abandon = CancellationToken::new();
        let stop = async {
            self.stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
            abandon.cancel();
            std::future::pending::<()>().await;
        };
        let written = tokio::select! {
            written = self.sink.write(batch, &abandon) => written,
            () = stop => return Err(OperatorError::Stopped),
        };
        let written = written.map_err(|_| OperatorError::Stopped)?;
        let handed_back = self.sink.take_handed_back().into_iter();
        Ok(Settled {
            stored: written.stored,
            duplicates: written.duplicates,
            refused: handed_back
                .map(|letter| Refused {
                    number: letter.message.number,
                    malformed: letter.malformed,
                    body: letter.message.body,
                })
                .collect(),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.partitions.abort();
    }
}

/// Makes partitions whenever a row finds none: an old event's may have been left out, and without a worker
/// nobody else would.
async fn make_partitions(config: MaintenanceConfig, missing: Arc<Notify>) {
    loop {
        missing.notified().await;
        if let Err(error) = maintenance::make_partitions(&config).await {
            tracing::warn!(%error, "a partition is missing and cannot be made with these rights; waiting for maintenance");
        }
        tokio::time::sleep(PARTITIONS_EVERY).await;
    }
}
