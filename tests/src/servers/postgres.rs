//! A private PostgreSQL, plain or with TimescaleDB.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::{log_tail, place, state};
use crate::pid::ProcessId;
use crate::ports;
use crate::progress::Step;

/// The oldest major version that the product supports.
const OLDEST: u32 = 15;
const DATA: &str = "data";

/// Which of the servers that the product meets this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edition {
    /// PostgreSQL as it comes.
    Plain,
    /// With TimescaleDB preloaded, Community edition.
    Timescale,
    /// With TimescaleDB preloaded and `timescaledb.license = apache`, as managed offers have it.
    TimescaleApache,
}

impl Edition {
    /// What somebody gets who does not care: TimescaleDB where it is installed, unless `plain`.
    pub fn to_try(plain: bool) -> Self {
        if plain || Postgres::timescaledb_version().is_none() {
            Self::Plain
        } else {
            Self::Timescale
        }
    }

    /// How to call it in a sentence.
    pub fn label(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Timescale => "TimescaleDB",
            Self::TimescaleApache => "TimescaleDB, Apache edition",
        }
    }
}

/// How much of the machine it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For tests and the demo: modest memory.
    Modest,
    /// For benchmarks: what a small production server would have.
    Bench,
}

#[derive(Serialize, Deserialize)]
struct State {
    port: u16,
    edition: Edition,
    /// The process to whose life it is tied; none when it was detached.
    owner: Option<ProcessId>,
}

/// A private PostgreSQL server. Killed when dropped, unless detached.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    installation: Installation,
    edition: Edition,
    port: u16,
    postmaster: Option<ProcessId>,
    detached: bool,
}

impl Postgres {
    /// The version of TimescaleDB that the distribution's PostgreSQL has, if it has one.
    pub fn timescaledb_version() -> Option<String> {
        Installation::newest(Edition::Timescale)
            .ok()?
            .timescaledb_version()
    }

    /// Starts the instance of this name, on the data it had before or on new data. `settings` go to the
    /// end of its configuration file, and so win.
    pub async fn start(
        name: &str,
        edition: Edition,
        profile: Profile,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let installation = Installation::newest(edition)?;
        let folder = place::postgres_folder(name)?;
        let before: Option<State> = state::read(&folder);
        let port = match &before {
            Some(state) if ports::is_free(state.port) => state.port,
            _ => ports::free()?,
        };
        let mut server = Self {
            folder,
            installation,
            edition,
            port,
            postmaster: None,
            detached: false,
        };
        if running_postmaster(&server.data()).is_some() {
            bail!("{} runs already", server.describe());
        }
        // From here on somebody can clean up after us.
        server.write_state()?;
        server.make_data_folder().await?;
        fs::write(
            server.data().join("postgresql.conf"),
            server.configuration(profile, settings),
        )?;
        server.restart().await?;
        Ok(server)
    }

