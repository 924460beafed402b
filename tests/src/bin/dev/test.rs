//! `dev test`: the whole suite against servers of its own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::orphans;
use e2e::pid::ProcessId;
use e2e::progress::say;
use e2e::servers::{Edition, Postgres, Profile, RabbitMq, place};
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::browser;
use crate::interrupt::{self, Interrupt};
use crate::secrets;
use crate::services::built;

/// The worker under test has failpoints; no other build has.
const FEATURES: [&str; 2] = ["--features", "ingest-worker/failpoints"];
/// The suite is built as this program is: for debugging, or for a release, then only what is asked for, as each
/// program takes a while.
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };
const TARGETS: &[&str] = if cfg!(debug_assertions) {
    &["--bins", "--tests"]
} else {
    &["--bins"]
};

pub(crate) async fn run(apache: bool, arguments: &[String]) -> Result<ExitCode> {
    let mut interrupt = Interrupt::listen()?;
    // First what fails most often, and needs no server.
    let built = cargo(
        &mut interrupt,
        Command::new("cargo")
            .args(["build", "--workspace", "--profile", PROFILE])
            .args(TARGETS)
            .args(FEATURES),
    )
    .await?;
    if !matches!(built, Ended::With(0)) {
        return Ok(built.exit_code());
    }
    let Some(started) = interrupt.or(Suite::start(apache)).await else {
        return Ok(interrupt::exit_code());
    };
    let suite = started?;
    let ended = suite.run(&mut interrupt, arguments).await;
    suite.remove().await?;
    Ok(ended?.exit_code())
}

/// The servers of one run of the suite.
struct Suite {
    /// For the postgres flavor.
    plain: Postgres,
    edition: Edition,
    timescale: Option<Postgres>,
    rabbitmq: RabbitMq,
    /// Of the services that the tests start.
    logs: PathBuf,
}

impl Suite {
    async fn start(apache: bool) -> Result<Self> {
        orphans::remove_of_the_dead().await?;
        // Two runs of the suite in one clone do not meet.
        let name = |server: &str| format!("test-{}-{server}", std::process::id());
        let (plain_name, timescale_name, rabbitmq_name) =
            (name("postgres"), name("timescaledb"), name("rabbitmq"));
        let edition = if apache {
            Edition::TimescaleApache
        } else {
            Edition::Plain
        };
        let timescale = async {
            Ok(match Postgres::timescaledb_version() {
                None => None,
                Some(_) => {
                    Some(Postgres::start(&timescale_name, Edition::Timescale, Profile::Modest, &[]).await?)
                }
            })
        };
        let (plain, timescale, rabbitmq) = tokio::try_join!(
            Postgres::start(&plain_name, edition, Profile::Modest, &[]),
            timescale,
            RabbitMq::start(&rabbitmq_name, &[]),
        )?;
        Ok(Self {
            plain,
            edition,
            timescale,
            rabbitmq,
            logs: logs()?,
        })
    }

    async fn run(&self, interrupt: &mut Interrupt, arguments: &[String]) -> Result<Ended> {
        let mut command = Command::new("cargo");
        command
            .args(["test", "--workspace", "--profile", PROFILE])
            .args(FEATURES)
            .args(arguments);
        command
            .env("E2E_POSTGRES_URL", self.plain.url("postgres"))
            .env("E2E_RABBITMQ_URL", self.rabbitmq.url())
            .env("E2E_WORKER_BIN", built("ingest-worker")?)
            .env("E2E_LOGS", &self.logs)
            .env("E2E_API_BIN", built("analytics-api")?)
            // A test that failed says why in its error; a hundred lines of threads and runtimes hide it.
            .env("RUST_LIB_BACKTRACE", "0")
            .env_remove("E2E_TIMESCALEDB_URL")
            .env_remove("E2E_BROWSER");
        let browser = browser::to_test_with();
        if let Ok(browser) = &browser {
            command.env("E2E_BROWSER", browser);
        }
        if let Some(timescale) = &self.timescale {
            command.env("E2E_TIMESCALEDB_URL", timescale.url("postgres"));
        }
        self.say_which_flavors();
        browser::say(browser.as_ref());
        let ended = cargo(interrupt, &mut command).await;
        if matches!(ended, Ok(Ended::With(0))) {
            secrets::search(&self.logs)?;
            // Those of a suite that failed are still to be read.
            std::fs::remove_dir_all(&self.logs)?;
        }
        self.say_which_flavors();
        browser::say(browser.as_ref());
        ended
    }

    /// Said before and after the tests: a flavor that was not tested must not be overlooked.
    fn say_which_flavors(&self) {
        if self.edition == Edition::TimescaleApache {
            say("the postgres flavor is on TimescaleDB's Apache edition");
        }
        if self.timescale.is_some() {
            say("flavors under test: postgres, timescaledb");
        } else {
            say("flavors under test: postgres");
            say("##################################################################################");
            say("## NOT TESTED: the timescaledb flavor, as the server has no TimescaleDB package ##");
            say("##################################################################################");
        }
    }

    async fn remove(self) -> Result<()> {
        let timescale = async {
            match self.timescale {
                Some(server) => server.destroy().await,
                None => Ok(()),
            }
        };
        tokio::try_join!(self.plain.destroy(), timescale, self.rabbitmq.destroy())?;
        Ok(())
    }
}

/// An empty folder of this run.
fn logs() -> Result<PathBuf> {
    let name = format!("test-{}", std::process::id());
    let folder = std::env::temp_dir().join("usage-analytics-e2e").join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

enum Ended {
    With(i32),
    Interrupted,
}

impl Ended {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::With(code) => ExitCode::from(u8::try_from(*code).unwrap_or(1)),
            Self::Interrupted => interrupt::exit_code(),
        }
    }
}

async fn cargo(interrupt: &mut Interrupt, command: &mut Command) -> Result<Ended> {
    let mut child = command
        .current_dir(place::clone_root())
        .spawn()
        .context("running cargo")?;
    if let Some(status) = interrupt.or(child.wait()).await {
        return Ok(Ended::With(status?.code().unwrap_or(1)));
    }
    // A SIGTERM reached us alone: what cargo started must not outlive it.
    if let Some(cargo) = child.id().and_then(|id| ProcessId::find(i32::try_from(id).ok()?)) {
        let tree = cargo.tree();
        for process in &tree {
            process.signal(Signal::SIGTERM);
        }
        for process in tree {
            if !process.wait_gone(Duration::from_secs(10)).await {
                process.signal(Signal::SIGKILL);
            }
        }
    }
    child.wait().await?;
    Ok(Ended::Interrupted)
}
