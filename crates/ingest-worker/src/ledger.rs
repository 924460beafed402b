//! What a consumer has taken from the broker: which deliveries are resolved, how far everything is, and
//! since when the oldest unresolved one is held.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The deliveries of one channel. Its tags are 1, 2, 3, …; lanes resolve them in any order, and an
/// acknowledgement covers all tags up to its own, so it may only go as far as everything is resolved: the
/// *watermark*.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// All tags up to this are resolved.
    watermark: u64,
    /// The tags after the watermark that have arrived, and whether they are resolved.
    resolved: VecDeque<bool>,
    /// Deliveries that arrived together, oldest first, from the first one that is not resolved.
    runs: VecDeque<Run>,
}

#[derive(Debug)]
struct Run {
    last_tag: u64,
    arrived_after: Instant,
}

impl Ledger {
    /// Deliveries up to `last_tag` have arrived, none of the new ones before `arrived_after`.
    pub fn arrived(&self, last_tag: u64, arrived_after: Instant) {
        let mut state = self.lock();
        let held = usize::try_from(last_tag.saturating_sub(state.watermark)).unwrap_or(usize::MAX);
        if held > state.resolved.len() {
            state.resolved.resize(held, false);
            state.runs.push_back(Run {
                last_tag,
                arrived_after,
            });
        }
    }

    /// These deliveries are stored, or kept as dead letters.
    pub fn resolve(&self, tags: &[u64]) {
        let mut state = self.lock();
        for tag in tags {
            let Some(place) = tag.checked_sub(state.watermark + 1) else {
                continue;
            };
            if let Some(resolved) = usize::try_from(place)
                .ok()
                .and_then(|place| state.resolved.get_mut(place))
            {
                *resolved = true;
            }
        }
        while state.resolved.front() == Some(&true) {
            state.resolved.pop_front();
            state.watermark += 1;
        }
        while state
            .runs
            .front()
            .is_some_and(|run| run.last_tag <= state.watermark)
        {
            state.runs.pop_front();
        }
    }

    /// The highest tag up to which everything is resolved; 0: none.
    pub fn watermark(&self) -> u64 {
        self.lock().watermark
    }

    /// A moment before which no delivery arrived that is still unresolved; `None` if all are resolved.
    pub fn oldest(&self) -> Option<Instant> {
        self.lock().runs.front().map(|run| run.arrived_after)
    }

    /// Deliveries that the broker waits for: unresolved ones, and those behind one.
    pub fn held(&self) -> usize {
        self.lock().resolved.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No step above can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn a_run_is_held_until_its_last_tag_is_resolved() {
        let ledger = Ledger::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        assert_eq!(ledger.oldest(), None);
        ledger.arrived(2, start);
        ledger.arrived(4, later);
        ledger.resolve(&[1, 3, 4]);
        assert_eq!(
            (ledger.oldest(), ledger.watermark(), ledger.held()),
            (Some(start), 1, 3)
        );
        ledger.resolve(&[2]);
        assert_eq!((ledger.oldest(), ledger.watermark()), (None, 4));
    }

    proptest! {
        /// Never past an unresolved delivery, and never short of it.
        #[test]
        fn the_watermark_is_just_below_the_first_unresolved_tag(
            order in Just((1_u64..=40).collect::<Vec<_>>()).prop_shuffle(),
            arrivals in prop::collection::vec(1_u64..8, 0..20),
            pieces in prop::collection::vec(1_usize..6, 1..40),
        ) {
            let ledger = Ledger::default();
            let mut arrived = 0;
            for more in arrivals.into_iter().chain([40]) {
                arrived = (arrived + more).min(40);
                ledger.arrived(arrived, Instant::now());
            }
            let mut unresolved: BTreeSet<u64> = (1..=40).collect();
            let mut rest = order.as_slice();
            for piece in pieces {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                ledger.resolve(now);
                now.iter().for_each(|tag| { unresolved.remove(tag); });
                let first = unresolved.first().copied().unwrap_or(41);
                prop_assert_eq!(ledger.watermark(), first - 1);
                prop_assert_eq!(ledger.oldest().is_some(), !unresolved.is_empty());
                rest = later;
            }
        }
    }
}
