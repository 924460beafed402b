//! The worker's settings.

use std::net::IpAddr;
use std::time::Duration;

use analytics_core::schema::Flavor;
use analytics_runtime::postgres::Database;
use analytics_runtime::settings::{Key, Settings, SettingsError};
use analytics_runtime::tls::TlsError;

use crate::amqp::{Address, AddressError, Files};

/// Every key that the worker knows besides the shared ones.
pub const KEYS: &[Key] = &[
    Key {
        name: "PORT",
        default: Some("8081"),
        help: "TCP port of /health, /ready and /metrics; 0 takes a free one",
    },
    Key {
        name: "ADMIN_PORT",
        default: None,
        help: "the same port, by the name that both services know; wins over PORT",
    },
    Key {
        name: "DATABASE_URL",
        default: None,
        help: "postgres://user:password@host:5432/database?sslmode=verify-full&sslrootcert=FILE; needs INSERT on usage_events",
    },
    Key {
        name: "MAINTENANCE_DATABASE_URL",
        default: None,
        help: "the same for migrations and maintenance, which need the owner of the tables or a member of it; default: DATABASE_URL",
    },
    Key {
        name: "DATABASE_FLAVOR",
        default: None,
        help: "timescaledb or postgres: what `migrate` makes of a database without a schema; default: what the server offers",
    },
    Key {
        name: "WRITER_ROLE",
        default: None,
        help: "role that `migrate` grants what the worker needs",
    },
    Key {
        name: "READER_ROLE",
        default: None,
        help: "role that `migrate` grants what the API needs",
    },
    Key {
        name: "RABBITMQ_URL",
        default: None,
        help: "amqp://user:password@host:5672,host2:5672/vhost?heartbeat=10 or amqps://, percent-encoded; an empty path is the vhost /; hosts are tried in turn",
    },
    Key {
        name: "RABBITMQ_CA_FILE",
        default: None,
        help: "PEM file of CA certificates for amqps://; default: the system's",
    },
    Key {
        name: "RABBITMQ_CERT_FILE",
        default: None,
        help: "PEM file of the worker's own certificate for amqps://; with ?auth_mechanism=external it is the login",
    },
    Key {
        name: "RABBITMQ_KEY_FILE",
        default: None,
        help: "PEM file of its key",
    },
    Key {
        name: "QUEUE_NAME",
        default: Some("usage-events"),
        help: "queue of usage events, 1 to 200 bytes; used as it is found, else declared as a durable quorum queue",
    },
    Key {
        name: "CONSUMER_WORKERS",
        default: Some("5"),
        help: "consumers, each with its own channel, 1 to 64",
    },
    Key {
        name: "WRITER_LANES",
        default: Some("2"),
        help: "lanes that write batches, each with its own database connection and its own organizations, 1 to 64",
    },
    Key {
        name: "BATCH_SIZE",
        default: Some("12500"),
        help: "deliveries that close a batch, 1 to 100000",
    },
    Key {
        name: "BATCH_MAX_AGE_MS",
        default: Some("250"),
        help: "milliseconds after which a batch closes at the latest, counted from its first delivery, 1 to 60000",
    },
    Key {
        name: "PREFETCH",
        default: Some("10000"),
        help: "unacknowledged deliveries per consumer, 1 to 65535; with CONSUMER_WORKERS at least twice WRITER_LANES x BATCH_SIZE, or batches do not fill.",
    },
    Key {
        name: "MEMORY_BUDGET_MIB",
        default: Some("72"),
        help: "MiB of messages that are held, bodies and headers, 8 to 65536; the window shrinks and grows with their size. The process needs about 100 MiB more",
    },
    Key {
        name: "BATCH_DEADLINE_SECONDS",
        default: Some("60"),
        help: "seconds that the transaction of a batch may take; then the server is told to give it up, and it is written in halves, 1 to 600",
    },
    Key {
        name: "MAX_HOLD_SECONDS",
        default: Some("600"),
        help: "seconds that deliveries are held while none can be stored; then they are given back, and the worker waits for the database, 1 to 1500. The broker's own limit is 30 minutes",
    },
    Key {
        name: "BRAKE_MALFORMED_PERCENT",
        default: Some("0"),
        help: "percent of malformed messages above which the worker stops consuming until it is started again, 0 to 99; 0: it never does",
    },
    Key {
        name: "MAINTENANCE_ENABLED",
        default: Some("true"),
        help: "true or false: whether this process may do the maintenance; one process at a time does",
    },
    Key {
        name: "RAW_RETENTION_DAYS",
        default: Some("90"),
        help: "days that raw events are kept, 2 to 3650",
    },
    Key {
        name: "ROLLUP_RETENTION_MONTHS",
        default: Some("13"),
        help: "months that rollups are kept, 1 to 120; longer than raw events",
    },
    Key {
        name: "DEAD_LETTER_RETENTION_DAYS",
        default: Some("90"),
        help: "days that dead letters are kept, 1 to 3650",
    },
];

