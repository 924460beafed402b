//! Requests as callers and what stands before them really send them, byte by byte: with an empty chunked body, for the
//! head alone, in HTTP/1.0, and by clients that close their side once they have asked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::process::Service;
use e2e::token::{Claims, SECRET};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::platform::{Flavor, Platform};

/// What came back until the server closed the connection.
struct Reply {
    head: String,
    body: String,
}

impl Reply {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Writes the request, closes the writing side if asked to, and reads to the end.
async fn exchange(service: &Service, request: &str, half_close: bool) -> Result<Reply> {
    let address = service.url("");
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).await?;
    stream.write_all(request.as_bytes()).await?;
    if half_close {
        stream.shutdown().await?;
    }
    let mut read = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut read))
        .await
        .context("the connection stays open")??;
    let text = String::from_utf8_lossy(&read);
    let (head, body) = text.split_once("\r\n\r\n").context("no head")?;
    Ok(Reply {
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

/// A question of a fresh organization, and the header of who may ask it.
fn question() -> Result<(String, String)> {
    let organization = Uuid::new_v4();
    let token = Claims::org_admin(organization).sign(SECRET)?;
    Ok((
        format!("/api/v1/analytics/orgs/{organization}/usage"),
        format!("Authorization: Bearer {token}\r\n"),
    ))
}

#[tokio::test]
async fn an_empty_chunked_body_is_no_body() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let api = platform.api(&[]).await?;
    let (usage, token) = question()?;
    let chunked = |path: &str, body: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: api\r\n{token}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        )
    };
    for path in [&*usage, "/health", "/ready", "/metrics", "/api/v1/openapi.yaml"] {
        let reply = exchange(&api, &chunked(path, "0\r\n\r\n"), false).await?;
        ensure!(reply.status() == "200", "{path}: {}", reply.head);
        let with_a_body = exchange(&api, &chunked(path, "1\r\nx\r\n0\r\n\r\n"), false).await?;
        ensure!(with_a_body.status() == "413", "{path}: {}", with_a_body.head);
    }
    Ok(())
}

#[tokio::test]
async fn head_is_answered_wherever_get_is() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let (api, worker) = tokio::try_join!(platform.api(&[]), platform.worker(&[]))?;
    let (usage, token) = question()?;
    let ask = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: api\r\n{token}Connection: close\r\n\r\n")
    };
    for (service, path) in [
        (&api, &*usage),
        (&api, "/v1/organization/costs?start_time=2026-11-01T00:00:00Z"),
        (&api, "/health"),
        (&api, "/ready"),
        (&api, "/metrics"),
        (&api, "/api/v1/openapi.yaml"),
        (&worker, "/health"),
        (&worker, "/ready"),
        (&worker, "/metrics"),
    ] {
        let (head, get) = (
            exchange(service, &ask("HEAD", path), false).await?,
            exchange(service, &ask("GET", path), false).await?,
        );
        ensure!(get.status() == "200", "{path}: {}", get.head);
        ensure!(
            head.status() == "200" && head.body.is_empty(),
            "{path}: {}",
            head.head
        );
        ensure!(!get.body.is_empty(), "{path}");
        ensure!(
            head.header("content-type") == get.header("content-type"),
            "{path}: {}",
            head.head
        );
        let other = exchange(service, &ask("POST", path), false).await?;
        ensure!(other.status() == "405", "{path}: {}", other.head);
        ensure!(
            other
                .header("allow")
                .is_some_and(|allow| allow.contains("GET") && allow.contains("HEAD")),
            "{path}: {}",
            other.head
        );
    }
    Ok(())
}

#[tokio::test]
async fn http_1_0_has_no_chunks() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let api = platform.api(&[]).await?;
    let (usage, token) = question()?;
    // What is compressed or streamed has no length.
    for more in [
        "",
        "Accept-Encoding: gzip\r\n",
        "Accept: text/csv\r\n",
        "Accept: text/csv\r\nConnection: keep-alive\r\n",
    ] {
        let request = format!("GET {usage} HTTP/1.0\r\n{token}{more}\r\n");
        let reply = exchange(&api, &request, false).await?;
        ensure!(reply.status() == "200", "{more}: {}", reply.head);
        ensure!(
            reply.header("transfer-encoding").is_none() && !reply.body.starts_with("0\r\n"),
            "{more}: {}\n{}",
            reply.head,
            reply.body
        );
        if more.contains("csv") {
            ensure!(
                reply
                    .body
                    .trim_start_matches('\u{feff}')
                    .starts_with("start_time,"),
                "{}",
                reply.body
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_closes_its_side_gets_its_answer() -> Result<()> {
    let platform = Platform::new(Flavor::Postgres).await?;
    let api = platform.api(&[]).await?;
    let (usage, token) = question()?;
    for path in [&*usage, "/ready", "/health"] {
        for _ in 0..20 {
            let request = format!("GET {path} HTTP/1.1\r\nHost: api\r\n{token}\r\n");
            let reply = exchange(&api, &request, true).await?;
            ensure!(reply.status() == "200", "{path}: {}", reply.head);
            let _: serde_json::Value = serde_json::from_str(&reply.body)?;
        }
    }
    Ok(())
}
