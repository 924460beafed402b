//! What the probes tell.

use std::sync::atomic::{AtomicBool, Ordering};

/// Which servers answer, and whether this process still takes work.
#[derive(Debug, Default)]
pub struct Status {
    database: AtomicBool,
    consuming: AtomicBool,
    stopping: AtomicBool,
}

impl Status {
    /// Whether the last report reached the database.
    pub fn database_answers(&self, answers: bool) {
        self.database.store(answers, Ordering::Relaxed);
    }

    /// Whether a session with the broker is open, and with it the queue there.
    pub fn consuming(&self, consuming: bool) {
        self.consuming.store(consuming, Ordering::Relaxed);
        ::metrics::gauge!(crate::metrics::BROKER_UP).set(if consuming { 1.0 } else { 0.0 });
    }

    /// The process has been asked to stop.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// What is missing for the process to do its work; nothing if it does.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if !self.database.load(Ordering::Relaxed) {
            missing.push("database");
        }
        if !self.consuming.load(Ordering::Relaxed) {
            missing.push("broker");
        }
        if self.stopping.load(Ordering::Relaxed) {
            missing.push("stopping");
        }
        missing
    }
}
