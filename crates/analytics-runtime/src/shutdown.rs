//! The signal to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Completes when the process is asked to stop, by SIGTERM or SIGINT.
///
/// # Errors
/// If the handlers cannot be installed.
pub async fn signalled() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "asked to stop"),
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "asked to stop"),
    }
    Ok(())
}
