//! Rollups of a day are mended while others write; `analytics_core::reconcile` says why that is right.

use analytics_core::ingest::READ_WINDOW;
use analytics_core::reconcile::{BEGIN_REPAIR, COMMIT_REPAIR, delete_empty, repair, span};
use analytics_core::rollup::Relation;
use time::{OffsetDateTime, Time};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::MaintenanceConfig;
use crate::maintenance::{MaintenanceError, Turn};
use crate::operator::OperatorError;
use crate::operator::owner::wait_out;

/// Mends these relations on a UTC day, and says how many rows that were. Passing errors are waited out:
/// what is mended already has no difference the second time.
pub(super) async fn day(
    config: &MaintenanceConfig,
    day: OffsetDateTime,
    relations: &[Relation],
    stop: &CancellationToken,
) -> Result<u64, OperatorError> {
    let mut backoff = Backoff::default();
    let mut mended = 0;
    loop {
        match stop
            .run_until_cancelled(attempt(config, day, relations, &mut mended))
            .await
        {
            None => return Err(OperatorError::Stopped),
            Some(Ok(())) => return Ok(mended),
            Some(Err(fault)) => wait(fault, &mut backoff, stop).await?,
        }
    }
}

#[derive(Debug)]
enum Fault {
    Maintenance(MaintenanceError),
    /// Retention has moved on meanwhile.
    Gone,
}

impl From<MaintenanceError> for Fault {
    fn from(error: MaintenanceError) -> Self {
        Self::Maintenance(error)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Maintenance(error.into())
    }
}

async fn wait(fault: Fault, backoff: &mut Backoff, stop: &CancellationToken) -> Result<(), OperatorError> {
    match fault {
        Fault::Maintenance(MaintenanceError::Database(error)) => {
            wait_out("mending a rollup", error, backoff, stop).await
        }
        Fault::Maintenance(error) => Err(OperatorError::Absent(error.to_string())),
        Fault::Gone => Err(OperatorError::Absent(
            "raw events of this day are no longer kept: it is not mended".to_owned(),
        )),
    }
}

async fn attempt(
    config: &MaintenanceConfig,
    day: OffsetDateTime,
    relations: &[Relation],
    mended: &mut u64,
) -> Result<(), Fault> {
    let mut turn = Turn::wait(config).await?;
    // While the turn lasts nothing is dropped; what was dropped before it is not taken for nothing.
    let floor: OffsetDateTime = turn.client().query_one(READ_WINDOW, &[]).await?.try_get(0)?;
    if day < floor.replace_time(Time::MIDNIGHT) {
        return Err(Fault::Gone);
    }
    turn.make_partitions().await?;
    for relation in relations {
        let (start, end) = span(*relation, day);
        *mended += add_difference(turn.client(), *relation, start, end).await?;
    }
    Ok(turn.end().await?)
}

async fn add_difference(
    client: &Client,
    relation: Relation,
    start: OffsetDateTime,
    end: OffsetDateTime,
) -> Result<u64, tokio_postgres::Error> {
    client.batch_execute(BEGIN_REPAIR).await?;
    let row = client.query_one(&repair(relation), &[&start, &end]).await?;
    let (mended, surplus): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    if surplus > 0 {
        client.execute(&delete_empty(relation), &[&start, &end]).await?;
    }
    client.batch_execute(COMMIT_REPAIR).await?;
    Ok(u64::try_from(mended).unwrap_or(0))
}
