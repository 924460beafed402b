//! What the probes tell.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::metrics;

/// The process counts as stuck when its main thread did nothing for so long. Far above any pause that a busy
/// machine makes.
const STUCK: Duration = Duration::from_secs(60);

/// Which servers answer, and whether this process still takes work.
pub struct Status {
    state: watch::Sender<State>,
    pulse: Mutex<Instant>,
}

/// Each part: why it is missing, if it is.
#[derive(Default, Clone)]
struct State {
    database: Option<String>,
    broker: Option<String>,
    brake: Option<String>,
    stopping: Option<String>,
}

impl Default for Status {
    fn default() -> Self {
        let state = State {
            database: Some("not asked yet".to_owned()),
            broker: Some("not connected yet".to_owned()),
            ..State::default()
        };
        Self {
            state: watch::Sender::new(state),
            pulse: Mutex::new(Instant::now()),
        }
    }
}

impl Status {
    /// Whether the last report reached the database. Tells whether that is news.
    pub fn database(&self, answers: Result<(), String>) -> bool {
        ::metrics::gauge!(metrics::DATABASE_UP).set(if answers.is_ok() { 1.0 } else { 0.0 });
        self.state.send_if_modified(|state| {
            let missing = answers.err();
            let news = state.database != missing;
            state.database = missing;
            news
        })
    }

    /// Whether a session with the broker is open, and with it the queue there.
    pub fn broker(&self, consuming: Result<(), String>) {
        ::metrics::gauge!(metrics::BROKER_UP).set(if consuming.is_ok() { 1.0 } else { 0.0 });
        self.state.send_modify(|state| state.broker = consuming.err());
    }

    /// Too many messages are malformed: nothing is taken any more.
    pub fn braked(&self, because: String) {
        ::metrics::gauge!(metrics::BRAKED).set(1.0);
        self.state.send_modify(|state| state.brake = Some(because));
    }

    /// The process has been asked to stop.
    pub fn stopping(&self) {
        self.state
            .send_modify(|state| state.stopping = Some("asked to stop".to_owned()));
    }

    /// What is missing for the process to do its work, and why; nothing if it does.
    pub fn missing(&self) -> BTreeMap<&'static str, String> {
        let state = self.state.borrow().clone();
        let parts = [
            ("database", state.database),
            ("broker", state.broker),
            ("brake", state.brake),
            ("stopping", state.stopping),
        ];
        let missing = parts.into_iter();
        missing.filter_map(|(name, why)| Some((name, why?))).collect()
    }

    /// Returns once the database answers.
    pub async fn wait_for_database(&self) {
        // Fails only without a sender, which is here.
        let _ = self
            .state
            .subscribe()
            .wait_for(|state| state.database.is_none())
            .await;
    }

    /// The main thread has come by.
    pub fn pulse(&self, now: Instant) {
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Whether the main thread makes progress. Depends on no server.
    pub fn is_alive(&self, now: Instant) -> bool {
        let last = *self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        now.duration_since(last) < STUCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_missing_and_why() {
        let status = Status::default();
        let names = |status: &Status| status.missing().into_keys().collect::<Vec<_>>();
        assert_eq!(names(&status), ["broker", "database"]);
        status.broker(Ok(()));
        status.database(Err("connection refused".to_owned()));
        assert_eq!(status.missing()["database"], "connection refused");
        status.database(Ok(()));
        assert!(status.missing().is_empty());
        status.braked("9 of 10 messages are malformed".to_owned());
        status.stopping();
        assert_eq!(names(&status), ["brake", "stopping"]);
    }

    #[test]
    fn a_main_thread_that_hangs_is_not_alive() {
        let status = Status::default();
        assert!(status.is_alive(Instant::now() + STUCK / 2));
        assert!(!status.is_alive(Instant::now() + STUCK));
        status.pulse(Instant::now() + STUCK);
        assert!(status.is_alive(Instant::now() + STUCK));
    }
}
