//! Closing: the derived rungs of the ladder are filled up to the buckets that are over.

use analytics_core::maintenance::{CLOSABLE, CLOSE_BUCKETS, RELEASE_LADDER};
use time::{Duration, OffsetDateTime};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::MaintenanceError;

/// How much is closed at a time. The usual is a quarter of an hour; this is for what was imported, or left behind while
/// nobody maintained.
const AT_A_TIME: Duration = Duration::DAY;

/// Closes all that has been over for ten minutes.
pub(super) async fn close(client: &Client) -> Result<String, MaintenanceError> {
    let Some(row) = client.query_opt(CLOSABLE, &[]).await? else {
        return Ok("nothing to close".to_owned());
    };
    let (closed, due): (OffsetDateTime, OffsetDateTime) = (row.try_get(0)?, row.try_get(1)?);
    let first_usage: Option<OffsetDateTime> = row.try_get(2)?;
    // What is empty is closed at once.
    let is_far = due - closed > AT_A_TIME;
    let mut up_to = match first_usage {
        Some(first) => closed.max(first) + AT_A_TIME,
        None if is_far => due,
        None => closed + AT_A_TIME,
    };
    loop {
        close_until(client, up_to.min(due)).await?;
        if up_to >= due {
            return Ok(format!("closed from {closed} to {due}"));
        }
        up_to += AT_A_TIME;
    }
}

async fn close_until(client: &Client, up_to: OffsetDateTime) -> Result<(), MaintenanceError> {
    let close = client.prepare(CLOSE_BUCKETS).await?;
    let bound: [&(dyn ToSql + Sync); 1] = [&up_to];
    // Sent together: if this process is stopped or cut off now, writers do not wait for it.
    let (closed, released) = futures_util::join!(
        client.execute(&close, &bound),
        client.batch_execute(RELEASE_LADDER)
    );
    closed?;
    Ok(released?)
}
