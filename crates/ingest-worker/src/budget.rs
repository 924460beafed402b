//! The memory that messages may take, in bytes. The broker counts deliveries, so the window of a session is
//! made for the size that messages have had of late; where larger ones come, the session is given up at once,
//! and the next one's window is made for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Of the budget, a window is made to take so much: sizes differ.
const SHARE_OF_WINDOW: f64 = 0.75;
/// Deliveries that the quick mean is of: a jump is in it before the budget is spent twice.
const QUICK: f64 = 16.0;
/// Deliveries that the slow mean is of: one large message among many small ones does not narrow the window.
const SLOW: f64 = 256.0;
/// A session ends for a wider window only if that one is so much wider.
const WORTH_IT: u32 = 4;

/// What is held, and how large messages are.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    state: Mutex<State>,
    exceeded: Notify,
}

#[derive(Debug, Default)]
struct State {
    held: usize,
    means: Option<Means>,
    /// Sessions in a row that were given up without a commit.
    in_vain: u32,
}

#[derive(Debug, Clone, Copy)]
struct Means {
    quick: f64,
    slow: f64,
}

/// A message's part of the budget; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// For so many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
            exceeded: Notify::new(),
        }
    }

    /// A message of so many bytes has arrived.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Share {
        let mut state = self.state();
        state.held += bytes;
        let size = as_f64(bytes);
        let means = state.means.get_or_insert(Means {
            quick: size,
            slow: size,
        });
        means.quick += (size - means.quick) / QUICK;
        means.slow += (size - means.slow) / SLOW;
        if state.held > self.limit {
            self.exceeded.notify_one();
        }
        Share {
            budget: Arc::clone(self),
            bytes,
        }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.state().held
    }

    /// Returns once more is held than may be.
    pub async fn exceeded(&self) {
        // What was said to an earlier session may have been given back since.
        while self.held() <= self.limit {
            self.exceeded.notified().await;
        }
    }

    /// How many deliveries, at most `full`, a session may hold of the size that they have had of late.
    pub fn fits(&self, full: u32) -> u32 {
        let state = self.state();
        let Some(means) = state.means else { return full };
        let fitting = as_f64(self.limit) * SHARE_OF_WINDOW / means.quick.max(means.slow).max(1.0);
        let doubted = fitting / 2_f64.powi(i32::try_from(state.in_vain).unwrap_or(i32::MAX));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and a u32"
        )]
        let fitting = doubted.clamp(1.0, f64::from(full)) as u32;
        fitting
    }

    /// Whether a session that may hold `window` should make place for one that may hold much more.
    pub fn is_outgrown(&self, window: u32, full: u32) -> bool {
        let fits = self.fits(full);
        window < full && (fits == full || fits >= window.saturating_mul(WORTH_IT))
    }

    /// A session was given up over it. Without a commit, the next one takes half as much.
    pub fn given_up(&self, committed: bool) {
        let mut state = self.state();
        state.in_vain = if committed { 0 } else { state.in_vain + 1 };
    }

    /// A session ended in order.
    pub fn kept(&self) {
        self.state().in_vain = 0;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change of it can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.state().held -= self.bytes;
    }
}

fn as_f64(bytes: usize) -> f64 {
    // What is counted here is far below 2^52, and means need no more than that.
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn see(budget: &Arc<Budget>, count: usize, bytes: usize) {
        (0..count).for_each(|_| drop(budget.hold(bytes)));
    }

    #[test]
    fn the_window_follows_the_size_of_messages() {
        let budget = Arc::new(Budget::new(96 * MIB));
        assert_eq!(budget.fits(50_000), 50_000);
        see(&budget, 10_000, 1_400);
        assert_eq!(budget.fits(50_000), 50_000);
        // A jump: by the time that the budget is spent, the window is right.
        see(&budget, 24, 4 * MIB);
        assert!((18..30).contains(&budget.fits(50_000)), "{}", budget.fits(50_000));
        see(&budget, 300, 4 * MIB);
        assert_eq!(budget.fits(50_000), 18);
        assert!(!budget.is_outgrown(18, 50_000));
        see(&budget, 5_000, 1_400);
        assert!(budget.is_outgrown(18, 50_000) && budget.fits(50_000) == 50_000);
        assert!(!budget.is_outgrown(50_000, 50_000));
    }

    #[test]
    fn a_large_one_now_and_then_does_not_narrow_it_much() {
        let budget = Arc::new(Budget::new(96 * MIB));
        for _ in 0..20 {
            see(&budget, 1, 64 << 10);
            see(&budget, 99, 1_400);
        }
        assert!(budget.fits(50_000) > 20_000, "{}", budget.fits(50_000));
    }

    #[test]
    fn one_that_is_larger_than_the_budget_comes_alone() {
        let budget = Arc::new(Budget::new(MIB));
        let huge = budget.hold(5 * MIB);
        assert_eq!((budget.fits(1_000), budget.held()), (1, 5 * MIB));
        drop(huge);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn what_was_given_up_in_vain_is_halved() {
        let budget = Arc::new(Budget::new(96 * MIB));
        see(&budget, 1, 72 * 1024);
        assert_eq!(budget.fits(50_000), 1_024);
        budget.given_up(false);
        budget.given_up(false);
        assert_eq!(budget.fits(50_000), 256);
        (0..2_000).for_each(|_| budget.given_up(false));
        assert_eq!(budget.fits(50_000), 1);
        budget.kept();
        assert_eq!(budget.fits(50_000), 1_024);
    }

    #[tokio::test]
    async fn exceeding_it_is_told_while_it_lasts() {
        let budget = Arc::new(Budget::new(MIB));
        drop(budget.hold(2 * MIB));
        let told = tokio::time::timeout(std::time::Duration::from_millis(50), budget.exceeded());
        assert!(told.await.is_err(), "it is given back");
        let _held = budget.hold(2 * MIB);
        budget.exceeded().await;
    }
}
