//! The commands of a developer's machine: `make up`, `make down`, `make test` and so on end here.

mod bench;
mod browser;
mod contract;
mod demo;
mod interrupt;
mod secrets;
mod services;
mod tables;
mod test;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use e2e::orphans;
use e2e::progress::say;

#[derive(Parser)]
#[command(about = "Private servers, tests, demo and benchmarks of this clone")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a private PostgreSQL and RabbitMQ, or find them running, and print their URLs.
    Up {
        /// PostgreSQL without TimescaleDB, even where it is installed.
        #[arg(long)]
        plain: bool,
    },
    /// Stop them; their data stays.
    Down,
    /// Everything at work on servers of its own, with two months of usage and live events; DEMO_SECONDS ends it
    /// and checks every answer.
    Demo {
        /// PostgreSQL without TimescaleDB, even where it is installed.
        #[arg(long)]
        plain: bool,
    },
    /// Throughput, memory, CPU and latency of the real path, and of questions; docs/decisions/benchmark.md has its
    /// settings.
    Bench,
    /// Start the API on servers of its own, with a month of usage, and run a command that is told where it is.
    Contract {
        /// PostgreSQL without TimescaleDB, even where it is installed.
        #[arg(long)]
        plain: bool,
        /// The command and its arguments, after `--`.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Build everything, start servers for the suite, run all tests, stop the servers.
    Test {
        /// The postgres flavor on TimescaleDB's Apache edition, in place of plain PostgreSQL.
        #[arg(long)]
        apache: bool,
        /// Arguments for `cargo test`, after `--`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Up { plain } => up::up(plain).await,
        Command::Down => up::down().await,
        Command::Demo { plain } => demo::run(plain).await,
        Command::Bench => bench::run().await,
        Command::Contract { plain, command } => contract::run(&command, plain).await,
        Command::Test { apache, arguments } => test::run(apache, &arguments).await,
    };
    // An interrupt may have come while something was started, here or in the tests.
    let cleaned = orphans::remove_ours_as_well().await.map(|()| ExitCode::SUCCESS);
    outcome
        .and_then(|code| cleaned.map(|_| code))
        .unwrap_or_else(|error| {
            say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        })
}
