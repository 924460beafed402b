//! `ingest-worker migrate`: brings a database to this build's schema. Several at once wait for each other.

use analytics_core::ingest::{GRANT_READER, GRANT_WRITER};
use analytics_core::maintenance::{FOREIGN_EVENTS, MIGRATION_LOCK, MIGRATION_UNLOCK, READ_FLAVOR};
use analytics_core::schema::Flavor;
use refinery::{Migration, Runner};
use tokio_postgres::Client;

use crate::config::MigrateConfig;

const COMMON_TABLES: &str = include_str!("../../../migrations/common/V1__tables.sql");
const COMMON_LADDER: &str = include_str!("../../../migrations/common/V2__ladder.sql");
const TIMESCALEDB: &str = include_str!("../../../migrations/timescaledb/V3__hypertables.sql");
const POSTGRES: &str = include_str!("../../../migrations/postgres/V3__partitions.sql");
const COMMON_TRIGGERS: &str = include_str!("../../../migrations/common/V4__triggers.sql");

/// TimescaleDB releases that this schema cannot use, and why.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "0",
        "2.26.4",
        "mishandles transition tables after a dropped column",
    ),
    (
        "2.28.0",
        "2.29.0",
        "loses buckets when it refreshes continuous aggregates in batches",
    ),
];

/// Why a database was not migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database's word.
    #[error("the database refused: {}", words(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A migration failed; it and those after it were not applied.
    #[error("a migration failed: {0}")]
    Migration(#[from] refinery::Error),
    /// A table of that name exists that these migrations did not make.
    #[error("{0}")]
    ForeignTable(String),
    /// A flavor is asked for that the database does not have.
    #[error(
        "DATABASE_FLAVOR={asked} but this database was made as {found}; a flavor cannot be changed in place: make a new database and reload the raw events"
    )]
    OtherFlavor {
        /// What is asked for.
        asked: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// `timescaledb` is asked for where it cannot be had.
    #[error("DATABASE_FLAVOR=timescaledb, but {0}")]
    NoTimescaleDb(String),
}

fn words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |db| format!("{} ({})", db.message(), db.code().code()),
    )
}

/// What was done.
#[derive(Debug)]
pub struct Migrated {
    /// The flavor that the database has.
    pub flavor: Flavor,
    /// Why it is that one.
    pub because: String,
    /// Names of the migrations that were applied now.
    pub applied: Vec<String>,
}

/// Migrates, and grants the rights of the roles that are named.
///
/// # Errors
/// See [`MigrateError`]; nothing is left half done.
pub async fn migrate(config: &MigrateConfig) -> Result<Migrated, MigrateError> {
    let mut client = config.database.connect().await?;
    // Held by the session: it ends with the process, whatever happens.
    client.batch_execute(MIGRATION_LOCK).await?;
    let migrated = locked(config, &mut client).await;
    client.batch_execute(MIGRATION_UNLOCK).await?;
    migrated
}

async fn locked(config: &MigrateConfig, client: &mut Client) -> Result<Migrated, MigrateError> {
    let (flavor, because) = choose_flavor(config, client).await?;
    let report = runner(flavor)?.run_async(client).await?;
    for (role, grants) in [
        (&config.writer_role, GRANT_WRITER),
        (&config.reader_role, GRANT_READER),
    ] {
        if let Some(role) = role {
            let role = client
                .query_one("-- quote_role\nSELECT quote_ident($1)", &[role])
                .await?;
            client
                .batch_execute(&grants.replace("{role}", role.try_get(0)?))
                .await?;
        }
    }
    let applied = report
        .applied_migrations()
        .iter()
        .map(ToString::to_string)
        .collect();
    Ok(Migrated {
        flavor,
        because,
        applied,
    })
}

/// The migrations of a flavor, in order.
fn runner(flavor: Flavor) -> Result<Runner, refinery::Error> {
    let stored = match flavor {
        Flavor::TimescaleDb => ("V3__hypertables", TIMESCALEDB),
        Flavor::Postgres => ("V3__partitions", POSTGRES),
    };
    let migrations = [
        ("V1__tables", COMMON_TABLES),
        ("V2__ladder", COMMON_LADDER),
        stored,
        ("V4__triggers", COMMON_TRIGGERS),
    ]
    .iter()
    .map(|(name, sql)| Migration::unapplied(name, sql))
    .collect::<Result<Vec<_>, _>>()?;
    // Grouped: all in one transaction, so that a failure leaves nothing half done.
    Ok(Runner::new(&migrations)
        .set_grouped(true)
        .set_abort_divergent(true)
        .set_abort_missing(true))
}

async fn choose_flavor(config: &MigrateConfig, client: &Client) -> Result<(Flavor, String), MigrateError> {
    if exists(client, "public.schema_flavor").await? {
        let name: String = client.query_one(READ_FLAVOR, &[]).await?.try_get(0)?;
        let found = Flavor::from_name(&name).unwrap_or(Flavor::Postgres);
        return match config.flavor {
            Some(asked) if asked != found => Err(MigrateError::OtherFlavor {
                asked: asked.name(),
                found: found.name(),
            }),
            _ => Ok((found, "the database was made as it".to_owned())),
        };
    }
    for relation in [
        "usage_events",
        "usage_hourly",
        "usage_daily",
        "usage_quarter_hourly",
        "usage_daily_by_user",
        "usage_weekly_by_key",
    ] {
        if exists(client, &format!("public.{relation}")).await? {
            return Err(MigrateError::ForeignTable(
                describe_foreign(client, relation).await?,
            ));
        }
    }
    if config.flavor == Some(Flavor::Postgres) {
        return Ok((Flavor::Postgres, "DATABASE_FLAVOR says so".to_owned()));
    }
    match offer_of_timescaledb(config, client).await? {
        Ok(version) => Ok((
            Flavor::TimescaleDb,
            format!("the server has TimescaleDB {version}, Community edition"),
        )),
        Err(reason) if config.flavor.is_some() => Err(MigrateError::NoTimescaleDb(reason)),
        Err(reason) => Ok((Flavor::Postgres, reason)),
    }
}

