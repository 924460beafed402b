//! The servers that these tests may break. One test at a time has them: a fault must not reach another
//! test, and two cores can carry one.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use e2e::servers::{Edition, Postgres, Profile, RabbitMq};
use tokio::sync::{Mutex, MutexGuard};

/// Which flavor of the schema, and with it which server.
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

    /// As the rest of the suite decides it: `make test` says loudly what is not tested.
    pub(crate) fn is_here(self) -> bool {
        self == Self::Postgres || std::env::var_os("E2E_TIMESCALEDB_URL").is_some()
    }

    fn edition(self) -> Edition {
        match self {
            Self::Postgres => Edition::Plain,
            Self::TimescaleDb => Edition::Timescale,
        }
    }
}

/// Settings of PostgreSQL that make faults quick to set up.
const POSTGRES: &[(&str, &str)] = &[("max_connections", "60"), ("log_checkpoints", "off")];

/// The servers, made when first needed. `make test` removes what is left when this process is gone.
#[derive(Default)]
struct Servers {
    postgres: Option<Postgres>,
    timescale: Option<Postgres>,
    rabbitmq: Option<RabbitMq>,
}

static SERVERS: LazyLock<Mutex<Servers>> = LazyLock::new(Mutex::default);

/// The servers, for one test.
pub(crate) struct Ground {
    servers: MutexGuard<'static, Servers>,
    pub(crate) flavor: Flavor,
    /// A server of this test alone, in place of the shared one.
    own: Option<Postgres>,
}

impl Ground {
    /// Waits for its turn, and sees to it that the servers run, whatever the test before did.
    pub(crate) async fn take(flavor: Flavor) -> Result<Self> {
        let servers = SERVERS.lock().await;
        let mut ground = Self {
            servers,
            flavor,
            own: None,
        };
        ground.postgres_anew().await.context("PostgreSQL")?;
        ground.rabbitmq_anew().await.context("RabbitMQ")?;
        Ok(ground)
    }

    /// With a PostgreSQL of the test's own, on a disk of 400 MiB. Only root can make one.
    pub(crate) async fn take_with_small_disk(flavor: Flavor) -> Result<Self> {
        let servers = SERVERS.lock().await;
        let name = format!("faults-{}-{}-small", std::process::id(), flavor.name());
        let settings = [
            POSTGRES,
            &[
                ("min_wal_size", "32MB"),
                ("max_wal_size", "64MB"),
                ("shared_buffers", "64MB"),
            ],
        ]
        .concat();
        let own = Postgres::start_on_small_disk(&name, flavor.edition(), 400, &settings).await?;
        let mut ground = Self {
            servers,
            flavor,
            own: Some(own),
        };
        ground.rabbitmq_anew().await.context("RabbitMQ")?;
        Ok(ground)
    }

    /// Removes what was the test's own.
    pub(crate) async fn give_back(mut self) -> Result<()> {
        match self.own.take() {
            Some(own) => own.destroy().await,
            None => Ok(()),
        }
    }

    async fn postgres_anew(&mut self) -> Result<()> {
        let flavor = self.flavor;
        let place = match flavor {
            Flavor::Postgres => &mut self.servers.postgres,
            Flavor::TimescaleDb => &mut self.servers.timescale,
        };
        match place {
            Some(server) if server.process().is_some_and(e2e::pid::ProcessId::is_alive) => server.thaw(),
            Some(server) => server.restart().await?,
            None => {
                let name = format!("faults-{}-{}", std::process::id(), flavor.name());
                let started = Postgres::start(&name, flavor.edition(), Profile::Modest, POSTGRES);
                *place = Some(started.await?);
            }
        }
        Ok(())
    }

    async fn rabbitmq_anew(&mut self) -> Result<()> {
        match &mut self.servers.rabbitmq {
            Some(broker) if broker.process().is_some_and(e2e::pid::ProcessId::is_alive) => broker.thaw(),
            Some(broker) => broker.restart().await?,
            place => {
                let name = format!("faults-{}-rabbitmq", std::process::id());
                // So that the queue's counts are those of a moment ago.
                let settings = [("collect_statistics_interval", "1000")];
                *place = Some(RabbitMq::start(&name, &settings).await?);
            }
        }
        Ok(())
    }

    pub(crate) fn postgres(&mut self) -> &mut Postgres {
        if let Some(own) = &mut self.own {
            return own;
        }
        match self.flavor {
            Flavor::Postgres => self.servers.postgres.as_mut().unwrap(),
            Flavor::TimescaleDb => self.servers.timescale.as_mut().unwrap(),
        }
    }

    pub(crate) fn rabbitmq(&mut self) -> &mut RabbitMq {
        self.servers.rabbitmq.as_mut().unwrap()
    }
}