    /// Starts a hot standby of this server, with a copy of its data.
    pub async fn start_standby(&self, name: &str) -> Result<Self> {
        let folder = place::postgres_folder(name)?;
        let mut standby = Self {
            installation: Installation::newest(self.edition)?,
            edition: self.edition,
            port: ports::free()?,
            folder,
            postmaster: None,
            detached: false,
        };
        standby.write_state()?;
        let output = standby
            .installation
            .command("pg_basebackup")
            .args(["--host=127.0.0.1", "--username=postgres", "--checkpoint=fast"])
            // It says so in its data that it is a standby, and of which server.
            .arg("--write-recovery-conf")
            .arg(format!("--port={}", self.port))
            .arg("--pgdata")
            .arg(standby.data())
            .output()
            .await?;
        if !output.status.success() {
            bail!(
                "pg_basebackup failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        fs::write(
            standby.data().join("postgresql.conf"),
            standby.configuration(Profile::Modest, &[]),
        )?;
        standby.restart().await?;
        Ok(standby)
    }

    /// Makes a standby a primary, and waits until it is.
    pub async fn promote(&self) -> Result<()> {
        let client = self.connect("postgres").await?;
        let promoted: bool = client.query_one("SELECT pg_promote()", &[]).await?.get(0);
        ensure!(promoted, "{} was not promoted", self.describe());
        Ok(())
    }

    /// From now on this role is taken over TLS alone, with a certificate of its name.
    pub async fn ask_for_certificate(&self, role: &str) -> Result<()> {
        let rules = format!(
            "hostssl all {role} 127.0.0.1/32 cert\nhost all {role} 127.0.0.1/32 reject\n\
             host all all 127.0.0.1/32 trust\n"
        );
        fs::write(self.data().join("pg_hba.conf"), rules)?;
        let client = self.connect("postgres").await?;
        client.query_one("SELECT pg_reload_conf()", &[]).await?;
        Ok(())
    }

    /// Starts one on new data, on a disk of its own of so many MiB, in memory. Only root can make one.
    pub async fn start_on_small_disk(
        name: &str,
        edition: Edition,
        mebibytes: u32,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        place::mount_small_disk(&place::postgres_folder(name)?, mebibytes)?;
        // The disk's own folder must be PostgreSQL's again.
        place::postgres_folder(name)?;
        Self::start(name, edition, Profile::Modest, settings).await
    }

    /// The running instance of this name, left running when the returned value is dropped.
    pub fn attach(name: &str) -> Result<Option<Self>> {
        place::existing(name).map_or(Ok(None), Self::attach_folder)
    }

    pub(super) fn attach_folder(folder: PathBuf) -> Result<Option<Self>> {
        let Some(State { port, edition, .. }) = state::read(&folder) else {
            return Ok(None);
        };
        // What the server itself wrote, which is there when a start was cut short as well.
        let Some(postmaster) = running_postmaster(&folder.join(DATA)) else {
            return Ok(None);
        };
        let installation = Installation::newest(edition)?;
        Ok(Some(Self {
            folder,
            installation,
            edition,
            port,
            postmaster: Some(postmaster),
            detached: true,
        }))
    }

    /// Lets it run on after this process; `stop` by a later [`Self::attach`].
    pub fn detach(mut self) -> Result<()> {
        self.detached = true;
        self.write_state()
    }

    /// Starts it on its port and its data, after a stop or a kill.
    pub async fn restart(&mut self) -> Result<()> {
        let step = Step::begin(format!("starting {}", self.describe()));
        let log = self.log();
        let output = self
            .installation
            .command("pg_ctl")
            .arg("--pgdata")
            .arg(self.data())
            .arg("--log")
            .arg(&log)
            .args(["--wait", "--timeout=120", "--silent", "start"])
            .output()
            .await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("{} did not start: {said}; {}", self.describe(), log_tail(&log));
        }
        self.postmaster = running_postmaster(&self.data());
        self.wait_for_an_answer(Duration::from_secs(10)).await?;
        step.done("ready");
        Ok(())
    }