async fn exists(client: &Client, relation: &str) -> Result<bool, tokio_postgres::Error> {
    client
        .query_one("-- exists\nSELECT to_regclass($1) IS NOT NULL", &[&relation])
        .await?
        .try_get(0)
}

/// The version of a usable TimescaleDB, whose extension then exists, or why there is none.
async fn offer_of_timescaledb(
    config: &MigrateConfig,
    client: &Client,
) -> Result<Result<String, String>, tokio_postgres::Error> {
    let offered = client
        .query_opt(
            "-- timescaledb_offer\nSELECT coalesce(installed_version, default_version) \
             FROM pg_available_extensions WHERE name = 'timescaledb'",
            &[],
        )
        .await?;
    let Some(row) = offered else {
        return Ok(Err("the server has no TimescaleDB".to_owned()));
    };
    let version: String = row.try_get(0)?;
    if let Some((_, _, fault)) = REFUSED.iter().find(|(from, to, _)| is_within(&version, from, to)) {
        return Ok(Err(format!("the server's TimescaleDB {version} {fault}")));
    }
    // On a connection of its own: a library that is not preloaded ends the session.
    let probe = config.database.connect().await?;
    probe.batch_execute("-- begin_probe\nBEGIN").await?;
    if let Err(error) = probe
        .batch_execute("-- create_extension\nCREATE EXTENSION IF NOT EXISTS timescaledb")
        .await
    {
        return Ok(Err(format!(
            "TimescaleDB {version} is installed but cannot be used here: {}",
            words(&error)
        )));
    }
    let license: Option<String> = probe
        .query_one(
            "-- timescaledb_license\nSELECT current_setting('timescaledb.license', true)",
            &[],
        )
        .await?
        .try_get(0)?;
    if license.as_deref() != Some("timescale") {
        // Dropping the connection rolls the extension back.
        let license = license.unwrap_or_else(|| "unknown".to_owned());
        return Ok(Err(format!(
            "the server's TimescaleDB is the {license} edition, which has no columnstore"
        )));
    }
    probe.batch_execute("-- commit_probe\nCOMMIT").await?;
    Ok(Ok(version))
}

/// Whether `from <= version < to`, by their numbers.
fn is_within(version: &str, from: &str, to: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(['.', '-'])
            .map_while(|part| part.parse().ok())
            .collect()
    };
    let version = numbers(version);
    numbers(from) <= version && version < numbers(to)
}

async fn describe_foreign(client: &Client, relation: &str) -> Result<String, tokio_postgres::Error> {
    if relation != "usage_events" {
        return Ok(format!(
            "this database has a relation {relation} that these migrations did not make; nothing was changed. Rename or \
             drop it, and run `ingest-worker migrate` again"
        ));
    }
    let rows = client.query(FOREIGN_EVENTS, &[]).await?;
    let found: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let wanted = [
        "time timestamp with time zone",
        "event_id uuid",
        "org_id uuid",
        "user_id uuid",
        "api_key_id uuid",
        "model_name character varying",
        "input_tokens integer",
        "output_tokens integer",
        "total_tokens integer",
        "cached_input_tokens integer",
        "reasoning_tokens integer",
        "cost numeric(20,10)",
        "latency_ms integer",
        "status character varying",
        "error_message text",
        "request_id character varying",
        "ingested_at timestamp with time zone",
    ];
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|column| !found.iter().any(|have| have == column))
        .collect();
    let surplus: Vec<&str> = found
        .iter()
        .map(String::as_str)
        .filter(|column| !wanted.contains(column))
        .collect();
    let list = |columns: &[&str]| {
        if columns.is_empty() {
            "none".to_owned()
        } else {
            columns.join(", ")
        }
    };
    Ok(format!(
        "this database has a table usage_events that these migrations did not make; nothing was changed. \
         Columns that it lacks: {}. Columns that differ or are its own: {}. It also lacks the unique key \
         (org_id, time, event_id) and the triggers that keep the rollups. To move its rows over: drop or rename what \
         depends on it (a usage_hourly of the same origin), rename it (ALTER TABLE usage_events RENAME TO \
         usage_events_before), run `ingest-worker migrate` again, then copy the \
         last 89 days a day at a time with INSERT INTO usage_events (..) SELECT .. FROM usage_events_before WHERE \
         time >= .. AND time < .. ON CONFLICT DO NOTHING; the rollups follow by themselves",
        list(&missing),
        list(&surplus)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let refused = |version: &str| REFUSED.iter().any(|(from, to, _)| is_within(version, from, to));
        for version in ["2.9.3", "2.26.3", "2.28.0", "2.28.3"] {
            assert!(refused(version), "{version}");
        }
        for version in ["2.26.4", "2.27.2", "2.29.0", "3.0.0", "2.29.2-dev"] {
            assert!(!refused(version), "{version}");
        }
    }

    #[test]
    fn both_flavors_end_at_the_version_that_the_services_expect() {
        for flavor in [Flavor::TimescaleDb, Flavor::Postgres] {
            let newest = runner(flavor)
                .unwrap()
                .get_migrations()
                .iter()
                .map(Migration::version)
                .max();
            assert_eq!(
                newest.map(i64::from),
                Some(i64::from(analytics_core::schema::VERSION))
            );
        }
    }
}
