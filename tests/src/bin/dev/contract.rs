//! `dev contract`: the real API on servers of its own, with a month of usage, for a command that holds it
//! against its contract.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use e2e::generator::{Event, Generator, Shape};
use e2e::orphans;
use e2e::progress::Step;
use e2e::publisher::{Publisher, Queues};
use e2e::servers::{Edition, Postgres, Profile, RabbitMq, place};
use e2e::token::{Claims, SECRET};
use time::OffsetDateTime;
use tokio::process::Command;

use crate::interrupt::{self, Interrupt};
use crate::services::Services;

const DATABASE: &str = "usage_analytics";
const QUEUE: &str = "usage-events";
const EVENTS: usize = 20_000;

pub(crate) async fn run(command: &[String], plain: bool) -> Result<ExitCode> {
    let mut interrupt = Interrupt::listen()?;
    orphans::remove_of_the_dead().await?;
    let name = |server: &str| format!("contract-{}-{server}", std::process::id());
    let (postgres_name, rabbitmq_name) = (name("postgres"), name("rabbitmq"));
    let edition = Edition::to_try(plain);
    let started = interrupt
        .or(async {
            tokio::try_join!(
                Postgres::start(&postgres_name, edition, Profile::Modest, &[]),
                RabbitMq::start(&rabbitmq_name, &[])
            )
        })
        .await;
    let Some(started) = started else {
        return Ok(interrupt::exit_code());
    };
    let (postgres, rabbitmq) = started?;
    let ended = interrupt.or(held_against(command, &postgres, &rabbitmq)).await;
    tokio::try_join!(postgres.destroy(), rabbitmq.destroy())?;
    ended.unwrap_or_else(|| Ok(interrupt::exit_code()))
}

async fn held_against(command: &[String], postgres: &Postgres, rabbitmq: &RabbitMq) -> Result<ExitCode> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("no command");
    };
    postgres.ensure_database(DATABASE).await?;
    let services = Services::new(postgres.url(DATABASE), rabbitmq.url(), QUEUE, "contract-logs")?;
    services.migrate().await?;
    let (worker, api) = tokio::try_join!(services.start_worker(&[]), services.start_api(&[]))?;

    let step = Step::begin(format!("publishing {EVENTS} events"));
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 7,
        organizations: 20,
        start: end - time::Duration::days(30),
        end,
    };
    let events: Vec<Event> = Generator::new(&shape).take(EVENTS).collect();
    let publisher = Publisher::connect(&rabbitmq.url(), QUEUE).await?;
    publisher.publish(events.iter().map(|event| &event.body)).await?;
    let queues = Queues::connect(&rabbitmq.url()).await?;
    queues
        .wait_ready(QUEUE, 0, std::time::Duration::from_secs(60))
        .await?;
    step.done("consumed");

    let (org_id, user_id) = (events[0].fact.org_id, events[0].fact.user_id);
    let status = Command::new(program)
        .args(arguments)
        .current_dir(place::clone_root())
        .env("API_URL", api.url(""))
        .env("ORG_ID", org_id.to_string())
        .env("SYSTEM_ADMIN_TOKEN", Claims::system_admin().sign(SECRET)?)
        .env("ORG_ADMIN_TOKEN", Claims::org_admin(org_id).sign(SECRET)?)
        .env("ORG_USER_TOKEN", Claims::org_user(org_id, user_id).sign(SECRET)?)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("running {program}"))?;
    drop((worker, api));
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    ))
}
