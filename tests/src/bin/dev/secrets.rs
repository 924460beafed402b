//! What must be in no log: secrets, and what somebody wrote into a message.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use e2e::generator::ERROR_MESSAGE_CANARY;
use e2e::progress::say;
use e2e::token::SECRET;

/// Texts that the suite hands to the services, which none of them may repeat: what an event says, the key
/// of tokens and the beginning of every token, the broker's and the database's passwords as they are in URLs.
const SECRETS: [&str; 5] = [ERROR_MESSAGE_CANARY, SECRET, "eyJ", "guest:guest", "Bearer "];

/// Searches every log below a folder.
pub(crate) fn search(folder: &Path) -> Result<()> {
    let mut logs = Vec::new();
    collect(folder, &mut logs)?;
    for log in &logs {
        let text = fs::read(log)?;
        let text = String::from_utf8_lossy(&text);
        for line in text.lines() {
            if let Some(secret) = SECRETS.iter().find(|secret| line.contains(**secret)) {
                bail!("{} holds {secret:?}: {line}", log.display());
            }
        }
    }
    say(format_args!(
        "no secret in the {} logs of the services",
        logs.len()
    ));
    Ok(())
}

fn collect(folder: &Path, logs: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, logs)?;
        } else {
            logs.push(path);
        }
    }
    Ok(())
}
