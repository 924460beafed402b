//! A platform of one test: a migrated database and a queue of its own on the servers of the run, and the
//! real binaries with the rights that they have in production.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::api::Client;
use e2e::process::{self, Service};
use e2e::publisher::{Publisher, Queues, unique_queue};
use e2e::servers::connect;
use e2e::token::{Claims, SECRET};
use uuid::Uuid;

/// Which server, and with it which flavor of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    Postgres,
    TimescaleDb,
}

impl Flavor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::TimescaleDb => "timescaledb",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "E2E_POSTGRES_URL",
            Self::TimescaleDb => "E2E_TIMESCALEDB_URL",
        }
    }

    pub(crate) fn is_here(self) -> bool {
        std::env::var_os(self.variable()).is_some()
    }
}

pub(crate) fn setting(name: &str) -> Result<String> {
    std::env::var_os(name)
        .and_then(|value| value.into_string().ok())
        .with_context(|| format!("{name} is not set: run the suite by `make test`"))
}

/// What the tests of one database share.
pub(crate) struct Platform {
    /// Names of the database, the roles and the log files.
    name: String,
    server: String,
    pub(crate) queue: String,
    pub(crate) owner: tokio_postgres::Client,
    logs: PathBuf,
}

impl Platform {
    /// An empty database without a schema.
    pub(crate) async fn bare(flavor: Flavor) -> Result<Self> {
        let name = format!("e2e_{}", Uuid::new_v4().simple());
        let server = setting(flavor.variable())?;
        let admin = connect(&server).await?;
        for statement in [
            format!("CREATE DATABASE {name}"),
            format!("CREATE ROLE {name}_writer LOGIN"),
            format!("CREATE ROLE {name}_reader LOGIN"),
        ] {
            admin.batch_execute(&statement).await?;
        }
        let logs = PathBuf::from(setting("E2E_LOGS")?).join(&name);
        std::fs::create_dir_all(&logs)?;
        let owner = connect(&in_database(&server, &name, None)?).await?;
        Ok(Self {
            name,
            server,
            queue: unique_queue("usage-events"),
            owner,
            logs,
        })
    }

    /// A migrated database.
    pub(crate) async fn new(flavor: Flavor) -> Result<Self> {
        let platform = Self::bare(flavor).await?;
        platform.migrate(&[]).await?;
        Ok(platform)
    }

    pub(crate) fn owner_url(&self) -> Result<String> {
        in_database(&self.server, &self.name, None)
    }

    pub(crate) fn url_of(&self, right: &str) -> Result<String> {
        in_database(&self.server, &self.name, Some(&format!("{}_{right}", self.name)))
    }

    /// Runs a command of the worker as the owner.
    pub(crate) async fn command(&self, arguments: &[&str], more: &[(&str, &str)]) -> Result<String> {
        let (url, writer, reader) = (
            self.owner_url()?,
            format!("{}_writer", self.name),
            format!("{}_reader", self.name),
        );
        let mut environment = vec![
            ("DATABASE_URL", &*url),
            ("WRITER_ROLE", &*writer),
            ("READER_ROLE", &*reader),
        ];
        environment.extend(more);
        let binary = PathBuf::from(setting("E2E_WORKER_BIN")?);
        Ok(process::run(&binary, arguments, &environment).await?.0)
    }

    pub(crate) async fn migrate(&self, more: &[(&str, &str)]) -> Result<String> {
        self.command(&["migrate"], more).await
    }

    pub(crate) async fn maintain(&self) -> Result<String> {
        self.command(&["maintain"], &[]).await
    }

