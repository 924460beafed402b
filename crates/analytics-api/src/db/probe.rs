//! The session of the probes, beside the pool: readiness is about the database, and must not wait behind
//! the questions that are being asked.

use analytics_runtime::postgres::{Database as Address, explain};
use analytics_runtime::schema::{self, SchemaError};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Client;
use tracing::warn;

use super::Unready;

/// One session, opened when it is needed, used by one probe at a time.
pub(super) struct Probe {
    address: Address,
    runtime: Handle,
    session: Mutex<Option<Client>>,
}

impl Probe {
    pub(super) fn new(address: Address, runtime: Handle) -> Self {
        Self {
            address,
            runtime,
            session: Mutex::new(None),
        }
    }

    /// Whether the database is there by that moment, with the schema of this build.
    pub(super) async fn check(&self, by: Instant) -> Result<(), Unready> {
        let late = |_| Unready::Database;
        let mut session = timeout_at(by, self.session.lock()).await.map_err(late)?;
        // What does not come to a good end is not used again.
        let client = match session.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.open(by).await?,
        };
        match timeout_at(by, schema::check(&client)).await.map_err(late)? {
            Ok(()) => {
                *session = Some(client);
                Ok(())
            }
            Err(SchemaError::Database(error)) => {
                warn!(error = explain(&error), "schema version not read");
                Err(Unready::Database)
            }
            Err(error) => Err(Unready::Schema(error.to_string())),
        }
    }

    /// On the runtime of the process, where the connection then is driven.
    async fn open(&self, by: Instant) -> Result<Client, Unready> {
        let address = self.address.clone();
        let opening = self
            .runtime
            .spawn(async move { timeout_at(by, address.connect()).await });
        match opening.await {
            Ok(Ok(Ok(client))) => Ok(client),
            Ok(Ok(Err(error))) => {
                warn!(error = explain(&error), "database not reached");
                Err(Unready::Database)
            }
            Ok(Err(_)) | Err(_) => {
                warn!("database not reached in time");
                Err(Unready::Database)
            }
        }
    }
}
