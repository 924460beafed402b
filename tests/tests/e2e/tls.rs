//! TLS to both servers, with certificates made here: the right CA works; another CA and another host are
//! refused, and the worker says so, and `collect`, which reaches the broker in a way of its own.

mod database;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::generator::{Generator, Shape};
use e2e::ports;
use e2e::process::{self, Service};
use e2e::publisher::{Publisher, Queues, unique_queue};
use e2e::servers::{Edition, Postgres, Profile, RabbitMq, place};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use time::OffsetDateTime;

use crate::platform::setting;

/// The role that the client's certificate is for.
const CLIENT: &str = "certified";
const NO_EVENT: &[u8] = b"{\"no\":\"event\"}";

/// A folder with a CA's certificate, another CA's, and a server's, which is for `localhost` only.
struct Certificates(PathBuf);

fn ca(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    Ok(CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?)
}

impl Certificates {
    fn make() -> Result<Self> {
        let folder = std::env::temp_dir().join(unique_queue("usage-analytics-tls"));
        fs::create_dir_all(&folder)?;
        let made = Self(folder);
        let right = ca("right")?;
        let key = KeyPair::generate()?;
        let server = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &right)?;
        fs::write(made.path("ca.pem"), right.pem())?;
        fs::write(made.path("other-ca.pem"), ca("other")?.pem())?;
        fs::write(made.path("no-ca.pem"), "this is no certificate\n")?;
        fs::write(made.path("server.pem"), server.pem())?;
        let client_key = KeyPair::generate()?;
        let mut client = CertificateParams::new(Vec::new())?;
        client.distinguished_name.push(rcgen::DnType::CommonName, CLIENT);
        fs::write(
            made.path("client.pem"),
            client.signed_by(&client_key, &right)?.pem(),
        )?;
        fs::write(made.path("client.key"), client_key.serialize_pem())?;
        // Each server is another user, and a key is its user's alone.
        for of in ["postgres.key", "rabbitmq.key"] {
            let path = made.path(of);
            fs::write(&path, key.serialize_pem())?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            if place::is_root() && of == "postgres.key" {
                let user = nix::unistd::User::from_name("postgres")?.context("no user postgres")?;
                nix::unistd::chown(&path, Some(user.uid), Some(user.gid))?;
            }
        }
        Ok(made)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Worker<'a> {
    binary: &'a Path,
    log: PathBuf,
    database: String,
    broker: String,
    ca_file: String,
    queue: &'a str,
}

