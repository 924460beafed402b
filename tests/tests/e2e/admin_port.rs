//! Probes and metrics on a port of their own, and secrets from files: how the services run in a cluster.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use e2e::ports;
use e2e::process::Service;

use crate::platform::{Flavor, Platform, setting};

crate::in_both_flavors!(
    the_admin_port_alone_has_probes_and_metrics,
    secrets_come_from_files
);

/// Waits until a service is ready on its admin port.
async fn ready(service: &mut Service, admin: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = service.ended()? {
            bail!("ended with {status}: {}", service.log());
        }
        if let Ok(200) = status(&format!("http://127.0.0.1:{admin}/ready")).await {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not ready: {}", service.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn status(url: &str) -> Result<u16> {
    Ok(reqwest::get(url).await?.status().as_u16())
}

async fn the_admin_port_alone_has_probes_and_metrics(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let admin = ports::free()?;
    let mut api = platform.launch_api(&[("ADMIN_PORT", &admin.to_string())])?;
    ready(&mut api, admin).await?;
    let on_admin = |path: &str| format!("http://127.0.0.1:{admin}{path}");
    for path in ["/health", "/ready", "/metrics"] {
        ensure!(status(&on_admin(path)).await? == 200, "{path}");
        ensure!(status(&api.url(path)).await? == 404, "{path} on PORT");
    }
    let question = "/api/v1/analytics/system/usage";
    ensure!(status(&api.url(question)).await? == 401);
    ensure!(status(&on_admin(question)).await? == 404);
    // Both ports are let go of in order.
    let (ended, _) = api.terminate(Duration::from_secs(20)).await?;
    ensure!(ended.success(), "{ended}");

    let admin = ports::free()?;
    let mut worker = platform.launch_worker(&[("ADMIN_PORT", &admin.to_string())])?;
    ready(&mut worker, admin).await?;
    ensure!(status(&format!("http://127.0.0.1:{admin}/metrics")).await? == 200);
    ensure!(
        status(&worker.url("/health")).await.is_err(),
        "the worker answers on PORT"
    );
    Ok(())
}

async fn secrets_come_from_files(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let folder = tempfile::tempdir()?;
    let file = |name: &str, value: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{value}\n"))?;
        Ok(path.to_string_lossy().into_owned())
    };
    let reader = file("reader", &platform.url_of("reader")?)?;
    let secret = file("secret", e2e::token::SECRET)?;
    // An empty variable is one that is not set.
    let mut api = platform.launch_api(&[
        ("DATABASE_URL", ""),
        ("DATABASE_URL_FILE", &reader),
        ("JWT_SECRET", ""),
        ("JWT_SECRET_FILE", &secret),
    ])?;
    api.wait_ready(Duration::from_secs(60)).await?;
    crate::platform::system_admin(&api)?
        .get("system/usage", &[("period", "last_24h")])
        .await?;

    let writer = file("writer", &platform.url_of("writer")?)?;
    let broker = file("broker", &setting("E2E_RABBITMQ_URL")?)?;
    let files = [
        ("DATABASE_URL", ""),
        ("DATABASE_URL_FILE", &*writer),
        ("RABBITMQ_URL", ""),
        ("RABBITMQ_URL_FILE", &*broker),
    ];
    let _worker = platform.worker(&files).await?;

    let gone = folder.path().join("gone").to_string_lossy().into_owned();
    for (more, said) in [
        (("RABBITMQ_URL_FILE", &*gone), "RABBITMQ_URL_FILE"),
        (
            ("DATABASE_URL", "postgres://twice"),
            "DATABASE_URL and DATABASE_URL_FILE are both set",
        ),
    ] {
        let mut all = files.to_vec();
        all.push(more);
        let mut refused = platform.launch_worker(&all)?;
        let why = refused.wait_ready(Duration::from_secs(20)).await.unwrap_err();
        let why = why.to_string();
        ensure!(
            why.contains("ended with exit status: 1") && why.contains(said),
            "{why}"
        );
    }
    Ok(())
}
