//! How the operator's commands are run and what they say.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;

use crate::platform::Platform;

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Its answer, if it ended like this.
    pub(crate) fn with_code(self, code: i32) -> Result<String> {
        ensure!(self.code == Some(code), "not exit code {code}: {self:#?}");
        Ok(self.out)
    }

    /// Its answer as JSON, if it is done.
    pub(crate) fn json(self) -> Result<Value> {
        let out = self.with_code(0)?;
        serde_json::from_str(&out).with_context(|| format!("no JSON: {out}"))
    }

    /// The number behind a word of its answer.
    pub(crate) fn number(&self, word: &str) -> Result<u64> {
        self.out
            .lines()
            .find_map(|line| line.trim().strip_prefix(word)?.strip_prefix(": ")?.parse().ok())
            .with_context(|| format!("no number of {word:?} in {self:#?}"))
    }
}

/// Runs a command to its end.
pub(crate) async fn run(platform: &Platform, arguments: &[&str]) -> Result<Said> {
    run_with(platform, arguments, &[], None).await
}

/// Runs a command with more settings, and something to read.
pub(crate) async fn run_with(
    platform: &Platform,
    arguments: &[&str],
    more: &[(&str, &str)],
    input: Option<&[u8]>,
) -> Result<Said> {
    let mut command = platform.operator(arguments, more)?;
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // One that does not want more has ended, and says so by its code.
            let _ = stdin.write_all(input).await;
        }
    };
    let ended = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = tokio::time::timeout(Duration::from_secs(120), ended)
        .await
        .with_context(|| format!("{arguments:?} does not end"))??;
    Ok(Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Sends a signal to a running command.
pub(crate) fn signal(child: &Child, signal: Signal) -> Result<()> {
    let id = child.id().context("it has ended")?;
    Ok(nix::sys::signal::kill(Pid::from_raw(i32::try_from(id)?), signal)?)
}
