//! The check that a service finds the schema it was built for. No service migrates by itself.

use analytics_core::schema::{READ_VERSION, VERSION};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Why the schema is not the one this service needs.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Nothing was migrated here.
    #[error(
        "the database has no schema yet: run `ingest-worker migrate` (this build needs version {VERSION})"
    )]
    Absent,
    /// Another version than this build's.
    #[error("the database's schema is version {found}, this build needs {VERSION}: {advice}", advice = advice(*.found))]
    Version {
        /// The newest migration that was applied.
        found: i32,
    },
    /// The database could not be asked.
    #[error("the schema version could not be read")]
    Database(#[source] tokio_postgres::Error),
}

fn advice(found: i32) -> &'static str {
    if found < VERSION {
        "run `ingest-worker migrate`"
    } else {
        "deploy a newer build of this service"
    }
}

/// Checks that the database's schema is this build's.
///
/// # Errors
/// If it is absent, older, newer, or cannot be read.
pub async fn check(client: &Client) -> Result<(), SchemaError> {
    let row = client
        .query_one(READ_VERSION, &[])
        .await
        .map_err(|error| match error.code() {
            Some(&SqlState::UNDEFINED_TABLE) => SchemaError::Absent,
            _ => SchemaError::Database(error),
        })?;
    match row.try_get::<_, Option<i32>>(0).map_err(SchemaError::Database)? {
        None => Err(SchemaError::Absent),
        Some(VERSION) => Ok(()),
        Some(found) => Err(SchemaError::Version { found }),
    }
}
