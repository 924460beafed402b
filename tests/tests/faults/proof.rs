//! Proof that a fault has happened: without it a test proves nothing, and is void.

use anyhow::{Result, ensure};

/// What was counted.
#[derive(Default)]
pub(crate) struct Proof(Vec<(String, f64)>);

impl Proof {
    /// Something of which at least one must have been counted.
    pub(crate) fn add(&mut self, what: &str, count: f64) {
        self.0.push((what.to_owned(), count));
    }

    /// # Errors
    /// If the fault did not happen.
    pub(crate) fn check(&self) -> Result<String> {
        ensure!(!self.0.is_empty(), "void: nothing proves that the fault happened");
        for (what, count) in &self.0 {
            ensure!(*count > 0.0, "void: {what}: none, so the fault did not happen");
        }
        let all: Vec<String> = self
            .0
            .iter()
            .map(|(what, count)| format!("{what}: {count}"))
            .collect();
        Ok(all.join(", "))
    }
}
