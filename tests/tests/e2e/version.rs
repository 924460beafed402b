//! The binaries say which build they are.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use e2e::process;

use crate::platform::setting;

#[tokio::test]
async fn binaries_say_their_version_and_commit() -> Result<()> {
    for (binary, name) in [
        ("E2E_WORKER_BIN", "ingest-worker"),
        ("E2E_API_BIN", "analytics-api"),
    ] {
        let (said, _) = process::run(&PathBuf::from(setting(binary)?), &["--version"], &[]).await?;
        let version = format!("{name} {} (commit ", env!("CARGO_PKG_VERSION"));
        ensure!(said.starts_with(&version), "{said}");
    }
    Ok(())
}
