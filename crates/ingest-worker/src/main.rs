//! The command line of the ingest-worker.

use std::process::ExitCode;
use std::sync::Arc;

use analytics_runtime::metrics_endpoint::MetricsEndpoint;
use analytics_runtime::settings::Settings;
use analytics_runtime::{listener, logging, shutdown, tls, version};
use anyhow::Context;
use clap::{Parser, Subcommand};
use ingest_worker::config::{self, KEYS, MaintenanceConfig, MigrateConfig, OperatorConfig, WorkerConfig};
use ingest_worker::operator::{self, collect, dead_letters, import, reconcile};
use ingest_worker::status::Status;
use ingest_worker::{amqp, failpoint, maintenance, migrate, probes, worker};
use tokio_util::sync::CancellationToken;

/// An event is a dozen small allocations: glibc's allocator took nearly half of the worker's time
/// (docs/decisions/lanes.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Stores usage events: from RabbitMQ to PostgreSQL, each once.
#[derive(Parser)]
#[command(
    version = version::text(),
    after_help = "Settings come from the environment; the README lists them."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Consume the queue (what is done without a command)
    Run,
    /// Bring the database to this build's schema; safe from several places at once
    Migrate,
    /// Do every maintenance step once, waiting for whoever is at it
    Maintain,
    /// Work off the messages that could not become events
    #[command(subcommand, after_help = EXIT_CODES)]
    DeadLetters(dead_letters::Command),
    /// Store events from files of one a line; safe to run again
    #[command(after_help = EXIT_CODES)]
    Import(import::Arguments),
    /// Compare raw events with every rollup, and mend what differs
    #[command(after_help = EXIT_CODES)]
    Reconcile(reconcile::Arguments),
    /// Bring in what the broker gave up on: the queue QUEUE_NAME.dead-letter, until it is empty
    #[command(after_help = EXIT_CODES)]
    Collect,
}

const EXIT_CODES: &str = "Exit code: 0 done, 1 could not be done, 2 the command line was not understood, \
3 something is left that needs a look, 130 stopped before the end.";

fn main() -> ExitCode {
    // The broker's client reads nested headers by recursion. Memory is taken as far as it is used.
    let main = std::thread::Builder::new()
        .name("main".to_owned())
        .stack_size(amqp::STACK)
        .spawn(main_thread);
    match main.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        // The panic has been told.
        Ok(Err(_)) => ExitCode::FAILURE,
        Err(error) => {
            let stack = amqp::STACK >> 20;
            say_error(&format!(
                "no thread with a stack of {stack} MiB of address space: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

// One thread: the databases and the broker are busy long before it is (docs/decisions/lanes.md).
#[tokio::main(flavor = "current_thread")]
async fn main_thread() -> ExitCode {
    tls::install_provider();
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let settings = match Settings::load(KEYS) {
        Ok(settings) => settings,
        Err(error) => {
            // Logging is configured by the settings that could not be read.
            let _ = logging::init(&Settings::from_map(KEYS, [])?);
            return Err(error.into());
        }
    };
    logging::init(&settings).or_else(|error| {
        let _ = logging::init(&Settings::from_map(KEYS, [])?);
        Err(error)
    })?;
    failpoint::check().map_err(anyhow::Error::msg)?;
    match arguments.command.unwrap_or(Command::Run) {
        Command::Run => consume(&settings).await?,
        Command::Migrate => {
            let migrated = migrate::migrate(&MigrateConfig::read(&settings)?).await?;
            say(&format!(
                "flavor {}: {}",
                migrated.flavor.name(),
                migrated.because
            ));
            match migrated.applied.as_slice() {
                [] => say("nothing to apply: the schema is up to date"),
                applied => say(&format!("applied {}", applied.join(", "))),
            }
        }
        Command::Maintain => {
            for line in maintenance::once(&MaintenanceConfig::read(&settings)?).await? {
                say(&line);
            }
        }
        Command::DeadLetters(command) => {
            let config = OperatorConfig::read(&settings)?;
            return Ok(operator::exit_code(
                dead_letters::run(&command, &config, stop_signal()).await,
            ));
        }
        Command::Import(arguments) => {
            let config = OperatorConfig::read(&settings)?;
            return Ok(operator::exit_code(
                import::run(&arguments, &config, stop_signal()).await,
            ));
        }
        Command::Reconcile(arguments) => {
            let config = OperatorConfig::read(&settings)?;
            return Ok(operator::exit_code(
                reconcile::run(&arguments, &config, stop_signal()).await,
            ));
        }
        Command::Collect => {
            let broker = config::broker(&settings)?;
            let config = OperatorConfig::read(&settings)?;
            return Ok(operator::exit_code(
                collect::run(&broker, &config, stop_signal()).await,
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Cancelled by the first SIGTERM or SIGINT.
fn stop_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let signal = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = shutdown::signalled().await {
            tracing::error!(%error, "signals cannot be heard");
        }
        signal.cancel();
    });
    stop
}

async fn consume(settings: &Settings) -> anyhow::Result<()> {
    let config = WorkerConfig::read(settings)?;
    let metrics = MetricsEndpoint::install().context("the metrics recorder")?;
    let status = Arc::new(Status::default());
    let listener = listener::listen(config.bind_address, config.port).context(
        "the port of the probes (ADMIN_PORT, or PORT) cannot be opened, or BIND_ADDRESS is not this host's",
    )?;
    let probes = probes::server(listener, Arc::clone(&status), metrics)?;
    let probes_handle = probes.handle();
    let probes = tokio::spawn(probes);
    let ran = worker::run(config, status, stop_signal()).await;
    probes_handle.stop(false).await;
    probes.await.context("the probes")??;
    tracing::info!("stopped");
    Ok(ran?)
}

/// For what happens before there is a log.
#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn say_error(line: &str) {
    eprintln!("{line}");
}

/// The answer of a command, for whoever called it.
#[expect(clippy::print_stdout, reason = "the output of a command line tool")]
fn say(line: &str) {
    println!("{line}");
}
