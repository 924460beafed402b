//! Ctrl-C and SIGTERM: both end a command in order, with everything it started.

use std::process::ExitCode;

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of a command that was interrupted, as shells have it.
pub(crate) fn exit_code() -> ExitCode {
    ExitCode::from(130)
}

/// Listens from the moment it is made, so that no signal is missed between two waits.
pub(crate) struct Interrupt {
    ctrl_c: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupt {
    pub(crate) fn listen() -> Result<Self> {
        Ok(Self {
            ctrl_c: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when somebody wants us to end.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.ctrl_c.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// The outcome of `work`, or `None` when the interrupt came first; `work` is dropped then, and with
    /// it the servers and processes it owns.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            outcome = work => Some(outcome),
            () = self.wait() => None,
        }
    }
}
