//! How the services take their settings: line breaks of secrets, levels of the log, names that are nearly right, and
//! the address that they listen on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::process::Service;
use e2e::token::{Claims, SECRET};
use tokio::net::TcpStream;
use tokio::process::Command;
use uuid::Uuid;

use crate::platform::{Flavor, Platform, setting};

/// How a service ends that does not start: its exit code, and what it said.
async fn refused(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<(i32, String)> {
    let output = Command::new(PathBuf::from(setting(binary)?))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(20), output)
        .await
        .context("it does not end")??;
    let said = [output.stdout, output.stderr].concat();
    let code = output.status.code().context("ended by a signal")?;
    Ok((code, String::from_utf8_lossy(&said).into_owned()))
}

#[tokio::test]
async fn a_line_break_at_the_end_of_a_secret_is_no_part_of_it() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let organization = Uuid::new_v4();
    let secret = format!("{SECRET}\n");
    let url = format!("{}\r\n", platform.url_of("reader")?);
    let api = platform
        .api(&[("JWT_SECRET", &*secret), ("DATABASE_URL", &*url)])
        .await?;
    let answer = reqwest::Client::new()
        .get(api.url(&format!("/api/v1/analytics/orgs/{organization}/usage")))
        .bearer_auth(Claims::org_admin(organization).sign(SECRET)?)
        .send()
        .await?;
    ensure!(answer.status() == 200, "{}", answer.text().await?);
    let worker = platform
        .worker(&[("QUEUE_NAME", &*format!("{}\n", platform.queue))])
        .await?;
    drop(worker);

    for (key, value) in [
        ("JWT_SECRET", format!("{SECRET}\n\n")),
        ("JWT_SECRET", format!(" {SECRET}")),
        ("JWT_ISSUER", "issuer ".to_owned()),
        ("DATABASE_URL", format!("{} ", platform.url_of("reader")?)),
    ] {
        let url = platform.url_of("reader")?;
        let mut environment = vec![("DATABASE_URL", &*url), ("JWT_SECRET", SECRET)];
        environment.retain(|(name, _)| *name != key);
        environment.push((key, &value));
        let (code, said) = refused("E2E_API_BIN", &[], &environment).await?;
        ensure!(
            code == 1 && said.contains(key) && said.contains("white space"),
            "{code}: {said}"
        );
        ensure!(!said.contains(SECRET), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_level_that_is_none_stops_the_start() -> Result<()> {
    for binary in ["E2E_API_BIN", "E2E_WORKER_BIN"] {
        for level in ["inof", "info,debgu"] {
            let (code, said) = refused(binary, &[], &[("LOG_LEVEL", level)]).await?;
            ensure!(
                code == 1 && said.contains("LOG_LEVEL"),
                "{binary} {level}: {code}: {said}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_nearly_a_keys_is_warned_about() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let api = platform.api(&[("RATE_LIMIT_PER_SECND", "10")]).await?;
    let worker = platform.worker(&[("BATCH_SZE", "10"), ("HOME", "/")]).await?;
    for (service, variable, key) in [
        (&api, "RATE_LIMIT_PER_SECND", "RATE_LIMIT_PER_SECOND"),
        (&worker, "BATCH_SZE", "BATCH_SIZE"),
    ] {
        let log = service.log();
        let warnings: Vec<serde_json::Value> =
            log.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let warned: Vec<_> = warnings
            .iter()
            .filter(|line| !line["variable"].is_null())
            .collect();
        ensure!(
            matches!(warned.as_slice(), [line] if line["variable"] == variable && line["key"] == key && line["level"] == "WARN"),
            "{log}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_api_has_a_command_line() -> Result<()> {
    for (argument, code, word) in [
        ("--help", 0, "Usage: analytics-api"),
        ("--version", 0, "analytics-api 0."),
        ("--prot=1", 2, "--prot"),
        ("serve", 2, "serve"),
    ] {
        let (ended, said) = refused("E2E_API_BIN", &[argument], &[]).await?;
        ensure!(
            ended == code && said.contains(word),
            "{argument}: {ended}: {said}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_service_listens_where_it_is_told_to() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let of = async |service: &Service, host: &str| {
        let port = service.url("").rsplit_once(':').map(|(_, port)| port.to_owned());
        TcpStream::connect(format!("{host}:{}", port.unwrap_or_default()))
            .await
            .is_ok()
    };
    // All of 127.0.0.0/8 is this host's.
    let (everywhere, elsewhere) = ("127.0.0.1", ["127.0.0.2", "[::1]"]);
    let bound = [("BIND_ADDRESS", "127.0.0.1")];
    for (service, told) in [
        (platform.api(&[]).await?, false),
        (platform.worker(&[]).await?, false),
        (platform.api(&bound).await?, true),
        (platform.worker(&bound).await?, true),
    ] {
        ensure!(of(&service, everywhere).await);
        for host in elsewhere {
            ensure!(
                of(&service, host).await != told,
                "{host}, told where to listen: {told}"
            );
        }
    }
    let url = platform.url_of("reader")?;
    for address in ["localhost", "192.0.2.1"] {
        let environment = [
            ("DATABASE_URL", &*url),
            ("JWT_SECRET", SECRET),
            ("BIND_ADDRESS", address),
            ("PORT", "0"),
        ];
        let (code, said) = refused("E2E_API_BIN", &[], &environment).await?;
        ensure!(code == 1, "{address}: {said}");
    }
    Ok(())
}
