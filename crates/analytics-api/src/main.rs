//! The `analytics-api` service.

use std::process::ExitCode;

use analytics_api::Application;
use analytics_api::config::{Config, KEYS};
use analytics_runtime::metrics_endpoint::MetricsEndpoint;
use analytics_runtime::settings::Settings;
use analytics_runtime::{logging, shutdown, tls};
use clap::Parser;

/// Answers questions about usage over HTTP.
#[derive(Parser)]
#[command(
    version,
    after_help = "Settings come from the environment; the README lists them."
)]
struct Arguments {}

#[tokio::main]
async fn main() -> ExitCode {
    Arguments::parse();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(
                clippy::print_stderr,
                reason = "what stops the start may be what logging needs"
            )]
            {
                eprintln!("analytics-api: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    tls::install_provider();
    let settings = Settings::load(KEYS)?;
    logging::init(&settings)?;
    let config = Config::from_settings(&settings)?;
    let application = Application::bind(&config, MetricsEndpoint::install()?)?;
    application
        .run(async {
            if let Err(error) = shutdown::signalled().await {
                tracing::error!(%error, "cannot listen for signals; stopping");
            }
        })
        .await?;
    Ok(())
}