impl Worker<'_> {
    fn environment(&self) -> [(&str, &str); 5] {
        [
            ("DATABASE_URL", &self.database),
            ("RABBITMQ_URL", &self.broker),
            ("RABBITMQ_CA_FILE", &self.ca_file),
            ("QUEUE_NAME", self.queue),
            ("MAINTENANCE_ENABLED", "false"),
        ]
    }

    fn launch(&self) -> Result<Service> {
        Service::launch(self.binary, &self.environment(), &self.log)
    }

    /// Runs `collect` to its end; what it said.
    async fn collect(&self) -> Result<(String, String)> {
        let environment = self.environment();
        let run = process::run(self.binary, &["collect"], &environment);
        tokio::time::timeout(Duration::from_secs(20), run)
            .await
            .context("it does not end")?
    }

    /// It does not get ready, and says why.
    async fn is_refused(&self, part: &str, because: &str) -> Result<()> {
        let worker = self.launch()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(answer) = reqwest::get(worker.url("/ready")).await {
                ensure!(answer.status() == 503, "it is ready");
                let said: Value = serde_json::from_str(&answer.text().await?)?;
                if said["because"][part]
                    .as_str()
                    .is_some_and(|why| why.contains(because))
                {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    bail!("{part} is not refused because of {because}: {said}");
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn certificates_of_both_servers_are_checked() -> Result<()> {
    let certificates = Certificates::make()?;
    let name = |server: &str| format!("tls-{}-{server}", std::process::id());
    let (certificate, key) = (certificates.text("server.pem"), certificates.text("postgres.key"));
    let settings = [
        ("ssl", "on"),
        ("ssl_cert_file", &*certificate),
        ("ssl_key_file", &*key),
    ];
    let amqps = ports::free()?;
    let (listener, key) = (format!("127.0.0.1:{amqps}"), certificates.text("rabbitmq.key"));
    let ca_file = certificates.text("ca.pem");
    let broker_settings = [
        ("listeners.ssl.1", &*listener),
        ("ssl_options.cacertfile", &*ca_file),
        ("ssl_options.certfile", &*certificate),
        ("ssl_options.keyfile", &*key),
        ("ssl_options.verify", "verify_none"),
    ];
    let (postgres_name, rabbitmq_name) = (name("postgres"), name("rabbitmq"));
    let (postgres, rabbitmq) = tokio::try_join!(
        Postgres::start(&postgres_name, Edition::Plain, Profile::Modest, &settings),
        RabbitMq::start(&rabbitmq_name, &broker_settings),
    )?;
    let checked = check(&certificates, &postgres, &rabbitmq, amqps).await;
    postgres.destroy().await?;
    rabbitmq.destroy().await?;
    checked
}

async fn check(
    certificates: &Certificates,
    postgres: &Postgres,
    rabbitmq: &RabbitMq,
    amqps: u16,
) -> Result<()> {
    postgres.ensure_database("usage").await?;
    let binary = PathBuf::from(setting("E2E_WORKER_BIN")?);
    let database = |host: &str, ca: &str| {
        format!(
            "postgres://postgres@{host}:{}/usage?sslmode=verify-full&sslrootcert={}",
            postgres.port(),
            certificates.text(ca)
        )
    };
    let broker = |host: &str| format!("amqps://guest:guest@{host}:{amqps}/%2f");
    let right = database("localhost", "ca.pem");
    process::run(&binary, &["migrate"], &[("DATABASE_URL", &right)]).await?;

    let queue = unique_queue("tls");
    let worker = |database: String, broker: String, ca: &str| Worker {
        binary: &binary,
        log: certificates.path(&format!("{}.log", unique_queue("worker"))),
        database,
        broker,
        ca_file: certificates.text(ca),
        queue: &queue,
    };
    let good = worker(right.clone(), broker("localhost"), "ca.pem");
    let mut running = good.launch()?;
    running.wait_ready(Duration::from_secs(20)).await?;
    let end = OffsetDateTime::now_utc();
    let shape = Shape {
        seed: 81,
        organizations: 3,
        start: end - time::Duration::minutes(50),
        end,
    };
    let publisher = Publisher::connect(&rabbitmq.url(), &queue).await?;
    publisher
        .publish(Generator::new(&shape).take(100).map(|event| event.body))
        .await?;
    let owner = postgres.connect("usage").await?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while owner
        .query_one("SELECT count(*) FROM usage_events", &[])
        .await?
        .get::<_, i64>(0)
        < 100
    {
        ensure!(Instant::now() < deadline, "events are not stored over TLS");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let plain = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
                 WHERE application_name LIKE 'ingest-worker%' AND NOT ssl";
    let plain: i64 = owner.query_one(plain, &[]).await?.get(0);
    ensure!(plain == 0, "{plain} sessions of the worker are not encrypted");
    running.terminate(Duration::from_secs(10)).await?;

    let other_ca = database("localhost", "other-ca.pem");
    worker(other_ca, broker("localhost"), "ca.pem")
        .is_refused("database", "UnknownIssuer")
        .await?;
    let other_host = database("127.0.0.1", "ca.pem");
    worker(other_host, broker("localhost"), "ca.pem")
        .is_refused("database", "not valid for name")
        .await?;
    worker(right.clone(), broker("localhost"), "other-ca.pem")
        .is_refused("broker", "UnknownIssuer")
        .await?;
    worker(right.clone(), broker("127.0.0.1"), "ca.pem")
        .is_refused("broker", "not valid for name")
        .await?;

    let dead_letter = format!("{queue}.dead-letter");
    let queues = Queues::connect(&rabbitmq.url()).await?;
    let given_up = Publisher::connect(&rabbitmq.url(), &dead_letter).await?;
    given_up.publish([NO_EVENT]).await?;
    queues
        .wait_ready(&dead_letter, 1, Duration::from_secs(20))
        .await?;
    let plain = format!("amqps://guest:guest@localhost:{}/%2f", rabbitmq.port());
    for (broker, ca, because) in [
        (broker("localhost"), "other-ca.pem", "UnknownIssuer"),
        (broker("127.0.0.1"), "ca.pem", "not valid for name"),
        (plain, "ca.pem", "corrupt message"),
    ] {
        let refused = worker(right.clone(), broker, ca).collect().await;
        let said = refused.err().context("it collected")?.to_string();
        ensure!(
            said.contains("exit status: 1") && said.contains(&dead_letter) && said.contains(because),
            "not {because}: {said}"
        );
    }
    ensure!(
        queues.ready(&dead_letter).await? == Some(1),
        "it took the message"
    );
    let (said, _) = good.collect().await?;
    ensure!(said.contains("dead letters: 1"), "{said}");
    let letters = "SELECT count(*) FROM dead_letters WHERE body = $1 AND queue = $2";
    let kept: i64 = owner.query_one(letters, &[&NO_EVENT, &dead_letter]).await?.get(0);
    ensure!(kept == 1, "{kept} dead letters");
    ensure!(
        queues.ready(&dead_letter).await? == Some(0),
        "the message is left"
    );

    // A file without a certificate is found before anything is tried.
    let mut stopped = worker(right, broker("localhost"), "no-ca.pem").launch()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while stopped.ended()?.is_none() {
        ensure!(Instant::now() < deadline, "it runs without a CA");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(stopped.log().contains("RABBITMQ_CA_FILE"), "{}", stopped.log());
    Ok(())
}
