//! What an instance remembers in its folder, so that another process can find it running.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

const FILE: &str = "state.json";

/// The state last written to this folder, if it can be read.
pub(super) fn read<T: DeserializeOwned>(folder: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path(folder)).ok()?).ok()
}

/// Replaces the state of this folder.
pub(super) fn write<T: Serialize>(folder: &Path, state: &T) -> Result<()> {
    fs::write(path(folder), serde_json::to_vec_pretty(state)?)
        .with_context(|| format!("writing the state of {}", folder.display()))
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}
