//! `dev up` and `dev down`: servers that outlive the command.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use e2e::orphans;
use e2e::progress::say;
use e2e::servers::{self, Edition, Postgres, Profile, RabbitMq};

use crate::interrupt::{self, Interrupt};

const POSTGRES: &str = "up-postgres";
const TIMESCALEDB: &str = "up-timescaledb";
const RABBITMQ: &str = "up-rabbitmq";
const DATABASE: &str = "usage_analytics";

pub(crate) async fn up(plain: bool) -> Result<ExitCode> {
    let mut interrupt = Interrupt::listen()?;
    match interrupt.or(start(plain)).await {
        Some(outcome) => outcome.map(|()| ExitCode::SUCCESS),
        None => Ok(interrupt::exit_code()),
    }
}

async fn start(plain: bool) -> Result<()> {
    orphans::remove_of_the_dead().await?;
    let (postgres, rabbitmq) = tokio::try_join!(find_or_start_postgres(plain), find_or_start_rabbitmq())?;
    postgres.ensure_database(DATABASE).await?;
    writeln!(
        std::io::stdout(),
        "export DATABASE_URL='{}'\nexport RABBITMQ_URL='{}'",
        postgres.url(DATABASE),
        rabbitmq.url()
    )?;
    postgres.detach()?;
    rabbitmq.detach()
}

async fn find_or_start_postgres(plain: bool) -> Result<Postgres> {
    // Each kind has its own data: a database that uses TimescaleDB does not open without it.
    let edition = Edition::to_try(plain);
    let (name, other) = match edition {
        Edition::Plain => (POSTGRES, TIMESCALEDB),
        _ => (TIMESCALEDB, POSTGRES),
    };
    if let Some(mut other) = Postgres::attach(other)? {
        say(format_args!(
            "stopping PostgreSQL ({}) first",
            other.edition().label()
        ));
        other.stop().await?;
    }
    if let Some(running) = Postgres::attach(name)? {
        say(format_args!(
            "PostgreSQL ({}) runs already on port {}",
            edition.label(),
            running.port()
        ));
        return Ok(running);
    }
    Postgres::start(name, edition, Profile::Modest, &[]).await
}

async fn find_or_start_rabbitmq() -> Result<RabbitMq> {
    if let Some(running) = RabbitMq::attach(RABBITMQ)? {
        say(format_args!("RabbitMQ runs already on port {}", running.port()));
        return Ok(running);
    }
    RabbitMq::start(RABBITMQ, &[]).await
}

pub(crate) async fn down() -> Result<ExitCode> {
    orphans::remove_of_the_dead().await?;
    match servers::stop_detached().await? {
        0 => say("nothing to stop: `up` started no server that still runs"),
        n => say(format_args!("stopped {n} servers; their data stays")),
    }
    Ok(ExitCode::SUCCESS)
}
