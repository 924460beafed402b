//! Private servers, made from the distribution's packages: real ones, on their own ports, with their own
//! data, and no effect on any server that the machine runs already.
//!
//! Each instance has a name and a folder ([`place`]), remembers its port and process in a state file
//! there, and so can be found again by a later process ([`Postgres::attach`], [`RabbitMq::attach`]).
//! Dropping one kills it, unless [`Postgres::detach`] or [`RabbitMq::detach`] let it go.

pub mod place;
mod postgres;
mod rabbitmq;
mod state;

use std::path::Path;

use anyhow::Result;

use crate::pid::ProcessId;

pub use postgres::{Edition, Postgres, Profile, connect};
pub use rabbitmq::{MAX_MESSAGE_BYTES, NICENESS_ASIDE, RabbitMq};

/// The last lines of a server's log, for an error message.
fn log_tail(path: &Path) -> String {
    const LINES: usize = 15;
    let text = std::fs::read(path)
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LINES)..].join("\n  ");
    if tail.is_empty() {
        format!("{} is empty", path.display())
    } else {
        format!("the end of {}:\n  {tail}", path.display())
    }
}

/// Stops every detached server of this clone, and returns how many those were. The data stays. What a
/// running command owns is left to it.
pub async fn stop_detached() -> Result<usize> {
    let mut stopped = 0;
    for folder in place::all_folders() {
        if owner(&folder).is_some() {
            continue;
        }
        if let Some(mut server) = Postgres::attach_folder(folder.clone())? {
            server.stop().await?;
            stopped += 1;
        }
        if let Some(mut broker) = RabbitMq::attach_folder(folder.clone())? {
            broker.stop().await?;
            stopped += 1;
        }
    }
    Ok(stopped)
}

fn owner(folder: &Path) -> Option<ProcessId> {
    postgres::owner(folder).or_else(|| rabbitmq::owner(folder))
}

/// Kills the servers that are tied to such an owner, and removes their data.
pub(crate) async fn remove(is_lost: impl Fn(ProcessId) -> bool) -> Result<()> {
    for folder in place::all_folders() {
        if !owner(&folder).is_some_and(&is_lost) {
            continue;
        }
        if let Some(server) = Postgres::attach_folder(folder.clone())? {
            server.destroy().await?;
        } else if let Some(broker) = RabbitMq::attach_folder(folder.clone())? {
            broker.destroy().await?;
        } else {
            place::remove(&folder)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
