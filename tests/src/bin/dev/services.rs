//! The services as the demo and the benchmarks run them: the binaries beside this one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use e2e::process::{self, Service};
use e2e::servers::place;
use e2e::token;

/// A binary of the workspace, in the folder that this one was built into.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?
        .parent()
        .context("an executable lies in a folder")?
        .join(name))
}

/// What the services are told, and where their logs go.
pub(crate) struct Services {
    database_url: String,
    rabbitmq_url: String,
    queue: String,
    logs: PathBuf,
}

impl Services {
    /// For one database and one queue. `logs` names a folder in `.local`.
    pub(crate) fn new(database_url: String, rabbitmq_url: String, queue: &str, logs: &str) -> Result<Self> {
        let logs = place::folder(logs)?;
        Ok(Self {
            database_url,
            rabbitmq_url,
            queue: queue.to_owned(),
            logs,
        })
    }

    /// The folder with their logs.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// Brings the database to the schema; returns what `migrate` says.
    pub(crate) async fn migrate(&self) -> Result<String> {
        let environment = [("DATABASE_URL", self.database_url.as_str())];
        let (said, _) = process::run(&built("ingest-worker")?, &["migrate"], &environment).await?;
        Ok(said)
    }

    /// Starts the worker; `more` goes on top of its environment.
    pub(crate) async fn start_worker(&self, more: &[(&str, &str)]) -> Result<Service> {
        let environment = [
            ("DATABASE_URL", self.database_url.as_str()),
            ("RABBITMQ_URL", &self.rabbitmq_url),
            ("QUEUE_NAME", &self.queue),
            ("BIND_ADDRESS", "127.0.0.1"),
        ];
        let environment = [&environment[..], more].concat();
        Service::start(
            &built("ingest-worker")?,
            &environment,
            &self.logs.join("ingest-worker.log"),
        )
        .await
    }

    /// Does the maintenance once.
    pub(crate) async fn maintain(&self) -> Result<String> {
        let environment = [("DATABASE_URL", self.database_url.as_str())];
        let (said, _) = process::run(&built("ingest-worker")?, &["maintain"], &environment).await?;
        Ok(said)
    }

    /// Starts the API; `more` goes on top of its environment.
    pub(crate) async fn start_api(&self, more: &[(&str, &str)]) -> Result<Service> {
        let environment = [
            ("DATABASE_URL", self.database_url.as_str()),
            ("JWT_SECRET", token::SECRET),
            // One caller asks everything here.
            ("RATE_LIMIT_PER_SECOND", "0"),
            ("SHUTDOWN_DELAY_SECONDS", "0"),
            ("BIND_ADDRESS", "127.0.0.1"),
        ];
        let environment = [&environment[..], more].concat();
        Service::start(
            &built("analytics-api")?,
            &environment,
            &self.logs.join("analytics-api.log"),
        )
        .await
    }
}