    /// A command of an operator, with the rights that it has in production.
    pub(crate) fn operator(
        &self,
        arguments: &[&str],
        more: &[(&str, &str)],
    ) -> Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(setting("E2E_WORKER_BIN")?);
        command
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", self.url_of("writer")?)
            .env("MAINTENANCE_DATABASE_URL", self.owner_url()?)
            .env("RABBITMQ_URL", setting("E2E_RABBITMQ_URL")?)
            .env("QUEUE_NAME", &self.queue)
            .env("LOG_FORMAT", "text")
            .envs(more.iter().copied())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }

    /// A worker with a writer's rights; maintenance is left to the test.
    pub(crate) async fn worker(&self, more: &[(&str, &str)]) -> Result<Service> {
        let mut worker = self.launch_worker(more)?;
        worker.wait_ready(Duration::from_secs(30)).await?;
        Ok(worker)
    }

    pub(crate) fn launch_worker(&self, more: &[(&str, &str)]) -> Result<Service> {
        let (database, broker) = (self.url_of("writer")?, setting("E2E_RABBITMQ_URL")?);
        let mut environment = vec![
            ("DATABASE_URL", &*database),
            ("RABBITMQ_URL", &*broker),
            ("QUEUE_NAME", &*self.queue),
            ("MAINTENANCE_ENABLED", "false"),
        ];
        environment.extend(more);
        let log = self.logs.join(format!("worker-{}.log", Uuid::new_v4().simple()));
        Service::launch(&PathBuf::from(setting("E2E_WORKER_BIN")?), &environment, &log)
    }

    /// The API with a reader's rights.
    pub(crate) async fn api(&self, more: &[(&str, &str)]) -> Result<Service> {
        let mut api = self.launch_api(more)?;
        api.wait_ready(Duration::from_secs(30)).await?;
        Ok(api)
    }

    pub(crate) fn launch_api(&self, more: &[(&str, &str)]) -> Result<Service> {
        let database = self.url_of("reader")?;
        let mut environment = vec![
            ("DATABASE_URL", &*database),
            ("JWT_SECRET", SECRET),
            // One caller asks everything here.
            ("RATE_LIMIT_PER_SECOND", "0"),
            ("SHUTDOWN_DELAY_SECONDS", "0"),
        ];
        environment.extend(more);
        let log = self.logs.join(format!("api-{}.log", Uuid::new_v4().simple()));
        Service::launch(&PathBuf::from(setting("E2E_API_BIN")?), &environment, &log)
    }

    pub(crate) async fn publisher(&self) -> Result<Publisher> {
        Publisher::connect(&setting("E2E_RABBITMQ_URL")?, &self.queue).await
    }

    /// Declares its queue, for messages that are there before the worker.
    pub(crate) async fn declare_queue(&self) -> Result<()> {
        let queues = Queues::connect(&setting("E2E_RABBITMQ_URL")?).await?;
        queues.declare_quorum(&self.queue, &[]).await
    }

    /// Waits until so many events are stored and so many messages are dead letters.
    pub(crate) async fn wait_stored(&self, events: i64, dead_letters: i64) -> Result<()> {
        let query = "SELECT (SELECT count(*) FROM usage_events), (SELECT count(*) FROM dead_letters)";
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let row = self.owner.query_one(query, &[]).await?;
            let found: (i64, i64) = (row.get(0), row.get(1));
            if found == (events, dead_letters) {
                return Ok(());
            }
            if Instant::now() > deadline || found.0 > events || found.1 > dead_letters {
                bail!(
                    "{found:?} events and dead letters are stored, not {:?}",
                    (events, dead_letters)
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a session of this database waits for a lock.
    pub(crate) async fn wait_for_a_lock_waiter(&self) -> Result<()> {
        let waiters = "SELECT count(*) FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.count(waiters).await? == 0 {
            if Instant::now() > deadline {
                bail!("nobody waits for a lock");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The name of a role of this database.
    pub(crate) fn role(&self, right: &str) -> String {
        format!("{}_{right}", self.name)
    }

    /// Takes the database away from the worker, or gives it back.
    pub(crate) async fn lock_out_the_writer(&self, out: bool) -> Result<()> {
        self.lock_out("writer", out).await
    }

    /// Takes the database away from a role, or gives it back.
    pub(crate) async fn lock_out(&self, right: &str, out: bool) -> Result<()> {
        let role = self.role(right);
        let statement = if out {
            format!(
                "ALTER ROLE {role} NOLOGIN; \
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
            )
        } else {
            format!("ALTER ROLE {role} LOGIN")
        };
        Ok(self.owner.batch_execute(&statement).await?)
    }

    /// What a role may do besides reading: relations it may change, and wider rights.
    pub(crate) async fn rights_beyond_reading(&self, right: &str) -> Result<Vec<String>> {
        let query = "SELECT relname::text AS may FROM pg_class \
             WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
             AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) \
             AND CASE relkind WHEN 'S' THEN has_sequence_privilege($1, oid, 'USAGE, UPDATE') \
             ELSE has_table_privilege($1, oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') END \
             UNION ALL SELECT 'schema ' || nspname FROM pg_namespace \
             WHERE has_schema_privilege($1, oid, 'CREATE') AND nspname !~ '^pg_' \
             UNION ALL SELECT 'database' WHERE has_database_privilege($1, current_database(), 'CREATE') \
             UNION ALL SELECT 'attributes' FROM pg_roles WHERE rolname = $1 \
             AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls) \
             UNION ALL SELECT 'member of ' || roleid::regrole FROM pg_auth_members \
             WHERE member::regrole::text = $1 \
             ORDER BY may";
        let rows = self.owner.query(query, &[&self.role(right)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    pub(crate) async fn count(&self, query: &str) -> Result<i64> {
        Ok(self.owner.query_one(query, &[]).await?.get(0))
    }
}

pub(crate) fn system_admin(api: &Service) -> Result<Client> {
    Client::new(&api.url("/"), &Claims::system_admin(), SECRET)
}

/// The URL of a database on the server, for its superuser or for a role.
fn in_database(server: &str, database: &str, role: Option<&str>) -> Result<String> {
    let mut url = reqwest::Url::parse(server)?;
    url.set_path(database);
    if let Some(role) = role {
        url.set_username(role)
            .ok()
            .context("the server's URL takes no user")?;
    }
    Ok(url.to_string())
}
