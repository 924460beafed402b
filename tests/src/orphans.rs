//! Servers and services that somebody started and did not stop: after a SIGKILL, or an interrupt in the
//! middle of a start.

use anyhow::Result;

use crate::pid::ProcessId;
use crate::{process, servers};

/// Removes what was left behind by processes that are gone.
pub async fn remove_of_the_dead() -> Result<()> {
    remove(|owner| !owner.is_alive()).await
}

/// The same, and what this process itself still owns: for its end.
pub async fn remove_ours_as_well() -> Result<()> {
    let us = ProcessId::current();
    remove(|owner| Some(owner) == us || !owner.is_alive()).await
}

async fn remove(is_lost: impl Fn(ProcessId) -> bool) -> Result<()> {
    process::kill_orphans(&is_lost)?;
    servers::remove(is_lost).await
}
