//! The real binaries of the services, as child processes.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use crate::pid::ProcessId;
use crate::ports;
use crate::servers::place;

/// The folder of the records of running services.
const RECORDS: &str = "services";
/// How long a service may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running service. Killed when dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    process: ProcessId,
    port: u16,
    log: PathBuf,
    _record: Record,
}

/// Tells a later process which services run and whose they are; gone with the service.
#[derive(Debug)]
struct Record(PathBuf);

#[derive(Serialize, Deserialize)]
struct Recorded {
    service: ProcessId,
    owner: ProcessId,
}

impl Record {
    fn write(service: ProcessId) -> Result<Self> {
        let owner = ProcessId::current().context("this process has no entry in /proc")?;
        let path = place::folder(RECORDS)?.join(format!("{}.json", service.number()));
        fs::write(&path, serde_json::to_vec(&Recorded { service, owner })?)?;
        Ok(Self(path))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Kills the services that are tied to such an owner.
pub(crate) fn kill_orphans(is_lost: impl Fn(ProcessId) -> bool) -> Result<()> {
    for entry in fs::read_dir(place::folder(RECORDS)?)? {
        let path = entry?.path();
        let recorded = fs::read(&path)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok());
        if let Some(Recorded { service, owner }) = recorded
            && is_lost(owner)
        {
            service.signal(Signal::SIGKILL);
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

impl Service {
    /// Starts a binary on a free port and waits until it is ready. Its own environment is empty but for
    /// `environment`: nothing of the developer's shell reaches it.
    pub async fn start(binary: &Path, environment: &[(&str, &str)], log: &Path) -> Result<Self> {
        let mut service = Self::launch(binary, environment, log)?;
        service.wait_ready(PATIENCE).await?;
        Ok(service)
    }

    /// Starts it and waits for nothing.
    pub fn launch(binary: &Path, environment: &[(&str, &str)], log: &Path) -> Result<Self> {
        let port = ports::free()?;
        let file = fs::File::create(log).with_context(|| format!("making {}", log.display()))?;
        let child = Command::new(binary)
            .env_clear()
            .env("PORT", port.to_string())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C in the terminal is for the harness, which then stops its services in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("running {}", binary.display()))?;
        let process = child
            .id()
            // On a busy machine, one that refuses its settings has ended by now.
            .and_then(|id| ProcessId::of_child(i32::try_from(id).ok()?))
            .with_context(|| format!("{} has no entry in /proc", binary.display()))?;
        let record = Record::write(process)?;
        Ok(Self {
            child,
            process,
            port,
            log: log.to_owned(),
            _record: record,
        })
    }

    /// Waits until `/ready` answers 200.
    pub async fn wait_ready(&mut self, patience: Duration) -> Result<()> {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .build()?;
        let deadline = Instant::now() + patience;
        let mut last = "no answer".to_owned();
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "ended with {status} instead of getting ready; {}",
                    self.log_tail()
                );
            }
            match client.get(self.url("/ready")).send().await {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => last = format!("{}: {}", response.status(), response.text().await?),
                Err(error) if error.is_connect() => {}
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("not ready after {patience:?}: {last}; {}", self.log_tail())
    }

    /// The URL of a path of its HTTP interface.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Its process.
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Everything that it has said so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The file with what it says.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Sends SIGTERM and waits; returns how it ended and after what time.
    pub async fn terminate(&mut self, patience: Duration) -> Result<(ExitStatus, Duration)> {
        let began = Instant::now();
        self.process.signal(Signal::SIGTERM);
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => Ok((status?, began.elapsed())),
            Err(_) => bail!("still there {patience:?} after SIGTERM; {}", self.log_tail()),
        }
    }

    /// Kills it with SIGKILL.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Stops the clock for it.
    pub fn freeze(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it go on after [`Self::freeze`].
    pub fn thaw(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// A metric as it is now: the sum over its labels, or that of one series if `name` has labels; 0 while there
    /// is none.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = reqwest::get(self.url("/metrics")).await?.text().await?;
        let samples = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, _) = series.split_once('{').unwrap_or((series, ""));
            (found == name || series == name)
                .then(|| value.parse::<f64>().ok())
                .flatten()
        });
        Ok(samples.sum())
    }

    /// Waits until a metric is what it has to be.
    pub async fn wait_metric(&self, name: &str, is_right: impl Fn(f64) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.metric(name).await?;
            if is_right(value) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{name} is {value}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until everything is acknowledged, and counted in the metrics: what is stored may not be yet.
    pub async fn wait_acknowledged(&self) -> Result<()> {
        self.wait_metric("usage_ingest_unacked_deliveries", |held| held == 0.0)
            .await
    }

    /// Resident memory now.
    pub fn rss_bytes(&self) -> Option<u64> {
        self.process.rss_bytes()
    }

    /// The most memory it has had resident.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        self.process.peak_rss_bytes()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "it said:\n  {}",
            lines[lines.len().saturating_sub(20)..].join("\n  ")
        )
    }
}

/// Runs a subcommand of a service to its end and returns what it printed, stdout and stderr apart; an
/// exit code other than 0 is an error that says it all.
pub async fn run(
    binary: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<(String, String)> {
    let output = Command::new(binary)
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("running {}", binary.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if !output.status.success() {
        let how = output.status.signal().map_or_else(
            || output.status.to_string(),
            |signal| format!("ended by signal {signal}"),
        );
        bail!(
            "{} {}: {how}\n{stdout}{stderr}",
            binary.display(),
            arguments.join(" ")
        );
    }
    Ok((stdout, stderr))
}
