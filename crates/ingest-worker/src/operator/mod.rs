//! The operator's commands: what a person does about events outside of the queue's daily path. Each writes
//! through the worker's own decoder and sink, so whatever it does counts once, and can be cut short and
//! done again.

pub mod body;
pub mod collect;
pub mod dead_letters;
pub mod import;
pub mod moment;
pub mod output;
pub mod owner;
pub mod reconcile;
pub mod writer;

use std::process::ExitCode;

use analytics_runtime::schema::SchemaError;
use analytics_runtime::settings::SettingsError;

/// How a command ended that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All is done.
    Done,
    /// All is done that can be, and something is left that needs a look.
    Left,
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The database's word, on something that trying again will not mend.
    #[error("{action}: {}", words(.source))]
    Database {
        /// What was tried.
        action: &'static str,
        /// What came of it.
        source: tokio_postgres::Error,
    },
    /// The database has another schema than this build needs.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A setting.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A file that cannot be read or written.
    #[error("{name}: {source}")]
    File {
        /// Its name.
        name: String,
        /// What came of it.
        source: std::io::Error,
    },
    /// Whoever reads the output has heard enough.
    #[error("the output was closed")]
    OutputClosed,
    /// There is nothing of that kind.
    #[error("{0}")]
    Absent(String),
    /// It was asked to stop before the end.
    #[error("stopped before the end; run it again to go on")]
    Stopped,
}

fn words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |db| format!("{} ({})", db.message(), db.code().code()),
    )
}

/// The exit code of a command: 0 done, 1 it could not be done, 3 something is left that needs a look, 130
/// stopped before the end. (2 is the command line's own: it was not understood.)
#[must_use]
pub fn exit_code(outcome: Result<Ended, OperatorError>) -> ExitCode {
    match outcome {
        Ok(Ended::Done) | Err(OperatorError::OutputClosed) => ExitCode::SUCCESS,
        Ok(Ended::Left) => ExitCode::from(3),
        Err(error @ OperatorError::Stopped) => {
            tracing::warn!("{error}");
            ExitCode::from(130)
        }
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
