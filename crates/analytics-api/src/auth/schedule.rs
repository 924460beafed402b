//! When a provider's keys are fetched again.
//!
//! Ten minutes after they were fetched, so that a key that was withdrawn goes; half a minute after a fetch
//! that failed; and when a token names a key that is not there, so that a new one comes at once, that at
//! most once in half a minute. What tokens name never delays the fetch that is due.

use std::time::Duration;

use tokio::time::Instant;

const REFRESH_INTERVAL: Duration = Duration::from_secs(600);
/// Also the least time between two fetches that tokens with unknown keys can cause.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Until there are keys, nobody can be let in: try again soon.
const FIRST_KEYS_INTERVAL: Duration = Duration::from_secs(5);

/// What has been fetched when.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Schedule {
    last: Option<Instant>,
    last_good: Option<Instant>,
}

impl Schedule {
    /// A fetch that began then came to its end.
    pub(super) fn fetched(&mut self, began: Instant, good: bool) {
        self.last = Some(began);
        if good {
            self.last_good = Some(began);
        }
    }

    #[cfg(test)]
    pub(super) fn elapse(&mut self, time: Duration) {
        for moment in [&mut self.last, &mut self.last_good].into_iter().flatten() {
            *moment = moment.checked_sub(time).expect("the clock has run for so long");
        }
    }

    /// When the keys are to be fetched again whatever tokens say; `None`: now.
    pub(super) fn due(&self) -> Option<Instant> {
        let retry = self.due_for_unknown_key()?;
        let refresh = self.last_good.map(|good| good + REFRESH_INTERVAL);
        Some(match refresh {
            Some(refresh) if self.last == self.last_good => refresh,
            // The last one failed.
            _ => retry,
        })
    }

    /// When they may be fetched for a token with an unknown key; `None`: now.
    pub(super) fn due_for_unknown_key(&self) -> Option<Instant> {
        let interval = if self.last_good.is_some() {
            RETRY_INTERVAL
        } else {
            FIRST_KEYS_INTERVAL
        };
        Some(self.last? + interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_tokens_name_never_delays_the_fetch_that_is_due() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert_eq!((schedule.due(), schedule.due_for_unknown_key()), (None, None));
        schedule.fetched(start, true);
        // Garbage, as fast as it is let through, for twenty minutes.
        let mut now = start;
        let mut longest = Duration::ZERO;
        let mut last_good = start;
        while now < start + seconds(1_200) {
            now = schedule.due_for_unknown_key().unwrap();
            assert!(now - last_good >= seconds(30), "twice in half a minute");
            assert!(schedule.due().unwrap() <= last_good + seconds(600));
            longest = longest.max(now - last_good);
            schedule.fetched(now, true);
            last_good = now;
        }
        assert_eq!(longest, seconds(30));
        // A single one, just before the fetch is due, is that fetch.
        schedule.fetched(now + seconds(599), true);
        assert_eq!(schedule.due(), Some(now + seconds(1_199)));
    }

    #[test]
    fn a_failed_fetch_is_tried_again_soon() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.fetched(start, false);
        assert_eq!(schedule.due(), Some(start + seconds(5)), "nobody can be let in");
        schedule.fetched(start + seconds(5), true);
        assert_eq!(schedule.due(), Some(start + seconds(605)));
        assert_eq!(schedule.due_for_unknown_key(), Some(start + seconds(35)));
        schedule.fetched(start + seconds(605), false);
        assert_eq!(schedule.due(), Some(start + seconds(635)));
        // A token with an unknown key while the provider is away changes nothing of that.
        schedule.fetched(start + seconds(635), false);
        assert_eq!(schedule.due(), Some(start + seconds(665)));
    }
}
