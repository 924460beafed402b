//! The brake: when too many messages are malformed, a producer is wrong, and the queue is the better place
//! for what it published than the table of dead letters. Off unless configured.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Fewer messages than this say nothing about a producer.
const SAMPLE: u64 = 100;
/// Older messages count less: from here on what was counted is halved.
const MEMORY: u64 = 1_000;

/// Watches the share of malformed messages.
pub struct Brake {
    /// Percent of malformed messages from which on it is pulled; 0: never.
    limit: u64,
    counts: Mutex<Counts>,
    /// Cancelled when it is pulled.
    pub pulled: CancellationToken,
}

#[derive(Debug, Default)]
struct Counts {
    read: u64,
    malformed: u64,
}

impl Brake {
    /// Pulled above `limit` percent; 0: never.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            counts: Mutex::default(),
            pulled: CancellationToken::new(),
        }
    }

    /// So many messages were read, of which so many were malformed.
    pub fn count(&self, read: u64, malformed: u64) {
        if self.limit == 0 {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.read += read;
        counts.malformed += malformed;
        if counts.read >= SAMPLE && counts.malformed * 100 > counts.read * self.limit {
            self.pulled.cancel();
        }
        if counts.read >= MEMORY {
            counts.read /= 2;
            counts.malformed /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_pulled_above_the_limit_and_by_enough_messages_only() {
        let brake = Brake::new(10);
        brake.count(99, 99);
        assert!(!brake.pulled.is_cancelled(), "99 messages say nothing");
        let brake = Brake::new(10);
        (0..100).for_each(|_| brake.count(256, 25));
        assert!(!brake.pulled.is_cancelled(), "under ten percent");
        // A long good past does not outweigh a bad present.
        (0..4).for_each(|_| brake.count(256, 100));
        assert!(brake.pulled.is_cancelled());
        let off = Brake::new(0);
        off.count(1_000, 1_000);
        assert!(!off.pulled.is_cancelled());
    }
}
