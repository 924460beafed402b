//! Steps of the postgres flavor.

use analytics_core::maintenance::postgres::{ENSURE_PARTITIONS, EXPIRED_PARTITIONS, PENDING_DETACHES};
use time::OffsetDateTime;
use tokio_postgres::Client;

use super::MaintenanceError;

/// Ends detaches that were cut short.
pub(super) async fn finish_detaches(client: &Client) -> Result<String, MaintenanceError> {
    let pending = client.query(PENDING_DETACHES, &[]).await?;
    for row in &pending {
        let finalize: String = row.try_get(0)?;
        client
            .batch_execute(&format!("-- finish_detach\n{finalize}"))
            .await?;
    }
    Ok(format!("{} detaches finished", pending.len()))
}

/// Makes the partitions that are missing.
pub(super) async fn ensure_partitions(client: &Client) -> Result<String, MaintenanceError> {
    let made: i32 = client.query_one(ENSURE_PARTITIONS, &[]).await?.try_get(0)?;
    Ok(format!("{made} partitions made"))
}

/// Detaches and drops what is past its retention. Detached concurrently: a plain drop would wait for open
/// readers and hold every writer back behind it.
pub(super) async fn drop_expired(
    client: &Client,
    raw_cutoff: OffsetDateTime,
    months: i32,
) -> Result<String, MaintenanceError> {
    let expired = client.query(EXPIRED_PARTITIONS, &[&raw_cutoff, &months]).await?;
    for row in &expired {
        let name: String = row.try_get("name")?;
        // Without a parent it was detached by a round that ended there.
        if let Some(parent) = row.try_get::<_, Option<String>>("parent")? {
            // Both names match a fixed pattern of the query.
            let detach =
                format!("-- detach\nALTER TABLE {parent} DETACH PARTITION public.{name} CONCURRENTLY");
            client.batch_execute(&detach).await?;
        }
        client
            .batch_execute(&format!("-- drop_partition\nDROP TABLE public.{name}"))
            .await?;
    }
    Ok(format!("{} partitions dropped", expired.len()))
}
