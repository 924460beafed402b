//! The files for those who own broker and database (`deploy/setup`): their roles suffice for everything, and their queue
//! is the one that the worker declares.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use e2e::generator::{Event, Generator, Shape};
use e2e::publisher::Queues;
use e2e::servers::connect;
use e2e::servers::place::clone_root;
use lapin::types::AMQPValue;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::platform::{Flavor, Platform, setting, system_admin};

crate::in_both_flavors!(roles_suffice_and_the_queue_is_the_same);

fn file(name: &str) -> Result<String> {
    let path = clone_root().join("deploy/setup").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Runs the statements by psql, as the file says.
async fn psql(url: &str, sql: &str) -> Result<()> {
    let mut command = tokio::process::Command::new("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", url]);
    for role in ["owner", "maintenance", "writer", "reader", "grafana"] {
        command.args(["-v", &format!("{role}_password=a_password")]);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut stdin = child.stdin.take().context("a pipe to psql")?;
    tokio::io::AsyncWriteExt::write_all(&mut stdin, sql.as_bytes()).await?;
    drop(stdin);
    let status = child.wait().await?;
    ensure!(status.success(), "psql: {status}");
    Ok(())
}

async fn roles_suffice_and_the_queue_is_the_same(flavor: Flavor) -> Result<()> {
    let platform = Platform::bare(flavor).await?;
    // Roles belong to the server: those of this test have names of their own.
    let name = platform.role("set_up");
    psql(
        &platform.owner_url()?,
        &file("roles.sql")?.replace("usage_", &format!("{name}_")),
    )
    .await?;
    if flavor == Flavor::TimescaleDb {
        let extension = "CREATE EXTENSION IF NOT EXISTS timescaledb";
        platform.owner.batch_execute(extension).await?;
    }
    let url = |role: &str| -> Result<String> {
        let mut url = reqwest::Url::parse(&platform.owner_url()?)?;
        let set = url.set_username(&format!("{name}_{role}"));
        ensure!(set.is_ok(), "the server's URL takes no user");
        Ok(url.to_string())
    };
    let (owner, maintenance, writer, reader) =
        (url("owner")?, url("maintenance")?, url("writer")?, url("reader")?);
    let granted = [
        ("DATABASE_URL", &*owner),
        ("DATABASE_FLAVOR", flavor.name()),
        ("WRITER_ROLE", &format!("{name}_writer")),
        ("READER_ROLE", &format!("{name}_reader")),
    ];
    platform.migrate(&granted).await?;
    let said = platform
        .command(&["maintain"], &[("DATABASE_URL", &*maintenance)])
        .await?;
    ensure!(said.contains("audit"), "{said}");

    let worker = platform
        .worker(&[("DATABASE_URL", &*writer), ("QUEUE_NAME", &platform.queue)])
        .await?;
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 251,
        organizations: 2,
        start: end - Duration::minutes(5),
        end,
    };
    let events: Vec<Event> = Generator::new(&shape).take(100).collect();
    let publisher = platform.publisher().await?;
    // Twice: the second time through a temporary table.
    for _ in 0..2 {
        publisher.publish(events.iter().map(|event| &event.body)).await?;
        platform.wait_stored(100, 0).await?;
    }
    worker.wait_acknowledged().await?;
    let api = platform.api(&[("DATABASE_URL", &*reader)]).await?;
    let answer = system_admin(&api)?
        .get("system/usage", &[("period", "last_24h")])
        .await?;
    ensure!(answer["totals"]["requests"] == 100, "{answer}");
    let grafana = connect(&url("grafana")?).await?;
    let rows = grafana.query_one("SELECT sum(request_count)::bigint FROM usage_daily", &[]);
    ensure!(rows.await?.get::<_, i64>(0) == 100);
    ensure!(grafana.batch_execute("DELETE FROM dead_letters").await.is_err());

    the_queue_is_the_same(&platform.queue).await?;

    drop((worker, api, grafana));
    Ok(())
}

/// The broker refuses to declare a queue again with other arguments.
async fn the_queue_is_the_same(queue: &str) -> Result<()> {
    let definitions: Value = serde_json::from_str(&file("rabbitmq-definitions.json")?)?;
    let queues = Queues::connect(&setting("E2E_RABBITMQ_URL")?).await?;
    for defined in definitions["queues"].as_array().context("queues")? {
        let name = defined["name"].as_str().context("a name")?;
        let name = name.replace("usage-events", queue);
        let arguments = defined["arguments"].as_object().context("arguments")?;
        let arguments: Vec<(&str, AMQPValue)> = arguments
            .iter()
            .map(|(key, value)| match value {
                Value::Number(number) => Ok((
                    &**key,
                    AMQPValue::LongLongInt(number.as_i64().context("a number")?),
                )),
                value => {
                    let text = value.as_str().context("a text")?;
                    Ok((
                        &**key,
                        AMQPValue::LongString(text.replace("usage-events", queue).into()),
                    ))
                }
            })
            .collect::<Result<_>>()?;
        queues.declare_quorum(&name, &arguments).await.context(name)?;
    }
    Ok(())
}
