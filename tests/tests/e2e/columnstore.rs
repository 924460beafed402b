//! Late events reach batches of the columnstore: each is taken out whole, and is locked until the commit.

use anyhow::{Result, ensure};
use e2e::servers::connect;

use crate::closing::{done_or_waiting, pid};
use crate::platform::{Flavor, Platform};
use crate::rollups;

/// The first day of the last week from a Thursday that is in the columnstore.
const WEEK: &str = "date_trunc('week', now() - interval '97 hours', 'UTC') - interval '96 hours'";
const USERS: usize = 2_500;
const ORGANIZATION: &str = "00000000-0000-4000-8000-00000000000a";

/// Events of one organization: on the n-th day and of the n-th user, for each pair, in the afternoon. That is where no
/// batch of raw events or of quarters of an hour is.
fn insert(of: &[(usize, usize)]) -> String {
    let pairs: Vec<String> = of.iter().map(|(day, user)| format!("({day}, {user})")).collect();
    insert_from(
        &format!("(VALUES {}) AS pair (day, u)", pairs.join(", ")),
        "interval '15 hours'",
    )
}

fn insert_from(rows: &str, at: &str) -> String {
    format!(
        "INSERT INTO usage_events (time, event_id, org_id, user_id, api_key_id, model_name, input_tokens, \
         output_tokens, total_tokens, cost, status) \
         SELECT {WEEK} + make_interval(days => day) + {at}, gen_random_uuid(), '{ORGANIZATION}', \
         (lpad(to_hex(u), 8, '0') || '-0000-4000-8000-000000000000')::uuid, '{ORGANIZATION}', 'm', 1, 1, 2, 0.1, \
         'success' FROM {rows}"
    )
}

/// How many batches the organization's days by user of that week are in.
async fn batches(platform: &Platform) -> Result<i64> {
    let chunk: String = platform
        .owner
        .query_one(
            &format!(
                "SELECT format('%I.%I', inner_chunk.schema_name, inner_chunk.table_name) \
                 FROM timescaledb_information.chunks \
                 JOIN _timescaledb_catalog.chunk ON chunk.table_name = chunk_name \
                 JOIN _timescaledb_catalog.chunk AS inner_chunk ON inner_chunk.id = chunk.compressed_chunk_id \
                 WHERE hypertable_name = 'closed_daily_by_user' AND range_start = {WEEK}"
            ),
            &[],
        )
        .await?
        .get(0);
    platform.count(&format!("SELECT count(*) FROM {chunk}")).await
}

/// Two writers, each with a user at one end on one day and one at the other end on another day; between these two,
/// both want a batch that is held until each has what comes before it. If they went by day, each would have what the other one wants.
#[tokio::test]
async fn writers_of_several_days_do_not_wait_for_each_other() -> Result<()> {
    if !Flavor::TimescaleDb.is_here() {
        return Ok(());
    }
    let platform = Platform::new(Flavor::TimescaleDb).await?;
    // All is closed already, so that these events are late: late rows have batches of their own.
    platform.maintain().await?;
    let everybody = format!("generate_series(0, 2) AS day, generate_series(1, {USERS}) AS u");
    platform
        .owner
        .batch_execute(&insert_from(&everybody, "make_interval(secs => u)"))
        .await?;
    platform.maintain().await?;
    let there = batches(&platform).await?;
    ensure!(there >= 3, "void: there are {there} batches");

    let url = platform.owner_url()?;
    let (holder, one, other) = (connect(&url).await?, connect(&url).await?, connect(&url).await?);
    let (first, middle, last) = (1, USERS / 2, USERS);
    holder
        .batch_execute(&format!("BEGIN; {}", insert(&[(1, middle)])))
        .await?;
    let mut writers = Vec::new();
    for (client, ends) in [(one, [last, first]), (other, [first, last])] {
        let pid = pid(&client).await?;
        let events = insert(&[(0, ends[0]), (1, middle), (2, ends[1])]);
        let writer = tokio::spawn(async move { client.batch_execute(&events).await });
        done_or_waiting(&platform, &writer, pid).await?;
        ensure!(!writer.is_finished(), "void: the batch is not held");
        writers.push(writer);
    }
    holder.batch_execute("ROLLBACK").await?;
    for writer in writers {
        writer.await??;
    }
    let counted = platform
        .count("SELECT sum(request_count)::bigint FROM closed_daily_by_user")
        .await?;
    let published = i64::try_from(3 * USERS + 6)?;
    ensure!(counted == published, "{counted} are counted, not {published}");
    platform.maintain().await?;
    rollups::assert_equal_raw(&platform).await
}
