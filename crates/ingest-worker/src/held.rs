//! What a consumer has taken from the broker and not yet acknowledged, and since when.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The deliveries of one channel that are held, as runs of tags that arrived together.
///
/// Tags of a channel are handed out in order and acknowledged cumulatively, so the oldest delivery that
/// is held belongs to the first run.
#[derive(Debug, Default)]
pub struct Held {
    runs: Mutex<VecDeque<Run>>,
}

#[derive(Debug)]
struct Run {
    last_tag: u64,
    arrived_after: Instant,
}

impl Held {
    /// Deliveries up to `last_tag` have arrived, none of this run before `arrived_after`.
    pub fn arrived(&self, last_tag: u64, arrived_after: Instant) {
        self.lock().push_back(Run {
            last_tag,
            arrived_after,
        });
    }

    /// All deliveries up to `tag` are resolved.
    pub fn resolved_through(&self, tag: u64) {
        let mut runs = self.lock();
        while runs.front().is_some_and(|run| run.last_tag <= tag) {
            runs.pop_front();
        }
    }

    /// A moment before which no delivery arrived that is still held; `None` if none is held.
    pub fn oldest(&self) -> Option<Instant> {
        self.lock().front().map(|run| run.arrived_after)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Run>> {
        // A panic between two of these one-line changes cannot leave the queue half changed.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_run_is_held_until_its_last_tag_is_resolved() {
        let held = Held::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        assert_eq!(held.oldest(), None);
        held.arrived(10, start);
        held.arrived(20, later);
        held.resolved_through(9);
        assert_eq!(held.oldest(), Some(start));
        held.resolved_through(10);
        assert_eq!(held.oldest(), Some(later));
        held.resolved_through(20);
        assert_eq!(held.oldest(), None);
    }
}
