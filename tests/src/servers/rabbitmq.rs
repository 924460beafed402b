//! A private RabbitMQ.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::{log_tail, place, state};
use crate::pid::ProcessId;
use crate::ports;
use crate::progress::Step;

/// Not `/usr/sbin/rabbitmq-server`: that one insists on root or the rabbitmq user.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// The niceness of what shares the machine with something that is measured, and would not where that runs.
pub const NICENESS_ASIDE: u8 = 10;

/// The largest body it takes: 1 MiB.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ports {
    amqp: u16,
    distribution: u16,
    /// The name server of Erlang: one of our own, or several brokers would share the machine's.
    epmd: u16,
}

impl Ports {
    fn pick() -> Result<Self> {
        Ok(Self {
            amqp: ports::free()?,
            distribution: ports::free()?,
            epmd: ports::free()?,
        })
    }

    fn are_free(self) -> bool {
        [self.amqp, self.distribution, self.epmd]
            .into_iter()
            .all(ports::is_free)
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    ports: Ports,
    broker: Option<ProcessId>,
    epmd: Option<ProcessId>,
    /// The process to whose life it is tied; none when it was detached.
    owner: Option<ProcessId>,
}

/// A private RabbitMQ broker. Killed when dropped, unless detached.
#[derive(Debug)]
pub struct RabbitMq {
    folder: PathBuf,
    name: String,
    ports: Ports,
    broker: Option<ProcessId>,
    epmd: Option<ProcessId>,
    detached: bool,
    niceness: u8,
}

impl RabbitMq {
    /// Starts the instance of this name, on the data it had before or on new data. `settings` are lines
    /// of `rabbitmq.conf` that come after ours.
    pub async fn start(name: &str, settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_at(0, name, settings).await
    }

    /// The same, giving way to everything else on the machine.
    pub async fn start_aside(name: &str) -> Result<Self> {
        Self::start_at(NICENESS_ASIDE, name, &[]).await
    }

    async fn start_at(niceness: u8, name: &str, settings: &[(&str, &str)]) -> Result<Self> {
        if !Path::new(SERVER).exists() {
            bail!("RabbitMQ is not installed ({SERVER}): deploy/local/install-packages.sh installs it");
        }
        let folder = place::folder(name)?;
        let before: Option<State> = state::read(&folder);
        if before
            .as_ref()
            .is_some_and(|s| s.broker.is_some_and(ProcessId::is_alive))
        {
            bail!("the RabbitMQ of {} runs already", folder.display());
        }
        if let Some(epmd) = before.as_ref().and_then(|s| s.epmd) {
            epmd.signal(Signal::SIGTERM);
            epmd.wait_gone(Duration::from_secs(2)).await;
        }
        let ports = match before {
            Some(state) if state.ports.are_free() => state.ports,
            _ => Ports::pick()?,
        };
        let mut broker = Self {
            folder,
            name: name.to_owned(),
            ports,
            broker: None,
            epmd: None,
            detached: false,
            niceness,
        };
        for inner in ["home", "log", "data"] {
            fs::create_dir_all(broker.folder.join(inner))?;
        }
        fs::write(
            broker.folder.join("rabbitmq.conf"),
            broker.configuration(settings),
        )?;
        fs::write(broker.folder.join("enabled_plugins"), "[].\n")?;
        // The machine's own file of this kind must not reach our broker.
        fs::write(broker.folder.join("rabbitmq-env.conf"), "")?;
        broker.restart().await?;
        Ok(broker)
    }

    /// The running instance of this name, left running when the returned value is dropped.
    pub fn attach(name: &str) -> Result<Option<Self>> {
        place::existing(name).map_or(Ok(None), Self::attach_folder)
    }

    pub(super) fn attach_folder(folder: PathBuf) -> Result<Option<Self>> {
        let Some(State {
            ports, broker, epmd, ..
        }) = state::read(&folder)
        else {
            return Ok(None);
        };
        if !broker.is_some_and(ProcessId::is_alive) {
            return Ok(None);
        }
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Some(Self {
            folder,
            name,
            ports,
            broker,
            epmd,
            detached: true,
            niceness: 0,
        }))
    }

    /// Lets it run on after this process; `stop` by a later [`Self::attach`].
    pub fn detach(mut self) -> Result<()> {
        self.detached = true;
        self.write_state()
    }

    /// Starts it on its ports and its data, after a stop or a kill.
    pub async fn restart(&mut self) -> Result<()> {
        let step = Step::begin(format!("starting {}", self.describe()));
        if !self.epmd.is_some_and(ProcessId::is_alive) {
            self.epmd = Some(self.start_epmd()?);
        }
        let log = fs::File::create(self.console_log())?;
        // setsid: a Ctrl-C in our terminal is for us to handle, not for the broker.
        let mut command = Command::new("nice");
        command
            .args(["-n", &self.niceness.to_string(), "setsid", SERVER])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        command.current_dir(&self.folder);
        self.set_environment(&mut command);
        let child = command.spawn().context("running nice")?;
        self.broker = spawned(&child);
        self.write_state()?;
        // Reaped in the background: who asks whether it lives looks at /proc.
        tokio::spawn(reap(child));
        self.wait_for_an_answer(Duration::from_secs(90)).await?;
        self.step_aside()?;
        step.done("ready");
        Ok(())
    }

