//! How many questions are let in: of one caller in a second, and of all callers at once. The only file that
//! names governor.
//!
//! Only proven callers are counted: a token that proves nothing is refused as such, however many there are.
//! Each instance counts for itself.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::error::ApiError;
use crate::metrics;

/// How often callers that ask no more are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// What a burst may be, in seconds of the rate.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(2).unwrap();

/// Lets questions in, or not.
pub(crate) struct Admission {
    rate: Option<Rate>,
    in_flight: Arc<Semaphore>,
    in_flight_limit: usize,
}

struct Rate {
    /// By a digest of the caller: whatever a token says, a caller takes as much room as any other.
    limiter: RateLimiter<u64, HashMapStateStore<u64>, DefaultClock>,
    digests: RandomState,
    clock: DefaultClock,
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

/// A question that was let in; the place is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    _place: OwnedSemaphorePermit,
}

impl Admission {
    /// `rate_per_second` of 0 lets any number in.
    pub(crate) fn new(rate_per_second: u32, in_flight_limit: usize) -> Self {
        Self {
            rate: NonZeroU32::new(rate_per_second).map(Rate::new),
            in_flight: Arc::new(Semaphore::new(in_flight_limit)),
            in_flight_limit,
        }
    }

    /// Lets a caller's question in, as long as what it returns is held.
    pub(crate) fn admit(&self, caller: &impl Hash) -> Result<Admitted, ApiError> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.check(caller))?;
        match Arc::clone(&self.in_flight).try_acquire_owned() {
            Ok(place) => Ok(Admitted { _place: place }),
            Err(_) => {
                metrics::question_refused("in_flight");
                Err(ApiError::Busy(self.in_flight_limit))
            }
        }
    }

    /// How many are being answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight_limit - self.in_flight.available_permits()
    }

    /// Forgets callers that ask no more, for as long as it is polled.
    pub(crate) async fn forget_callers(&self) {
        let Some(rate) = &self.rate else {
            return std::future::pending().await;
        };
        loop {
            sleep(FORGET_INTERVAL).await;
            rate.limiter.retain_recent();
            rate.limiter.shrink_to_fit();
        }
    }
}

impl Rate {
    fn new(per_second: NonZeroU32) -> Self {
        let burst = per_second.saturating_mul(BURST_SECONDS);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self {
            limiter: RateLimiter::hashmap(quota),
            digests: RandomState::new(),
            clock: DefaultClock::default(),
            per_second,
            burst,
        }
    }

    fn check(&self, caller: &impl Hash) -> Result<(), ApiError> {
        let refused = match self.limiter.check_key(&self.digests.hash_one(caller)) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        metrics::question_refused("rate");
        let wait = refused.wait_time_from(self.clock.now());
        Err(ApiError::TooManyRequests {
            per_second: self.per_second.get(),
            burst: self.burst.get(),
            // Rounded up: a try that comes too early would be refused again.
            retry_after_seconds: wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_rate() {
        let admission = Admission::new(1, 100);
        for caller in ["one", "other"] {
            assert!(admission.admit(&caller).is_ok(), "{caller}");
            assert!(admission.admit(&caller).is_ok(), "{caller}, the burst");
            match admission.admit(&caller) {
                Err(ApiError::TooManyRequests {
                    per_second: 1,
                    burst: 2,
                    retry_after_seconds: 1,
                }) => {}
                other => panic!("{caller}: {other:?}"),
            }
        }
    }

    #[test]
    fn no_rate_and_a_bound_on_what_is_in_flight() {
        let admission = Admission::new(0, 3);
        let admitted: Vec<_> = (0..3).map(|_| admission.admit(&"one").unwrap()).collect();
        assert_eq!(admission.in_flight(), 3);
        assert!(matches!(admission.admit(&"other"), Err(ApiError::Busy(3))));
        drop(admitted);
        assert_eq!(admission.in_flight(), 0);
        for _ in 0..10_000 {
            assert!(admission.admit(&"one").is_ok());
        }
    }
}
