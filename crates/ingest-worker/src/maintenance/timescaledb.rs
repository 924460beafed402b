//! Steps of the timescaledb flavor.

use std::time::{Duration, Instant};

use analytics_core::maintenance::timescaledb::{
    CHUNKS_TO_COMPRESS, CHUNKS_TO_RECOMPRESS, COMPRESS, DROP_RAW, DROP_ROLLUPS,
};
use time::OffsetDateTime;
use tokio_postgres::Client;

use super::MaintenanceError;

/// For how long chunks are moved in one round.
const COLUMNSTORE_BUDGET: Duration = Duration::from_secs(10);

/// Moves chunks that are old enough to the columnstore, and late rows after them. A chunk that cannot be
/// locked does not hold the others up. Unless `patient`, what is not done in time is left for the next
/// round: closings wait meanwhile.
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
    let rollups: i64 = client.query_one(DROP_ROLLUPS, &[&months]).await?.try_get(0)?;
    Ok(format!("{raw} raw and {rollups} rollup chunks dropped"))
}