    /// Stops it: running transactions are rolled back, what was committed is flushed.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(postmaster) = self.postmaster.take() else {
            return Ok(());
        };
        signal_tree(postmaster, Signal::SIGCONT);
        postmaster.signal(Signal::SIGINT);
        if !postmaster.wait_gone(Duration::from_secs(60)).await {
            bail!(
                "{} did not stop within a minute; {}",
                self.describe(),
                log_tail(&self.log())
            );
        }
        Ok(())
    }

    /// Kills the postmaster with SIGKILL, as a crash would, and waits until its children noticed.
    pub async fn kill(&mut self) -> Result<()> {
        let Some(postmaster) = self.postmaster.take() else {
            return Ok(());
        };
        let tree = postmaster.tree();
        signal_tree(postmaster, Signal::SIGCONT);
        postmaster.signal(Signal::SIGKILL);
        for process in tree {
            if !process.wait_gone(Duration::from_secs(5)).await {
                process.signal(Signal::SIGKILL);
                process.wait_gone(Duration::from_secs(5)).await;
            }
        }
        // Until somebody reaps the postmaster, its zombie passes for a running one.
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
        Ok(())
    }

    /// Stops the clock for it and all its sessions: nothing answers, connections stay open.
    pub fn freeze(&self) {
        if let Some(postmaster) = self.postmaster {
            signal_tree(postmaster, Signal::SIGSTOP);
        }
    }

    /// Lets it go on after [`Self::freeze`].
    pub fn thaw(&self) {
        if let Some(postmaster) = self.postmaster {
            signal_tree(postmaster, Signal::SIGCONT);
        }
    }

    /// From now on these roles need a password, and nobody else does.
    pub async fn authenticate(&self, roles: &[&str]) -> Result<()> {
        let mut rules = String::new();
        for role in roles {
            rules += &format!("host all {role} 127.0.0.1/32 scram-sha-256\n");
        }
        rules += "host all all 127.0.0.1/32 trust\n";
        fs::write(self.data().join("pg_hba.conf"), rules)?;
        let client = self.connect("postgres").await?;
        client.query_one("SELECT pg_reload_conf()", &[]).await?;
        Ok(())
    }

    /// Kills it and removes its data.
    pub async fn destroy(mut self) -> Result<()> {
        self.kill().await?;
        place::remove(&self.folder)
    }

    /// A URL of one of its databases, for its superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Which kind of server it is.
    pub fn edition(&self) -> Edition {
        self.edition
    }

    /// Its main process, while it runs.
    pub fn process(&self) -> Option<ProcessId> {
        self.postmaster
    }

    /// The folder of its data and its log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("postgresql.log")
    }

    /// A session with one of its databases.
    pub async fn connect(&self, database: &str) -> Result<tokio_postgres::Client> {
        connect(&self.url(database)).await
    }

    /// Makes a database, when there is none of this name yet.
    pub async fn ensure_database(&self, name: &str) -> Result<()> {
        let client = self.connect("postgres").await?;
        if client
            .query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name])
            .await?
            .is_none()
        {
            client
                .batch_execute(&format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\"")))
                .await?;
        }
        Ok(())
    }

    fn describe(&self) -> String {
        format!(
            "PostgreSQL {} ({}) on port {}",
            self.installation.major,
            match (self.edition, self.installation.timescaledb_version()) {
                (Edition::Plain, _) | (_, None) => self.edition.label().to_owned(),
                (edition, Some(version)) => format!("{} {version}", edition.label()),
            },
            self.port
        )
    }

    fn data(&self) -> PathBuf {
        self.folder.join(DATA)
    }

    fn write_state(&self) -> Result<()> {
        let owner = if self.detached { None } else { ProcessId::current() };
        let state = State {
            port: self.port,
            edition: self.edition,
            owner,
        };
        state::write(&self.folder, &state)
    }

    async fn make_data_folder(&self) -> Result<()> {
        let data = self.data();
        if let Ok(version) = fs::read_to_string(data.join("PG_VERSION")) {
            if version.trim() != self.installation.major.to_string() {
                bail!(
                    "{} belongs to PostgreSQL {}, installed is {}: remove the folder to begin anew",
                    self.folder.display(),
                    version.trim(),
                    self.installation.major
                );
            }
            return Ok(());
        }
        let step = Step::begin(format!("making a data folder for {}", self.describe()));
        // Made under another name: an interrupted initdb leaves nothing that looks complete.
        let unfinished = self.folder.join("data.new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        let output = self
            .installation
            .command("initdb")
            .arg("--pgdata")
            .arg(&unfinished)
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ])
            .arg("--no-instructions")
            .output()
            .await?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        fs::rename(&unfinished, &data)?;
        step.done("ready");
        Ok(())
    }

    fn configuration(&self, profile: Profile, settings: &[(&str, &str)]) -> String {
        let port = self.port.to_string();
        let mut lines = vec![
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("port", &port),
            ("max_connections", "200"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_line_prefix", "%m [%p] %q%a "),
            ("jit", "off"),
            // An acknowledged commit is what the product relies on, in its tests as well.
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("wal_compression", self.installation.wal_compression()),
        ];
        lines.extend(match profile {
            Profile::Modest => [("shared_buffers", "256MB"), ("max_wal_size", "2GB")],
            Profile::Bench => [("shared_buffers", "2GB"), ("max_wal_size", "8GB")],
        });
        if self.edition != Edition::Plain {
            lines.extend([
                ("shared_preload_libraries", "timescaledb"),
                ("timescaledb.telemetry_level", "off"),
                // The product runs no background jobs; what remains is a scheduler per database.
                ("timescaledb.max_background_workers", "8"),
                ("max_worker_processes", "24"),
            ]);
        }
        if self.edition == Edition::TimescaleApache {
            lines.push(("timescaledb.license", "apache"));
        }
        lines.extend_from_slice(settings);
        lines
            .iter()
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect()
    }

    async fn wait_for_an_answer(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let error = match self.connect("postgres").await {
                Ok(client) => match client.simple_query("SELECT 1").await {
                    Ok(_) => return Ok(()),
                    Err(error) => error.into(),
                },
                Err(error) => error,
            };
            if Instant::now() > deadline {
                bail!(
                    "{} does not answer: {error:#}; {}",
                    self.describe(),
                    log_tail(&self.log())
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let (false, Some(postmaster)) = (self.detached, self.postmaster) {
            signal_tree(postmaster, Signal::SIGCONT);
            // An immediate shutdown: nothing can be awaited here, and the children go with it.
            postmaster.signal(Signal::SIGQUIT);
        }
    }
}

/// A session with a database, its connection driven in the background.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    // The connection's own error reaches the client's next call.
    tokio::spawn(connection);
    Ok(client)
}

/// The process to whose life the server of this folder is tied.
pub(super) fn owner(folder: &Path) -> Option<ProcessId> {
    state::read::<State>(folder)?.owner
}

fn running_postmaster(data: &Path) -> Option<ProcessId> {
    let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: i32 = file.lines().next()?.trim().parse().ok()?;
    // The file outlives a crash, and its number may be somebody else's by now.
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if name.trim() == "postgres" {
        ProcessId::find(pid)
    } else {
        None
    }
}

fn signal_tree(root: ProcessId, signal: Signal) {
    for process in root.tree() {
        process.signal(signal);
    }
}

/// The server programs of one major version.
#[derive(Debug)]
struct Installation {
    bin: PathBuf,
    major: u32,
}

impl Installation {
    /// The newest that is new enough, and that has TimescaleDB when the edition needs it.
    fn newest(edition: Edition) -> Result<Self> {
        let mut bins: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .collect();
        bins.extend(output_line("pg_config", &["--bindir"]).map(PathBuf::from));
        bins.into_iter()
            .filter_map(Self::at)
            .filter(|i| i.major >= OLDEST)
            .filter(|i| edition == Edition::Plain || i.timescaledb_version().is_some())
            .max_by_key(|i| i.major)
            .with_context(|| {
                format!(
                    "no PostgreSQL {OLDEST} or newer ({}) is installed: deploy/local/install-packages.sh \
                     installs the plain one",
                    edition.label()
                )
            })
    }

    fn at(bin: PathBuf) -> Option<Self> {
        if !bin.join("initdb").exists() {
            return None;
        }
        // "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"
        let version = output_line(bin.join("postgres"), &["--version"])?;
        let major = version
            .split_whitespace()
            .nth(2)?
            .split(|c: char| !c.is_ascii_digit())
            .next()?;
        Some(Self {
            major: major.parse().ok()?,
            bin,
        })
    }

    fn timescaledb_version(&self) -> Option<String> {
        let share = output_line(self.bin.join("pg_config"), &["--sharedir"])
            .unwrap_or_else(|| format!("/usr/share/postgresql/{}", self.major));
        let control = fs::read_to_string(Path::new(&share).join("extension/timescaledb.control")).ok()?;
        let line = control.lines().find(|line| line.starts_with("default_version"))?;
        Some(line.split('\'').nth(1)?.to_owned())
    }

    fn wal_compression(&self) -> &'static str {
        let built_with = output_line(self.bin.join("pg_config"), &["--configure"]).unwrap_or_default();
        if built_with.contains("--with-lz4") {
            "lz4"
        } else {
            "on"
        }
    }

    /// One of its programs, to be run by a user it accepts.
    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = if place::is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", place::POSTGRES_USER, "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // Its user may not be able to enter ours.
        command.current_dir("/").kill_on_drop(true);
        // PGDATA, PGPORT and the like would change what these programs do.
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
    }
}

fn output_line(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).args(args).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned();
    output.status.success().then_some(line)
}
