//! Steps of the timescaledb flavor.

use analytics_core::maintenance::timescaledb::{
    CHUNKS_TO_COMPRESS, CHUNKS_TO_RECOMPRESS, COMMITTED_THROUGH, COMPRESS, DROP_RAW, DROP_ROLLUPS, REFRESH,
    REFRESH_BOUNDS, REFRESH_BY_FORCE, REFRESHED_THROUGH, WATERMARK,
};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_postgres::Client;

use super::MaintenanceError;

/// For how long chunks are moved in one round.
const COLUMNSTORE_BUDGET: Duration = Duration::from_secs(10);

/// Through when everything published is committed.
pub(super) async fn committed_through(client: &Client) -> Result<Option<OffsetDateTime>, MaintenanceError> {
    Ok(client.query_one(COMMITTED_THROUGH, &[]).await?.try_get(0)?)
}

/// Writes down that every rollup holds what was published before this moment.
pub(super) async fn refreshed_through(
    client: &Client,
    moment: Option<OffsetDateTime>,
) -> Result<(), MaintenanceError> {
    client.execute(REFRESHED_THROUGH, &[&moment]).await?;
    Ok(())
}

/// Refreshes an aggregate over all that its source keeps; only what changed is redone.
pub(super) async fn refresh(
    client: &Client,
    aggregate: &str,
    months: i32,
) -> Result<String, MaintenanceError> {
    let Some((first, last)) = refreshable(client, aggregate, months).await? else {
        return Ok("nothing to refresh yet".to_owned());
    };
    client.execute(REFRESH, &[&aggregate, &first, &last]).await?;
    Ok(format!("{aggregate} refreshed from {first} to {last}"))
}

/// Computes an aggregate again between two bounds on its buckets, as far as it may be refreshed at all.
pub(super) async fn refresh_by_force(
    client: &Client,
    aggregate: &str,
    months: i32,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<(), MaintenanceError> {
    if let Some((first, last)) = refreshable(client, aggregate, months).await? {
        let (from, to) = (from.max(first), to.min(last));
        if from < to {
            client
                .execute(REFRESH_BY_FORCE, &[&aggregate, &from, &to])
                .await?;
        }
    }
    Ok(())
}

/// From where to where an aggregate may be refreshed.
async fn refreshable(
    client: &Client,
    aggregate: &str,
    months: i32,
) -> Result<Option<(OffsetDateTime, OffsetDateTime)>, MaintenanceError> {
    let bounds = client.query_one(REFRESH_BOUNDS, &[&months]).await?;
    let Some(first) = bounds.try_get::<_, Option<OffsetDateTime>>("first")? else {
        return Ok(None);
    };
    let mut last: OffsetDateTime = bounds.try_get(if aggregate == "usage_daily" {
        "last_day"
    } else {
        "last_hour"
    })?;
    let watermark: OffsetDateTime = client.query_one(WATERMARK, &[&aggregate]).await?.try_get(0)?;
    if watermark > last {
        // Rows between the two would be read from what is materialized, where they are not.
        if watermark > last + time::Duration::days(1) {
            tracing::error!(aggregate, %watermark, "the watermark is ahead of the clock; refreshing up to it");
        }
        last = watermark;
    }
    Ok((first < last).then_some((first, last)))
}

/// Moves chunks that are old enough to the columnstore, and late rows after them. A chunk that cannot be
/// locked does not hold the others up. Unless `patient`, what is not done in time is left for the next
/// round: refreshes wait meanwhile.
pub(super) async fn columnstore(client: &Client, patient: bool) -> Result<String, MaintenanceError> {
    let began = Instant::now();
    let (mut moved, mut left, mut refused) = ([0_usize; 2], 0_usize, None);
    for (moved, chunks) in moved.iter_mut().zip([CHUNKS_TO_COMPRESS, CHUNKS_TO_RECOMPRESS]) {
        for row in client.query(chunks, &[]).await? {
            let chunk: String = row.try_get(0)?;
            if !patient && began.elapsed() > COLUMNSTORE_BUDGET {
                left += 1;
                continue;
            }
            match client.execute(COMPRESS, &[&chunk]).await {
                Ok(_) => *moved += 1,
                Err(error) if client.is_closed() => return Err(error.into()),
                Err(error) => refused = Some(error),
            }
        }
    }
    match refused {
        Some(error) => Err(error.into()),
        None => Ok(format!(
            "{} chunks moved, {} brought up to date, {left} left for the next round",
            moved[0], moved[1]
        )),
    }
}

/// Drops chunks that are past their retention.
pub(super) async fn drop_expired(
    client: &Client,
    raw_cutoff: OffsetDateTime,
    months: i32,
) -> Result<String, MaintenanceError> {
    let raw: i64 = client.query_one(DROP_RAW, &[&raw_cutoff]).await?.try_get(0)?;
    let mut rollups = 0_i64;
    for statement in DROP_ROLLUPS {
        rollups += client
            .query_one(*statement, &[&months])
            .await?
            .try_get::<_, i64>(0)?;
    }
    Ok(format!("{raw} raw and {rollups} rollup chunks dropped"))
}
