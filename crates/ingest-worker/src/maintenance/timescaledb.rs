//! Steps of the timescaledb flavor.

use analytics_core::maintenance::timescaledb::{
    CHUNKS_TO_COMPRESS, CHUNKS_TO_RECOMPRESS, CLOSE_BUCKETS, COMMITTED_THROUGH, COMPRESS, DROP_RAW,
    DROP_ROLLUPS, REFRESH, REFRESH_BOUNDS, REFRESH_BY_FORCE, REFRESHED_THROUGH, RELEASE_WATERMARKS,
    WATERMARK,
};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::MaintenanceError;

/// How much is closed while batches wait. The usual hour is an hour; this is for what was imported, or left
/// behind while nobody maintained.
const CLOSED_AT_A_TIME: time::Duration = time::Duration::DAY;

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

/// Refreshes an aggregate over all that its source keeps; only what changed is redone. First the late events,
/// without holding anybody up; then it closes buckets that have ended, while no batch can be committed.
pub(super) async fn refresh(
    client: &Client,
    aggregate: &str,
    months: i32,
) -> Result<String, MaintenanceError> {
    let Some(Refreshable {
        first,
        watermark,
        last,
    }) = refreshable(client, aggregate, months).await?
    else {
        return Ok("nothing to refresh yet".to_owned());
    };
    if first < watermark {
        client.execute(REFRESH, &[&aggregate, &first, &watermark]).await?;
    }
    let mut closed = first.max(watermark);
    while closed < last {
        let end = last.min(closed + CLOSED_AT_A_TIME);
        close(client, aggregate, closed, end).await?;
        closed = end;
    }
    Ok(format!("{aggregate} refreshed from {first} to {closed}"))
}

/// Moves the watermark over the buckets between the two.
async fn close(
    client: &Client,
    aggregate: &str,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<(), MaintenanceError> {
    let close = client.prepare(CLOSE_BUCKETS).await?;
    let bounds: [&(dyn ToSql + Sync); 3] = [&aggregate, &from, &to];
    // Sent together: if this process is stopped or cut off now, writers do not wait for it.
    let (closed, released) = futures_util::join!(
        client.execute(&close, &bounds),
        client.batch_execute(RELEASE_WATERMARKS)
    );
    closed?;
    Ok(released?)
}

/// Computes an aggregate again between two bounds on its buckets, as far as it is materialized.
pub(super) async fn refresh_by_force(
    client: &Client,
    aggregate: &str,
    months: i32,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<(), MaintenanceError> {
    if let Some(bounds) = refreshable(client, aggregate, months).await? {
        let (from, to) = (from.max(bounds.first), to.min(bounds.watermark));
        if from < to {
            client
                .execute(REFRESH_BY_FORCE, &[&aggregate, &from, &to])
                .await?;
        }
    }
    Ok(())
}

/// What an aggregate may be refreshed over.
struct Refreshable {
    first: OffsetDateTime,
    /// From here on it answers live.
    watermark: OffsetDateTime,
    /// How far the watermark may be moved.
    last: OffsetDateTime,
}

async fn refreshable(
    client: &Client,
    aggregate: &str,
    months: i32,
) -> Result<Option<Refreshable>, MaintenanceError> {
    let bounds = client.query_one(REFRESH_BOUNDS, &[&months]).await?;
    let Some(first) = bounds.try_get::<_, Option<OffsetDateTime>>("first")? else {
        return Ok(None);
    };
    let last: OffsetDateTime = bounds.try_get(if aggregate == "usage_daily" {
        "last_day"
    } else {
        "last_hour"
    })?;
    let watermark: OffsetDateTime = client.query_one(WATERMARK, &[&aggregate]).await?.try_get(0)?;
    // Rows between the two are read from what is materialized: late events have to get there.
    if watermark > last + time::Duration::days(1) {
        tracing::error!(aggregate, %watermark, "the watermark is ahead of the clock; refreshing up to it");
    }
    Ok((first < last.max(watermark)).then_some(Refreshable {
        first,
        watermark,
        last,
    }))
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
