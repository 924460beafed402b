//! How long to wait before trying again: exponential with full jitter, so that a fleet that lost the same
//! server does not come back all at once ([Exponential Backoff And Jitter]).
//!
//! [Exponential Backoff And Jitter]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// Grows from try to try, for ever: nothing is given up after N of them.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// A wait between nothing and the bound of this try: 0.2 s at first, doubling to 5 s.
    pub fn next_wait(&mut self) -> Duration {
        self.wait_with(rand::random())
    }

    /// Something worked: the next failure is a first one.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    fn wait_with(&mut self, share: f64) -> Duration {
        let bound = FIRST
            .saturating_mul(2_u32.saturating_pow(self.tries))
            .min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        bound.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_five_seconds_and_stays_there() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..100).map(|_| backoff.wait_with(1.0).as_millis()).collect();
        assert_eq!(waits[..7], [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(waits[99], 5000);
        backoff.reset();
        assert_eq!(backoff.wait_with(0.5).as_millis(), 100);
    }
}