/// What the worker needs to run.
#[derive(Clone)]
pub struct WorkerConfig {
    /// Port of the probes.
    pub port: u16,
    /// The address to listen on; without one, all of the host's.
    pub bind_address: Option<IpAddr>,
    /// Where events go.
    pub database: Database,
    /// Where they come from.
    pub broker: Address,
    /// The queue's name.
    pub queue: String,
    /// Consumers.
    pub consumers: usize,
    /// Lanes that write.
    pub lanes: usize,
    /// Deliveries that close a batch.
    pub batch_size: usize,
    /// Age that closes a batch.
    pub batch_max_age: Duration,
    /// Unacknowledged deliveries per consumer.
    pub prefetch: u16,
    /// Bytes of messages that are held.
    pub memory_budget: usize,
    /// How long the transaction of a batch may take.
    pub batch_deadline: Duration,
    /// How long deliveries are held of which none can be stored.
    pub max_hold: Duration,
    /// Percent of malformed messages above which nothing more is consumed; 0: no limit.
    pub brake_percent: u64,
    /// The maintenance that this process may do.
    pub maintenance: Option<MaintenanceConfig>,
}

/// What maintenance needs.
#[derive(Clone)]
pub struct MaintenanceConfig {
    /// The database, as the owner of the tables or a member of it.
    pub database: Database,
    /// Days that raw events are kept.
    pub raw_retention_days: i32,
    /// Months that rollups are kept.
    pub rollup_retention_months: i32,
    /// Days that dead letters are kept.
    pub dead_letter_retention_days: i32,
}

/// What the operator's commands need.
#[derive(Clone)]
pub struct OperatorConfig {
    /// Where events go, with the writer's rights.
    pub writer: Database,
    /// The queue's name.
    pub queue: String,
    /// Events that are written at a time.
    pub batch_size: usize,
    /// The owner's rights, for what only the owner may do.
    pub maintenance: MaintenanceConfig,
}

/// What `migrate` needs.
#[derive(Clone)]
pub struct MigrateConfig {
    /// The database, as the owner-to-be of the tables.
    pub database: Database,
    /// The flavor that is asked for.
    pub flavor: Option<Flavor>,
    /// Role to grant the worker's rights.
    pub writer_role: Option<String>,
    /// Role to grant the API's rights.
    pub reader_role: Option<String>,
}

/// Settings of a session that writes: a reported commit is what the acknowledgement relies on; one that
/// hangs inside a transaction must not keep its keys locked; late events may need any number of
/// decompressed rows.
const WRITER_SESSION: &[(&str, &str)] = &[
    ("synchronous_commit", "on"),
    ("default_transaction_isolation", "read committed"),
    ("idle_in_transaction_session_timeout", "30s"),
    // A statement that waits for a lock does not notice otherwise that its client is gone.
    ("client_connection_check_interval", "5s"),
    ("timezone", "UTC"),
    ("jit", "off"),
    ("timescaledb.max_tuples_decompressed_per_dml_transaction", "0"),
];

/// Settings of a session that maintains. It holds a lock that others wait for: if its machine vanishes, the
/// server must notice, while it runs a statement too.
const OWNER_SESSION: &[(&str, &str)] = &[("client_connection_check_interval", "10s"), ("jit", "off")];

fn database(settings: &Settings, key: &str) -> Result<Database, SettingsError> {
    let url: String = settings.required(key)?;
    let database = Database::parse(&url).map_err(|error| settings.invalid(key, error.to_string()))?;
    Ok(database.writing())
}