    /// Stops it in order.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(broker) = self.broker.take() {
            broker.signal(Signal::SIGCONT);
            broker.signal(Signal::SIGTERM);
            if !broker.wait_gone(Duration::from_secs(60)).await {
                bail!(
                    "{} did not stop within a minute; {}",
                    self.describe(),
                    self.logs()
                );
            }
        }
        self.stop_epmd().await;
        self.write_state()
    }

    /// Kills it with SIGKILL, as a crash would.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(broker) = self.broker.take() {
            let tree = broker.tree();
            broker.signal(Signal::SIGKILL);
            for process in tree {
                process.wait_gone(Duration::from_secs(5)).await;
            }
        }
        self.stop_epmd().await;
        self.write_state()
    }

    /// Stops the clock for it: nothing answers, connections stay open.
    pub fn freeze(&self) {
        if let Some(broker) = self.broker {
            broker.signal(Signal::SIGSTOP);
        }
    }

    /// Lets it go on after [`Self::freeze`].
    pub fn thaw(&self) {
        if let Some(broker) = self.broker {
            broker.signal(Signal::SIGCONT);
        }
    }

    /// Kills it and removes its data.
    pub async fn destroy(mut self) -> Result<()> {
        self.kill().await?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("removing {}", self.folder.display()))
    }

    /// The URL of its default virtual host.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports.amqp)
    }

    /// The port it speaks AMQP on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<ProcessId> {
        self.broker
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("log/{}.log", self.node_name()))
    }

    /// Runs `rabbitmqctl` against it and returns what it printed.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(Path::new(SERVER).with_file_name("rabbitmqctl"));
        command
            .args(["--node", &self.node_name()])
            .args(arguments)
            .current_dir(&self.folder);
        self.set_environment(&mut command);
        let output = command.output().await?;
        if !output.status.success() {
            bail!(
                "rabbitmqctl {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Where the kernel groups processes by their session (sched(7), autogroup), a process' niceness counts among those
    /// of its session alone: the session has one of its own.
    fn step_aside(&self) -> Result<()> {
        let Some(broker) = self.broker.filter(|_| self.niceness > 0) else {
            return Ok(());
        };
        let file = format!("/proc/{}/autogroup", broker.number());
        match fs::write(&file, self.niceness.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written.context(file),
        }
    }

    fn describe(&self) -> String {
        format!("RabbitMQ on port {}", self.ports.amqp)
    }

    fn node_name(&self) -> String {
        format!("{}@localhost", self.name)
    }

    fn configuration(&self, settings: &[(&str, &str)]) -> String {
        let listener = format!("127.0.0.1:{}", self.ports.amqp);
        let largest = MAX_MESSAGE_BYTES.to_string();
        let mut lines = vec![
            ("listeners.tcp.1", listener.as_str()),
            ("max_message_size", &largest),
            ("loopback_users.guest", "true"),
            ("log.file.level", "info"),
            ("disk_free_limit.absolute", "200MB"),
        ];
        lines.extend_from_slice(settings);
        lines
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect()
    }

    fn set_environment(&self, command: &mut Command) {
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.to_string_lossy().starts_with("RABBITMQ_") {
                command.env_remove(name);
            }
        }
        let path = |inner: &str| self.folder.join(inner);
        command
            .env("RABBITMQ_NODENAME", self.node_name())
            .env("RABBITMQ_CONF_ENV_FILE", path("rabbitmq-env.conf"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", path("data/config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_PID_FILE", path("rabbitmq.pid"))
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // Where Erlang keeps its cookie.
            .env("HOME", path("home"))
            // The start script then becomes the broker, instead of watching over it: its process is ours.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            // It shares the machine with everything else here: no busy waiting, no bound schedulers.
            .env("RABBITMQ_SCHEDULER_BIND_TYPE", "u")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
            );
    }

    fn start_epmd(&self) -> Result<ProcessId> {
        let mut command = Command::new("setsid");
        command
            .args([
                "epmd",
                "-address",
                "127.0.0.1",
                "-port",
                &self.ports.epmd.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/");
        let child = command.spawn().context("running epmd, which comes with Erlang")?;
        let process = spawned(&child).context("epmd ended at once")?;
        tokio::spawn(reap(child));
        Ok(process)
    }

    async fn stop_epmd(&mut self) {
        if let Some(epmd) = self.epmd.take() {
            epmd.signal(Signal::SIGTERM);
            epmd.wait_gone(Duration::from_secs(2)).await;
        }
    }

    fn write_state(&self) -> Result<()> {
        let owner = if self.detached { None } else { ProcessId::current() };
        let state = State {
            ports: self.ports,
            broker: self.broker,
            epmd: self.epmd,
            owner,
        };
        state::write(&self.folder, &state)
    }

    async fn wait_for_an_answer(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let url = self.url();
        loop {
            let attempt = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
            let error = match tokio::time::timeout(Duration::from_secs(5), attempt).await {
                Ok(Ok(connection)) => {
                    connection.close(200, "ready".into()).await?;
                    return Ok(());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer within 5 s".to_owned(),
            };
            let ended = !self.broker.is_some_and(ProcessId::is_alive);
            if ended || Instant::now() > deadline {
                let what = if ended {
                    "ended by itself"
                } else {
                    "does not answer"
                };
                bail!("{} {what} ({error}); {}", self.describe(), self.logs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn console_log(&self) -> PathBuf {
        self.folder.join("log/console.log")
    }

    fn logs(&self) -> String {
        log_tail(&self.console_log())
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        if !self.detached {
            for process in [self.broker, self.epmd].into_iter().flatten() {
                process.signal(Signal::SIGKILL);
            }
        }
    }
}

/// The process to whose life the server of this folder is tied.
pub(super) fn owner(folder: &Path) -> Option<ProcessId> {
    state::read::<State>(folder)?.owner
}

fn spawned(child: &tokio::process::Child) -> Option<ProcessId> {
    ProcessId::find(i32::try_from(child.id()?).ok()?)
}

async fn reap(mut child: tokio::process::Child) {
    let _ = child.wait().await;
}
