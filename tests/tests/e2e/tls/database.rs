//! `sslmode` in both spellings of a connection string: never weaker than it is asked for; and certificates of clients.

use std::path::Path;

use anyhow::{Result, ensure};
use e2e::process;
use e2e::servers::{Edition, Postgres, Profile};

use super::{CLIENT, Certificates};
use crate::platform::setting;

const UNKNOWN_CA: &str = "UnknownIssuer";
const OTHER_NAME: &str = "not valid for name";

/// What `maintain` says to a connection string, in both spellings, if it is refused.
async fn refusals(url: &str, pairs: &str) -> Result<[Option<String>; 2]> {
    let binary = setting("E2E_WORKER_BIN")?;
    let mut said = [None, None];
    for (said, text) in said.iter_mut().zip([url, pairs]) {
        let environment = [("DATABASE_URL", text), ("LOG_FORMAT", "text")];
        let ran = process::run(Path::new(&binary), &["maintain"], &environment).await;
        *said = ran.err().map(|error| error.to_string());
    }
    Ok(said)
}

#[tokio::test]
async fn no_connection_is_weaker_than_it_is_asked_for() -> Result<()> {
    let certificates = Certificates::make()?;
    let (certificate, key) = (certificates.text("server.pem"), certificates.text("postgres.key"));
    let ca = certificates.text("ca.pem");
    let settings = [
        ("ssl", "on"),
        ("ssl_cert_file", &*certificate),
        ("ssl_key_file", &*key),
        ("ssl_ca_file", &*ca),
    ];
    let name = |server: &str| format!("sslmode-{}-{server}", std::process::id());
    let (with_name, without_name) = (name("with"), name("without"));
    let (with, without) = tokio::try_join!(
        Postgres::start(&with_name, Edition::Plain, Profile::Modest, &settings),
        Postgres::start(&without_name, Edition::Plain, Profile::Modest, &[]),
    )?;
    let checked = check(&certificates, &with, &without).await;
    with.destroy().await?;
    without.destroy().await?;
    checked
}

async fn check(certificates: &Certificates, with: &Postgres, without: &Postgres) -> Result<()> {
    let binary = setting("E2E_WORKER_BIN")?;
    for server in [with, without] {
        server.ensure_database("usage").await?;
        let url = server.url("usage");
        process::run(Path::new(&binary), &["migrate"], &[("DATABASE_URL", &url)]).await?;
    }
    let owner = with.connect("usage").await?;
    owner
        .batch_execute(&format!("CREATE ROLE {CLIENT} LOGIN SUPERUSER"))
        .await?;
    with.ask_for_certificate(CLIENT).await?;
    let file = |name: &str| certificates.text(name);
    let (ca, other_ca) = (
        ("sslrootcert", file("ca.pem")),
        ("sslrootcert", file("other-ca.pem")),
    );
    let mode = |mode: &str| ("sslmode", mode.to_owned());
    let (cert, own_key) = (("sslcert", file("client.pem")), ("sslkey", file("client.key")));
    let any = "postgres";
    for (server, role, host, parameters, refusal) in [
        (without, any, "localhost", vec![], None),
        (without, any, "localhost", vec![mode("allow")], None),
        (without, any, "localhost", vec![mode("require")], Some("TLS")),
        (
            without,
            any,
            "localhost",
            vec![mode("verify-ca"), ca.clone()],
            Some("TLS"),
        ),
        (
            without,
            any,
            "localhost",
            vec![mode("verify-full"), ca.clone()],
            Some("TLS"),
        ),
        (with, any, "127.0.0.1", vec![mode("require")], None),
        (with, any, "127.0.0.1", vec![mode("require"), ca.clone()], None),
        (
            with,
            any,
            "127.0.0.1",
            vec![mode("require"), other_ca.clone()],
            Some(UNKNOWN_CA),
        ),
        (with, any, "127.0.0.1", vec![mode("verify-ca"), ca.clone()], None),
        (
            with,
            any,
            "localhost",
            vec![mode("verify-ca"), other_ca.clone()],
            Some(UNKNOWN_CA),
        ),
        (
            with,
            any,
            "localhost",
            vec![mode("verify-ca")],
            Some("sslrootcert"),
        ),
        (
            with,
            any,
            "localhost",
            vec![mode("verify-full"), ca.clone()],
            None,
        ),
        (
            with,
            any,
            "127.0.0.1",
            vec![mode("verify-full"), ca.clone()],
            Some(OTHER_NAME),
        ),
        (
            with,
            any,
            "localhost",
            vec![mode("verify-full"), other_ca.clone()],
            Some(UNKNOWN_CA),
        ),
        (
            with,
            any,
            "localhost",
            vec![("sslrootcert", "system".to_owned())],
            Some(UNKNOWN_CA),
        ),
        (
            with,
            any,
            "localhost",
            vec![mode("require"), ("sslrootcert", "system".to_owned())],
            Some("verify-full"),
        ),
        (
            with,
            any,
            "localhost",
            vec![mode("require"), ("sslcrl", file("ca.pem"))],
            Some("sslcrl"),
        ),
        (
            with,
            CLIENT,
            "localhost",
            vec![mode("require"), cert.clone(), own_key.clone()],
            None,
        ),
        (
            with,
            CLIENT,
            "localhost",
            vec![mode("verify-full"), ca.clone(), cert.clone(), own_key.clone()],
            None,
        ),
        (
            with,
            CLIENT,
            "localhost",
            vec![mode("require")],
            Some("certificate"),
        ),
        (
            with,
            CLIENT,
            "localhost",
            vec![mode("require"), cert.clone()],
            Some("sslkey"),
        ),
        (
            with,
            CLIENT,
            "localhost",
            vec![mode("disable"), cert.clone(), own_key.clone()],
            Some("pg_hba"),
        ),
    ] {
        let port = server.port();
        let query: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let url = format!("postgres://{role}@{host}:{port}/usage?{}", query.join("&"));
        let pairs = format!(
            "host={host} port={port} user={role} dbname=usage {}",
            query.join(" ")
        );
        for said in refusals(&url, pairs.trim_end()).await? {
            match (refusal, &said) {
                (None, None) => {}
                (Some(word), Some(said)) if said.contains(word) => {}
                _ => ensure!(false, "{url}: expected {refusal:?}, got {said:?}"),
            }
        }
    }
    Ok(())
}
