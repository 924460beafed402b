//! The schema: made once by any number of pods, the same for readers in both flavors, documented.

use anyhow::{Result, ensure};

use crate::platform::{Flavor, Platform};

crate::in_both_flavors!(
    many_pods_migrate_at_once,
    every_table_and_column_has_a_comment,
    a_table_of_another_origin_is_left_alone,
    events_are_append_only,
    a_writer_may_insert_and_a_reader_may_read,
    what_no_event_can_be_is_told_from_what_has_no_partition,
);

async fn many_pods_migrate_at_once(flavor: Flavor) -> Result<()> {
    let platform = Platform::bare(flavor).await?;
    let (a, b, c, d) = tokio::join!(
        platform.migrate(&[]),
        platform.migrate(&[]),
        platform.migrate(&[]),
        platform.migrate(&[])
    );
    let said = [a?, b?, c?, d?];
    let applied = said
        .iter()
        .filter(|said| said.contains("applied V1__tables"))
        .count();
    ensure!(applied == 1, "{said:#?}");
    ensure!(
        said.iter()
            .all(|said| said.contains(&format!("flavor {}", flavor.name()))),
        "{said:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_flavor_can_be_chosen_but_not_changed() -> Result<()> {
    if Flavor::TimescaleDb.is_here() {
        let platform = Platform::bare(Flavor::TimescaleDb).await?;
        let said = platform.migrate(&[("DATABASE_FLAVOR", "postgres")]).await?;
        ensure!(
            said.contains("flavor postgres: DATABASE_FLAVOR says so"),
            "{said}"
        );
        let refused = platform
            .migrate(&[("DATABASE_FLAVOR", "timescaledb")])
            .await
            .unwrap_err()
            .to_string();
        ensure!(refused.contains("cannot be changed in place"), "{refused}");
    }
    let platform = Platform::bare(Flavor::Postgres).await?;
    let refused = platform
        .migrate(&[("DATABASE_FLAVOR", "timescaledb")])
        .await
        .unwrap_err()
        .to_string();
    ensure!(refused.contains("DATABASE_FLAVOR=timescaledb, but"), "{refused}");
    let refused = platform
        .migrate(&[("DATABASE_FLAVOR", "oracle")])
        .await
        .unwrap_err()
        .to_string();
    ensure!(refused.contains("DATABASE_FLAVOR is not valid"), "{refused}");
    Ok(())
}

/// Both flavors show readers the same relations, columns and types.
#[tokio::test]
async fn both_flavors_have_one_reading_contract() -> Result<()> {
    if !Flavor::TimescaleDb.is_here() {
        return Ok(());
    }
    let mut contracts = Vec::new();
    for flavor in [Flavor::Postgres, Flavor::TimescaleDb] {
        let platform = Platform::new(flavor).await?;
        let rows = platform
            .owner
            .query(
                "SELECT format('%s.%s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod)) \
                 FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
                 WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND c.relname IN \
                 (SELECT rung FROM ladder UNION ALL SELECT replace(rung, 'closed_', 'usage_') FROM ladder \
                  UNION ALL VALUES ('usage_events'), ('dead_letters'), ('ingest_workers'), ('ingest_window'), \
                  ('ladder')) ORDER BY 1",
                &[],
            )
            .await?;
        contracts.push(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>());
    }
    ensure!(
        contracts[0].len() > 90 && contracts[0] == contracts[1],
        "{contracts:#?}"
    );
    Ok(())
}

async fn every_table_and_column_has_a_comment(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let bare = platform
        .owner
        .query(
            "SELECT c.relname::text || coalesce('.' || a.attname, '') \
             FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 \
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') \
               AND NOT c.relispartition AND c.relname <> 'refinery_schema_history' \
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') \
               AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)",
            &[],
        )
        .await?;
    let bare: Vec<String> = bare.iter().map(|row| row.get(0)).collect();
    ensure!(bare.is_empty(), "without a comment: {bare:?}");
    Ok(())
}

async fn a_table_of_another_origin_is_left_alone(flavor: Flavor) -> Result<()> {
    let platform = Platform::bare(flavor).await?;
    platform
        .owner
        .batch_execute(
            "CREATE TABLE usage_events (time timestamptz, event_id uuid, cost decimal(10,6), mine text)",
        )
        .await?;
    let refused = platform.migrate(&[]).await.unwrap_err().to_string();
    for part in [
        "nothing was changed",
        "cost numeric(20,10)",
        "mine text",
        "RENAME TO",
    ] {
        ensure!(refused.contains(part), "{part} is missing in {refused}");
    }
    let tables = platform
        .count("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')")
        .await?;
    ensure!(tables == 1, "{tables} tables after a refusal");
    // The way that the message describes works, also past a usage_hourly of the same origin.
    platform
        .owner
        .batch_execute("CREATE VIEW usage_hourly AS SELECT 1 AS hour; ALTER TABLE usage_events RENAME TO usage_events_before")
        .await?;
    let refused = platform.migrate(&[]).await.unwrap_err().to_string();
    ensure!(refused.contains("relation usage_hourly"), "{refused}");
    platform.owner.batch_execute("DROP VIEW usage_hourly").await?;
    platform.migrate(&[]).await?;
    Ok(())
}

async fn events_are_append_only(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    for statement in [
        "UPDATE usage_events SET cost = 0",
        "DELETE FROM usage_events",
        "TRUNCATE usage_events",
    ] {
        let error = platform.owner.batch_execute(statement).await.unwrap_err();
        let words = error
            .as_db_error()
            .map(|db| db.message().to_owned())
            .unwrap_or_default();
        ensure!(
            words.contains("usage_events is refused"),
            "{statement}: {error} {words}"
        );
    }
    Ok(())
}

async fn a_writer_may_insert_and_a_reader_may_read(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let writer = e2e::servers::connect(&platform.url_of("writer")?).await?;
    // A temporary table of the writer cannot take a rollup's place.
    writer
        .batch_execute(
            "CREATE TEMP TABLE usage_quarter_hourly (x int); \
             INSERT INTO usage_events (time, event_id, org_id, user_id, api_key_id, model_name, input_tokens, \
             output_tokens, total_tokens, cost, status) SELECT now(), gen_random_uuid(), gen_random_uuid(), \
             gen_random_uuid(), gen_random_uuid(), 'm', 1, 2, 3, 0.5, 'success'",
        )
        .await?;
    crate::rollups::assert_equal_raw(&platform).await?;
    let reader = e2e::servers::connect(&platform.url_of("reader")?).await?;
    let beyond = platform.rights_beyond_reading("reader").await?;
    ensure!(beyond.is_empty(), "a reader may do more than read: {beyond:?}");
    let beyond = platform.rights_beyond_reading("writer").await?;
    ensure!(
        beyond.iter().any(|right| right == "usage_events"),
        "{beyond:?} do not have what a writer may"
    );
    ensure!(reader.query("SELECT * FROM usage_daily", &[]).await?.len() == 1);
    for (client, refused) in [
        (&writer, "SELECT * FROM usage_events"),
        (&writer, "SELECT * FROM dead_letters"),
        (
            &writer,
            "UPDATE public.usage_quarter_hourly SET request_count = 0",
        ),
        (&writer, "UPDATE ingest_window SET floor = now()"),
        (&reader, "SELECT * FROM dead_letters"),
        (
            &reader,
            "INSERT INTO ingest_window (floor, rollups_since) VALUES (now(), now())",
        ),
        (&reader, "DELETE FROM closed_daily_by_user"),
    ] {
        let error = client.batch_execute(refused).await.unwrap_err();
        ensure!(
            error.code().is_some_and(|code| code.code() == "42501"),
            "{refused}: {error}"
        );
    }
    Ok(())
}

/// The worker keeps a row as a dead letter for the first kind and waits for the second: they must not look alike.
/// A trigger's index, or a cast in it, must never be what refuses a row: it names no column.
async fn what_no_event_can_be_is_told_from_what_has_no_partition(flavor: Flavor) -> Result<()> {
    let platform = Platform::new(flavor).await?;
    let writer = e2e::servers::connect(&platform.url_of("writer")?).await?;
    let insert = |time: &str, model: &str, cost: &str| {
        format!(
            "INSERT INTO usage_events (time, event_id, org_id, user_id, api_key_id, model_name, input_tokens, \
             output_tokens, total_tokens, cost, status) SELECT {time}, gen_random_uuid(), gen_random_uuid(), \
             gen_random_uuid(), gen_random_uuid(), {model}, 1, 2, 3, {cost}, 'success'"
        )
    };
    let mut refused = vec![
        (
            insert("now()", "'m'", "'NaN'"),
            "23514",
            Some("usage_events_cost_in_range"),
        ),
        (insert("now()", "repeat('m', 6000)", "1"), "22001", None),
    ];
    if flavor == Flavor::Postgres {
        refused.push((insert("now() + interval '1 year'", "'m'", "1"), "23514", None));
        // One of those could be neither split nor detached concurrently.
        let catching_all = platform
            .count("SELECT count(*) FROM pg_partitioned_table WHERE partdefid <> 0")
            .await?;
        ensure!(catching_all == 0, "{catching_all} DEFAULT partitions");
    }
    for (statement, code, constraint) in refused {
        let error = writer.batch_execute(&statement).await.unwrap_err();
        let error = error.as_db_error().expect("the database's word");
        ensure!(
            (error.code().code(), error.constraint()) == (code, constraint),
            "{statement}: {error:?}"
        );
    }
    ensure!(platform.count("SELECT count(*) FROM usage_events").await? == 0);
    Ok(())
}