impl WorkerConfig {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// The first key that is missing or not valid.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let consumers = settings.within("CONSUMER_WORKERS", 1..=64)?;
        Ok(Self {
            port: match settings.optional("ADMIN_PORT")? {
                Some(port) => port,
                None => settings.required("PORT")?,
            },
            bind_address: settings.optional("BIND_ADDRESS")?,
            database: database(settings, "DATABASE_URL")?.session("ingest-worker", WRITER_SESSION),
            broker: broker(settings)?,
            queue: queue_name(settings)?,
            consumers,
            lanes: settings.within("WRITER_LANES", 1..=64)?,
            batch_size: settings.within("BATCH_SIZE", 1..=100_000)?,
            batch_max_age: Duration::from_millis(settings.within("BATCH_MAX_AGE_MS", 1..=60_000)?),
            prefetch: settings.within("PREFETCH", 1..=u16::MAX)?,
            memory_budget: settings.within::<usize>("MEMORY_BUDGET_MIB", 8..=65_536)? << 20,
            batch_deadline: Duration::from_secs(settings.within("BATCH_DEADLINE_SECONDS", 1..=600)?),
            max_hold: Duration::from_secs(settings.within("MAX_HOLD_SECONDS", 1..=1500)?),
            brake_percent: settings.within("BRAKE_MALFORMED_PERCENT", 0..=99)?,
            maintenance: match settings.required("MAINTENANCE_ENABLED")? {
                true => Some(MaintenanceConfig::read(settings)?),
                false => None,
            },
        })
    }

    /// The most deliveries that it holds.
    pub fn most_held(&self) -> u32 {
        u32::from(self.prefetch).saturating_mul(u32::try_from(self.consumers).unwrap_or(u32::MAX))
    }
}

impl MaintenanceConfig {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// The first key that is missing or not valid.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let raw_retention_days = settings.within("RAW_RETENTION_DAYS", 2..=3650)?;
        let rollup_retention_months = settings.within("ROLLUP_RETENTION_MONTHS", 1..=120)?;
        // 28 days: the shortest month. Raw events without their rollups would be counted by nobody.
        if rollup_retention_months * 28 < raw_retention_days {
            return Err(settings.invalid(
                "ROLLUP_RETENTION_MONTHS",
                "must be longer than RAW_RETENTION_DAYS",
            ));
        }
        Ok(Self {
            database: owner_database(settings)?,
            raw_retention_days,
            rollup_retention_months,
            dead_letter_retention_days: settings.within("DEAD_LETTER_RETENTION_DAYS", 1..=3650)?,
        })
    }
}

impl OperatorConfig {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// The first key that is missing or not valid.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            writer: database(settings, "DATABASE_URL")?.session("ingest-worker operator", WRITER_SESSION),
            queue: queue_name(settings)?,
            batch_size: settings.within("BATCH_SIZE", 1..=100_000)?,
            maintenance: MaintenanceConfig::read(settings)?,
        })
    }
}

/// Where the broker is.
///
/// # Errors
/// If it is not said, or not valid.
pub fn broker(settings: &Settings) -> Result<Address, SettingsError> {
    let url: String = settings.required("RABBITMQ_URL")?;
    let files = Files {
        ca: settings.text("RABBITMQ_CA_FILE"),
        certificate: settings.text("RABBITMQ_CERT_FILE"),
        key: settings.text("RABBITMQ_KEY_FILE"),
    };
    Address::parse(&url, files).map_err(|error| {
        let key = match error {
            AddressError::Tls(TlsError::Identity { .. }) if files.certificate.is_some() => {
                "RABBITMQ_CERT_FILE"
            }
            AddressError::Tls(_) if files.ca.is_some() => "RABBITMQ_CA_FILE",
            _ => "RABBITMQ_URL",
        };
        settings.invalid(key, error.to_string())
    })
}

fn queue_name(settings: &Settings) -> Result<String, SettingsError> {
    let queue: String = settings.required("QUEUE_NAME")?;
    if queue.is_empty() || queue.len() > 200 {
        return Err(settings.invalid("QUEUE_NAME", "must have 1 to 200 bytes"));
    }
    Ok(queue)
}

impl MigrateConfig {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// The first key that is missing or not valid.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let flavor = match settings.text("DATABASE_FLAVOR") {
            None => None,
            Some(name) => Some(
                Flavor::from_name(name)
                    .ok_or_else(|| settings.invalid("DATABASE_FLAVOR", "must be timescaledb or postgres"))?,
            ),
        };
        Ok(Self {
            database: owner_database(settings)?,
            flavor,
            writer_role: settings.optional("WRITER_ROLE")?,
            reader_role: settings.optional("READER_ROLE")?,
        })
    }
}

fn owner_database(settings: &Settings) -> Result<Database, SettingsError> {
    let key = match settings.text("MAINTENANCE_DATABASE_URL") {
        Some(_) => "MAINTENANCE_DATABASE_URL",
        None => "DATABASE_URL",
    };
    Ok(database(settings, key)?.session("ingest-worker maintenance", OWNER_SESSION))
}
