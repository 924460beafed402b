//! The SQL of the ingest-worker: how a batch becomes rows, and what the worker says about itself.

/// The columns that the worker writes, in the order of its rows; `ingested_at` has a default.
macro_rules! event_columns {
    () => {
        "time, event_id, org_id, user_id, api_key_id, model_name, input_tokens, output_tokens, \
         total_tokens, cached_input_tokens, reasoning_tokens, cost, latency_ms, status, error_message, request_id"
    };
}

/// The straight way: binary COPY into the table. A single event that is stored already fails it.
pub const COPY_EVENTS: &str = concat!(
    "-- copy_events\nCOPY usage_events (",
    event_columns!(),
    ") FROM STDIN (FORMAT binary)"
);

/// Where a batch waits that may hold stored events. Explicit columns, because a writer may not read the
/// table's definition; one per session, emptied by each commit.
pub const CREATE_STAGING: &str = "-- create_staging
CREATE TEMP TABLE IF NOT EXISTS staged_events (
    time timestamptz NOT NULL, event_id uuid NOT NULL, org_id uuid NOT NULL, user_id uuid NOT NULL,
    api_key_id uuid NOT NULL, model_name text NOT NULL, input_tokens integer NOT NULL,
    output_tokens integer NOT NULL, total_tokens integer NOT NULL, cached_input_tokens integer,
    reasoning_tokens integer, cost numeric(20,10) NOT NULL, latency_ms integer, status text NOT NULL, error_message text, request_id text
) ON COMMIT DELETE ROWS";

/// The first half of the way around duplicates.
pub const COPY_STAGED: &str = concat!(
    "-- copy_staged\nCOPY pg_temp.staged_events (",
    event_columns!(),
    ") FROM STDIN (FORMAT binary)"
);

/// The second half: in key order, so that two workers with the same events cannot deadlock. Without a
/// conflict target it needs no right but INSERT.
pub const INSERT_STAGED: &str = concat!(
    "-- insert_staged\nINSERT INTO usage_events (",
    event_columns!(),
    ") SELECT ",
    event_columns!(),
    " FROM pg_temp.staged_events ORDER BY org_id, time, event_id ON CONFLICT DO NOTHING"
);

/// Begins a batch. Stricter isolation would end in serialization failures on hot rollup rows.
pub const BEGIN: &str = "-- begin\nBEGIN ISOLATION LEVEL READ COMMITTED";

/// Ends a batch: from here on its events are counted.
pub const COMMIT: &str = "-- commit\nCOMMIT";

/// Gives a batch up.
pub const ROLLBACK: &str = "-- rollback\nROLLBACK";

/// The process that serves this session.
pub const OWN_PROCESS: &str = "-- own_process\nSELECT pg_backend_pid()";

/// Ends the sessions that process `$1` waits for, if they stand in a COPY that began more than `$2` seconds ago and wait
/// for its next rows: that state has no timeout of its own (it is not idle, and a statement's timeout is not looked at
/// while rows are awaited), and the kernel of a client that is frozen answers keepalives for ever. Only this role's:
/// whom else it waits for is not ours to end.
pub const END_STALLED_BLOCKERS: &str = "-- end_stalled_blockers
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = ANY(pg_blocking_pids($1)) AND usename = current_user
    AND state = 'active' AND wait_event = 'ClientRead' AND query_start < clock_timestamp() - $2 * interval '1 second'";

/// Which times are accepted, by the database's clock: from the first on, up to the second.
pub const READ_WINDOW: &str =
    "-- read_window\nSELECT floor, now() + interval '10 minutes' FROM ingest_window";

/// Keeps messages that are no events; one that is kept already stays as it is. In the order of their bodies, so that
/// two workers with the same messages cannot deadlock.
pub const INSERT_DEAD_LETTERS: &str = "-- insert_dead_letters
INSERT INTO dead_letters (queue, body, headers, reason, field, detail)
SELECT $1, body, headers, reason, field, detail
FROM unnest($2::bytea[], $3::jsonb[], $4::text[], $5::text[], $6::text[])
    AS letter (body, headers, reason, field, detail)
ORDER BY body
ON CONFLICT DO NOTHING";

/// The database's clock, the only one that reports are in.
pub const CLOCK: &str = "-- clock
SELECT clock_timestamp()";

/// Says what this worker knows of the queue, by the database's clock: a report that is late says what was true,
/// not what would be. `$3`: when it started; `$4`: when what is said was true; `$5`: the last sight of the empty
/// queue by which everything received has been counted; `$6`: when its oldest unacknowledged delivery
/// arrived; `$7`: whether it ends here, holding nothing; `$8`: when a row last found no partition.
pub const REPORT: &str = "-- report
INSERT INTO ingest_workers AS w
    (worker_id, queue, started_at, beat_at, queue_empty_at, oldest_unacked_at, stopped, lacks_partition_at)
SELECT $1, $2, $3, $4, coalesce($5, (SELECT counted_through FROM counted_through)), $6, $7, $8
ON CONFLICT (worker_id) DO UPDATE SET
    beat_at = excluded.beat_at,
    queue_empty_at = CASE WHEN $5::timestamptz IS NULL THEN w.queue_empty_at
                          ELSE greatest(w.queue_empty_at, excluded.queue_empty_at) END,
    oldest_unacked_at = excluded.oldest_unacked_at,
    stopped = excluded.stopped,
    lacks_partition_at = excluded.lacks_partition_at";

/// What a writer's role needs, `{role}` being its quoted name. Rollups are written by triggers that run
/// as their owner.
pub const GRANT_WRITER: &str = "-- grant_writer
GRANT USAGE ON SCHEMA public TO {role};
GRANT INSERT ON usage_events, dead_letters TO {role};
GRANT SELECT ON ingest_window, counted_through, refinery_schema_history TO {role};
GRANT SELECT, INSERT, UPDATE ON ingest_workers TO {role}";

/// What a reader's role needs.
pub const GRANT_READER: &str = "-- grant_reader
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT ON usage_events, usage_quarter_hourly_by_user, usage_quarter_hourly, closed_hourly, closed_daily,
    closed_daily_by_user, closed_weekly_by_key, closed_hourly_by_org, closed_daily_by_org,
    closed_system_quarter_hourly, closed_system_daily, usage_hourly, usage_daily, usage_daily_by_user,
    usage_weekly_by_key, usage_hourly_by_org, usage_daily_by_org, usage_system_quarter_hourly, usage_system_daily,
    ladder, counted_through, ingest_window, schema_flavor, refinery_schema_history TO {role}";
