//! The examples of docs/producers.md, run as they stand there.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::progress::say;
use e2e::publisher::unique_queue;
use e2e::servers::place;
use tokio::process::Command;

use crate::platform::{Flavor, Platform, setting};

/// The code block of a language.
fn example(language: &str) -> Result<String> {
    let page = std::fs::read_to_string(place::clone_root().join("docs/producers.md"))?;
    let (_, rest) = page
        .split_once(&format!("```{language}\n"))
        .with_context(|| format!("no example in {language}"))?;
    let (code, _) = rest.split_once("```").context("the example has no end")?;
    Ok(code.to_owned())
}

/// Runs it twice against a worker's queue, and once against a queue that is not there.
async fn publishes(language: &str, program: &str, needs: &str) -> Result<()> {
    let folder = place::clone_root().join(".local/producers");
    if !folder.join(needs).exists() {
        say(format_args!(
            "## NOT TESTED: the example in {language}, as deploy/local/install-producers.sh installed no client ##"
        ));
        return Ok(());
    }
    let program = match folder.join(program) {
        path if path.exists() => path,
        _ => PathBuf::from(program),
    };
    let file = folder.join(format!("{}.{language}", unique_queue("example")));
    std::fs::write(&file, example(language)?)?;
    let platform = Platform::new(Flavor::Postgres).await?;
    let _worker = platform.worker(&[]).await?;
    let url = setting("E2E_RABBITMQ_URL")?;
    let run = async |queue: &str| {
        Command::new(&program)
            .arg(&file)
            .env("RABBITMQ_URL", &url)
            .env("QUEUE_NAME", queue)
            .output()
            .await
    };
    for _ in 0..2 {
        let output = run(&platform.queue).await?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let nowhere = run(&unique_queue("nowhere")).await?;
    std::fs::remove_file(&file)?;
    ensure!(
        !nowhere.status.success(),
        "a message that reaches no queue is not noticed"
    );
    platform.wait_stored(2, 0).await?;
    let exact = "SELECT count(*) FROM usage_events WHERE model_name = 'llama-3-70b' AND cost = 0.002122 \
                 AND total_tokens = 135 AND latency_ms = 184";
    ensure!(platform.count(exact).await? == 2);
    Ok(())
}

#[tokio::test]
async fn the_example_in_python_works() -> Result<()> {
    publishes("python", "venv/bin/python", "venv/.installed").await
}

#[tokio::test]
async fn the_example_in_node_works() -> Result<()> {
    publishes("js", "node", "node_modules/amqplib").await
}
