//! Every rollup equals the raw events, to the last digit.

use anyhow::Result;
use e2e::oracle;

use crate::platform::Platform;

/// Compares all columns of all rollups with what the events add up to.
pub(crate) async fn assert_equal_raw(platform: &Platform) -> Result<()> {
    oracle::assert_rollups(&platform.owner).await
}
