//! A session with the rights of the tables' owner, which outlives its connections: a server that is away is
//! waited for.

use analytics_runtime::postgres::Database;
use analytics_runtime::schema::{self, SchemaError};
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use super::{OperatorError, words};
use crate::backoff::Backoff;
use crate::maintenance::become_owner;

/// The session.
pub struct Owner {
    database: Database,
    client: Option<Client>,
    stop: CancellationToken,
}

impl Owner {
    /// Connects, and checks that the schema is this build's. Once `stop` is cancelled, every call ends with
    /// [`OperatorError::Stopped`].
    ///
    /// # Errors
    /// If the database refuses, or has another schema.
    pub async fn connect(database: Database, stop: CancellationToken) -> Result<Self, OperatorError> {
        let mut owner = Self {
            database,
            client: None,
            stop,
        };
        owner
            .run(
                "reading the schema's version",
                async |client| match schema::check(client).await {
                    Err(SchemaError::Database(error)) => Err(error),
                    other => Ok(other),
                },
            )
            .await??;
        Ok(owner)
    }

    /// Does `work` in the session; passing errors are waited out, for ever, on a new connection. So the work
    /// must be safe to be done twice.
    ///
    /// # Errors
    /// If the database refuses for good.
    pub async fn run<T>(
        &mut self,
        action: &'static str,
        work: impl AsyncFn(&Client) -> Result<T, Error>,
    ) -> Result<T, OperatorError> {
        let stop = self.stop.clone();
        let mut backoff = Backoff::default();
        loop {
            match stop.run_until_cancelled(self.attempt(&work)).await {
                None => return Err(OperatorError::Stopped),
                Some(Ok(value)) => return Ok(value),
                Some(Err(error)) => {
                    self.client = None;
                    wait_out(action, error, &mut backoff, &stop).await?;
                }
            }
        }
    }

    async fn attempt<T>(&mut self, work: &impl AsyncFn(&Client) -> Result<T, Error>) -> Result<T, Error> {
        let client = match &self.client {
            Some(client) => client,
            None => {
                let client = self.database.connect().await?;
                client
                    .batch_execute("-- operator_session\nSET timezone = 'UTC'")
                    .await?;
                become_owner(&client).await?;
                self.client.insert(client)
            }
        };
        work(client).await
    }
}

/// Checks that the database is there and has this build's schema, with any rights.
///
/// # Errors
/// If the database refuses, or has another schema.
pub async fn check_schema(database: Database, stop: &CancellationToken) -> Result<(), OperatorError> {
    Owner::connect(database, stop.clone()).await.map(drop)
}

/// Says that an error is waited out, and waits.
///
/// # Errors
/// If it is none that passes, or it was asked to stop meanwhile.
pub async fn wait_out(
    action: &'static str,
    error: Error,
    backoff: &mut Backoff,
    stop: &CancellationToken,
) -> Result<(), OperatorError> {
    if !passes(&error) {
        return Err(OperatorError::Database {
            action,
            source: error,
        });
    }
    let wait = backoff.next_wait();
    tracing::warn!(
        error = words(&error),
        wait_ms = wait.as_millis(),
        "{action} failed; trying again"
    );
    stop.run_until_cancelled(tokio::time::sleep(wait))
        .await
        .ok_or(OperatorError::Stopped)
}

/// Whether an error is of the kind that ends by itself: the server is away, busy, or decided against us. An
/// operator who watches is better served by a refusal than by a wait for what will never be, so here, other
/// than in the worker, what is unknown counts as permanent.
fn passes(error: &Error) -> bool {
    let Some(code) = error.code() else {
        // No word of the server: it could not be reached, or went away.
        return true;
    };
    let class = &code.code()[..2];
    matches!(class, "08" | "40" | "53" | "55" | "57") || code.code() == "25006"
}
