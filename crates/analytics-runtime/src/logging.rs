//! Logs: one line an event on standard error, as JSON for machines or as text for people.
//!
//! What is logged is said once, where it is handled. Never logged: tokens, connection strings,
//! messages' bodies, or what a field of one held.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::settings::{Settings, SettingsError};

/// Starts logging as `LOG_LEVEL` and `LOG_FORMAT` say.
///
/// # Errors
/// If one of them is not valid.
pub fn init(settings: &Settings) -> Result<(), SettingsError> {
    let level: String = settings.required("LOG_LEVEL")?;
    if let Some(unknown) = unknown_level(&level) {
        return Err(settings.invalid("LOG_LEVEL", format!("{unknown:?} is no level")));
    }
    // Audit lines are kept whatever the level: who read whose usage is not a matter of verbosity.
    let filter = EnvFilter::try_new(format!("{level},audit=info"))
        .map_err(|error| settings.invalid("LOG_LEVEL", error.to_string()))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start in one process (tests) keeps the first's logging.
    let _ = match settings.text("LOG_FORMAT") {
        Some("json") => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
        Some("text") => lines.try_init(),
        _ => return Err(settings.invalid("LOG_FORMAT", "must be json or text")),
    };
    for near in settings.near_misses() {
        tracing::warn!(
            variable = near.name,
            key = near.key,
            "a variable is no key of this service; is the key meant?"
        );
    }
    Ok(())
}

/// A part of a filter that is neither a level nor has one. `EnvFilter` takes such a word for a target.
fn unknown_level(filter: &str) -> Option<&str> {
    filter
        .split(',')
        .map(str::trim)
        .filter(|part| !part.contains(['=', '[', ']', '{', '}']))
        .find(|part| part.parse::<LevelFilter>().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_found() {
        for right in [
            "info",
            "WARN",
            "off",
            "info,ingest_worker=debug",
            "ingest_worker=debug",
            "warn,a[b{c=1}]=trace",
        ] {
            assert_eq!(unknown_level(right), None, "{right}");
        }
        for (wrong, word) in [
            ("inof", "inof"),
            ("info,debgu", "debgu"),
            ("ingest_worker", "ingest_worker"),
        ] {
            assert_eq!(unknown_level(wrong), Some(word), "{wrong}");
        }
    }
}
