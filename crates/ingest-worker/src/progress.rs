//! Whether anything moves: what the lanes have committed and which troubles they met, for those who watch.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// With messages ready and nothing delivered for so long, the broker has forgotten the consumers.
const STARVATION: Duration = Duration::from_secs(60);

/// What the lanes achieve; outlives the generations.
pub struct Progress {
    commits: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    last_commit: Instant,
    last_sign: Instant,
    starving_since: Option<Instant>,
    lacked_partition: Option<Instant>,
}

/// How long is too long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Deliveries are held, and nothing can be committed.
    pub max_hold: Duration,
    /// Deliveries are held, and there is neither a commit nor an error: longer than any try of a batch takes.
    /// Something is lost between the broker and the lanes.
    pub stall: Duration,
}

/// Why a generation must end though it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// What is held could not be stored for so long that others should have it, or nobody for now.
    HeldTooLong,
    /// Deliveries are held, and nobody works on them.
    Stalled,
    /// Messages are ready, and none is delivered.
    Starved,
}

impl Alarm {
    /// For a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeldTooLong => "held_too_long",
            Self::Stalled => "stalled",
            Self::Starved => "starved",
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            commits: watch::Sender::new(0),
            state: Mutex::new(State {
                last_commit: now,
                last_sign: now,
                starving_since: None,
                lacked_partition: None,
            }),
        }
    }
}

impl Progress {
    /// A batch is committed.
    pub fn committed(&self) {
        let now = Instant::now();
        {
            let mut state = self.state();
            state.last_commit = now;
            state.last_sign = now;
            state.starving_since = None;
        }
        self.commits.send_modify(|commits| *commits += 1);
    }

    /// A try failed for a passing reason, which may be a partition that is missing.
    pub fn troubled(&self, lacks_partition: bool) {
        let now = Instant::now();
        let mut state = self.state();
        state.last_sign = now;
        if lacks_partition {
            state.lacked_partition = Some(now);
        }
    }

    /// When a row last found no partition.
    pub fn lacked_partition(&self) -> Option<Instant> {
        self.state().lacked_partition
    }

    /// Batches that were committed, and news of the next one.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Whether messages are ready while this worker holds none.
    pub fn starving(&self, starving: bool) {
        let mut state = self.state();
        state.starving_since = starving.then(|| state.starving_since.unwrap_or_else(Instant::now));
    }

    /// A generation begins: nothing before it counts against it.
    pub fn begin_generation(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.last_sign = now;
        state.last_commit = now;
        state.starving_since = None;
    }

    /// Whether the generation must end, its oldest delivery being held since `held_since`.
    pub fn alarm(&self, now: Instant, held_since: Option<Instant>, limits: Limits) -> Option<Alarm> {
        self.state().alarm(now, held_since, limits)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change of it can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn alarm(self, now: Instant, held_since: Option<Instant>, limits: Limits) -> Option<Alarm> {
        let Limits { max_hold, stall } = limits;
        let longer_than = |since: Instant, limit: Duration| now.duration_since(since) > limit;
        if let Some(held_since) = held_since {
            if longer_than(held_since, max_hold) && longer_than(self.last_commit, max_hold) {
                return Some(Alarm::HeldTooLong);
            }
            if longer_than(held_since, stall) && longer_than(self.last_sign, stall) {
                return Some(Alarm::Stalled);
            }
        }
        self.starving_since
            .is_some_and(|since| longer_than(since, STARVATION))
            .then_some(Alarm::Starved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_hold: Duration::from_secs(600),
        stall: Duration::from_secs(150),
    };

    #[test]
    fn what_moves_is_left_alone() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let state = |commit, sign| State {
            last_commit: after(commit),
            last_sign: after(sign),
            starving_since: None,
            lacked_partition: None,
        };
        // Nothing is held; or it is held for long, and commits go on; or the database is away.
        assert_eq!(state(0, 0).alarm(after(9_000), None, LIMITS), None);
        assert_eq!(state(8_990, 8_990).alarm(after(9_000), Some(start), LIMITS), None);
        assert_eq!(state(0, 590).alarm(after(600), Some(start), LIMITS), None);
        // It is away for too long; or silent; or the consumers are forgotten.
        let long = state(0, 590).alarm(after(601), Some(start), LIMITS);
        assert_eq!(long, Some(Alarm::HeldTooLong));
        let silent = state(100, 100).alarm(after(251), Some(after(50)), LIMITS);
        assert_eq!(silent, Some(Alarm::Stalled));
        assert_eq!(state(100, 100).alarm(after(250), Some(after(50)), LIMITS), None);
        let forgotten = State {
            starving_since: Some(start),
            ..state(0, 0)
        };
        assert_eq!(forgotten.alarm(after(60), None, LIMITS), None);
        assert_eq!(forgotten.alarm(after(61), None, LIMITS), Some(Alarm::Starved));
    }
}
