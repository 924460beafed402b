//! The SQL of maintenance: the only place, with `migrations/`, that knows which flavor it is on.

/// Only one maintainer at a time; the number is this project's own.
pub const TRY_LOCK: &str = "-- maintenance_try_lock\nSELECT pg_try_advisory_lock(7203118455612001)";

/// Gives it back, so that `ingest-worker maintain` gets its turn.
pub const UNLOCK: &str = "-- maintenance_unlock\nSELECT pg_advisory_unlock(7203118455612001)";

/// Migrations by several pods at once wait for each other here.
pub const MIGRATION_LOCK: &str = "-- migration_lock\nSELECT pg_advisory_lock(7203118455612002)";

/// Gives the migration lock back.
pub const MIGRATION_UNLOCK: &str = "-- migration_unlock\nSELECT pg_advisory_unlock(7203118455612002)";

/// Which flavor this database has.
pub const READ_FLAVOR: &str = "-- read_flavor\nSELECT flavor FROM schema_flavor";

/// The role that owns the tables, if it is not the session's own and the session may become it.
pub const READ_OTHER_OWNER: &str = "-- read_other_owner
SELECT quote_ident(tableowner) FROM pg_tables
WHERE schemaname = 'public' AND tablename = 'usage_events'
    AND tableowner <> current_user AND pg_has_role(current_user, tableowner, 'MEMBER')";

/// Settings of a maintenance session. A step that cannot have its lock soon is left for the next round:
/// waiting would queue every writer behind it.
pub const SESSION: &[&str] = &[
    "-- maintenance_session\nSET lock_timeout = '200ms'",
    "-- maintenance_session\nSET timezone = 'UTC'",
];

/// Bounds a step that only looks: an old snapshot keeps dead versions of hot rollup rows alive.
pub const LOOK_BRIEFLY: &str = "-- look_briefly\nSET statement_timeout = '30s'";

/// Ends that.
pub const LOOK_FREELY: &str = "-- look_freely\nSET statement_timeout = 0";

/// Moves the floor of accepted events ahead: `$1` days of raw events are kept, and a day less accepted; and
/// with it from when on rollups are whole: `$2` months of them are kept, and an hour less promised. It is done
/// before anything is dropped.
pub const MOVE_FLOOR: &str = "-- move_floor
UPDATE ingest_window SET floor = greatest(floor, now() - make_interval(days => $1 - 1)),
    rollups_since = greatest(rollups_since, now() - make_interval(months => $2) + interval '1 hour')
RETURNING floor";

/// Event ids of the last ten minutes that are stored with several times or organizations, and the first of
/// them: a producer makes an id anew or changes an event when it publishes it again, and it is counted twice.
/// Older ones are found by `ingest-worker reconcile`: by id there is no index.
pub const REPEATED_LATELY: &str = "-- repeated_lately
SELECT count(*), min(event_id::text) FROM (
    SELECT event_id FROM usage_events WHERE time > now() - interval '10 minutes'
    GROUP BY 1 HAVING count(*) > 1
) AS repeated";

/// Whether a worker waits for a partition, by what it has said lately.
pub const PARTITION_IS_MISSING: &str = "-- partition_is_missing
SELECT EXISTS (SELECT FROM ingest_workers WHERE lacks_partition_at > now() - interval '15 seconds')";

/// Forgets workers that have been silent for a day.
pub const FORGET_WORKERS: &str =
    "-- forget_workers\nDELETE FROM ingest_workers WHERE beat_at < now() - interval '1 day'";

/// How far one UTC day's rollups by trigger are from its raw events, and its week from the days by user, per
/// relation: the number of organizations whose requests, tokens or cost differ. `$1`: the day, `$2`: the week.
pub const AUDIT_DAY: &str = "-- audit_day
WITH raw AS (
    SELECT org_id, count(*)::numeric AS requests, sum(input_tokens)::numeric AS input,
        sum(output_tokens)::numeric AS output, sum(cost) * 10000000000 AS cost
    FROM usage_events WHERE time >= $1 AND time < $1 + interval '1 day' GROUP BY 1
), by_user AS (
    SELECT org_id, sum(request_count) AS requests, sum(total_input_tokens) AS input,
        sum(total_output_tokens) AS output, sum(total_cost_e10) AS cost
    FROM usage_daily_by_user WHERE day = $1 GROUP BY 1
), by_quarter AS (
    SELECT org_id, sum(request_count) AS requests, sum(total_input_tokens) AS input,
        sum(total_output_tokens) AS output, sum(total_cost_e10) AS cost
    FROM usage_quarter_hourly WHERE bucket >= $1 AND bucket < $1 + interval '1 day' GROUP BY 1
), days AS (
    SELECT org_id, sum(request_count) AS requests, sum(total_input_tokens) AS input,
        sum(total_output_tokens) AS output, sum(total_cost_e10) AS cost
    FROM usage_daily_by_user WHERE day >= $2 AND day < $2 + interval '7 days' GROUP BY 1
), by_week AS (
    SELECT org_id, sum(request_count) AS requests, sum(total_input_tokens) AS input,
        sum(total_output_tokens) AS output, sum(total_cost_e10) AS cost
    FROM usage_weekly_by_key WHERE week = $2 GROUP BY 1
)
SELECT
    (SELECT count(*) FROM raw FULL JOIN by_user USING (org_id)
     WHERE (raw.requests, raw.input, raw.output, raw.cost)
         IS DISTINCT FROM (by_user.requests, by_user.input, by_user.output, by_user.cost)),
    (SELECT count(*) FROM raw FULL JOIN by_quarter USING (org_id)
     WHERE (raw.requests, raw.input, raw.output, raw.cost)
         IS DISTINCT FROM (by_quarter.requests, by_quarter.input, by_quarter.output, by_quarter.cost)),
    (SELECT count(*) FROM days FULL JOIN by_week USING (org_id)
     WHERE (days.requests, days.input, days.output, days.cost)
         IS DISTINCT FROM (by_week.requests, by_week.input, by_week.output, by_week.cost))";

/// What only the timescaledb flavor does.
pub mod timescaledb {
    /// Recompression takes its whole lock before it moves a row, or not at all. Otherwise it and a batch can
    /// wait for each other, for 5 s per chunk and in vain.
    pub const SESSION: &str =
        "-- maintenance_session\nSET timescaledb.enable_exclusive_locking_recompression = on";

    /// What a refresh may touch: from the oldest chunk that the quarter-hour rollup still has (or its
    /// retention's cut-off, `$1` months ago, if that is later) to the full hour and day of ten minutes
    /// ago. An open bucket is always answered live. A day is not closed before its hours are: an event for an
    /// hour that is not closed is in no log. Refreshing over chunks that are gone would take their history out of
    /// the aggregates.
    pub const REFRESH_BOUNDS: &str = "-- refresh_bounds
SELECT greatest(date_trunc('day', now() - make_interval(months => $1), 'UTC') + interval '1 day',
                date_bin('1 day', min(range_start), '2000-01-01 00:00Z')) AS first,
    date_trunc('hour', now() - interval '10 minutes', 'UTC') AS last_hour,
    date_trunc('day', least(now() - interval '10 minutes', (
        SELECT _timescaledb_functions.to_timestamp(closed.watermark)
        FROM _timescaledb_catalog.continuous_aggs_invalidation_threshold closed
        JOIN _timescaledb_catalog.hypertable source ON source.id = closed.hypertable_id
        WHERE source.schema_name = 'public' AND source.table_name = 'usage_quarter_hourly')), 'UTC') AS last_day
FROM timescaledb_information.chunks
WHERE hypertable_schema = 'public' AND hypertable_name = 'usage_quarter_hourly'";

    /// Up to when each aggregate answers from what is materialized. `$1`: its name.
    pub const WATERMARK: &str = "-- watermark
SELECT _timescaledb_functions.to_timestamp(_timescaledb_functions.cagg_watermark(mat_hypertable_id))
FROM _timescaledb_catalog.continuous_agg WHERE user_view_schema = 'public' AND user_view_name = $1";

    /// Refreshes `$1` from `$2` to `$3`, which is not beyond its watermark. Cannot run inside a transaction.
    pub const REFRESH: &str =
        "-- refresh\nCALL refresh_continuous_aggregate($1::text::regclass, $2::timestamptz, $3::timestamptz)";

    /// The same from the watermark on, which it moves; no batch can be committed meanwhile.
    pub const CLOSE_BUCKETS: &str =
        "-- close_buckets\nCALL close_buckets($1::text::regclass, $2::timestamptz, $3::timestamptz)";

    /// Gives the lock of that back if it ended by an error.
    pub const RELEASE_WATERMARKS: &str = "-- release_watermarks
SELECT pg_advisory_unlock(7203118455612003) FROM pg_locks
WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND mode = 'ExclusiveLock' AND granted
    AND classid::bigint << 32 | objid::bigint = 7203118455612003";

    /// Through when everything published is committed: read before a round of refreshes, it is in every
    /// rollup after it.
    pub const COMMITTED_THROUGH: &str =
        "-- committed_through\nSELECT committed_through FROM committed_through";

    /// Writes that down once the round is done: `$1`. It only moves ahead, and not without a moment.
    pub const REFRESHED_THROUGH: &str = "-- refreshed_through
UPDATE refreshed_through SET moment = $1 WHERE $1::timestamptz > coalesce(moment, '-infinity')";

    /// The same for buckets as well of which the aggregate knows no change: one that was changed itself.
    pub const REFRESH_BY_FORCE: &str = "-- refresh_by_force
CALL refresh_continuous_aggregate($1::text::regclass, $2::timestamptz, $3::timestamptz, force => true)";

    /// Chunks of raw events, rollups and aggregates that are old enough for the columnstore and not in
    /// it yet, oldest first.
    pub const CHUNKS_TO_COMPRESS: &str = "-- chunks_to_compress
SELECT format('%I.%I', c.chunk_schema, c.chunk_name) AS chunk
FROM timescaledb_information.chunks c
LEFT JOIN timescaledb_information.continuous_aggregates a
    ON a.materialization_hypertable_schema = c.hypertable_schema
    AND a.materialization_hypertable_name = c.hypertable_name
WHERE NOT c.is_compressed
    AND coalesce(a.view_name, c.hypertable_name) IN
        ('usage_events', 'usage_daily_by_user', 'usage_quarter_hourly', 'usage_hourly', 'usage_daily')
    AND c.range_end < now() - interval '1 day'
ORDER BY c.range_start";

    /// Chunks that late rows have reached since they went to the columnstore.
    pub const CHUNKS_TO_RECOMPRESS: &str = "-- chunks_to_recompress
SELECT format('%I.%I', c.schema_name, c.table_name) AS chunk
FROM _timescaledb_catalog.chunk c
JOIN _timescaledb_catalog.hypertable h ON h.id = c.hypertable_id
LEFT JOIN _timescaledb_catalog.continuous_agg a ON a.mat_hypertable_id = h.id
WHERE c.compressed_chunk_id IS NOT NULL AND c.status & 8 = 8
    AND coalesce(a.user_view_name, h.table_name) IN
        ('usage_events', 'usage_daily_by_user', 'usage_quarter_hourly', 'usage_hourly', 'usage_daily')
ORDER BY c.id";

    /// Moves a chunk to the columnstore, or the late rows of one that is there. `$1`: the chunk.
    pub const COMPRESS: &str =
        "-- compress\nSELECT compress_chunk($1::text::regclass, if_not_compressed => true)";

    /// Drops raw chunks that ended before `$1`.
    pub const DROP_RAW: &str =
        "-- drop_raw\nSELECT count(*) FROM drop_chunks('usage_events', older_than => $1::timestamptz)";

    /// Drops rollup chunks that ended `$1` months ago.
    pub const DROP_ROLLUPS: &[&str] = &[
        "-- drop_daily_by_user\nSELECT count(*) FROM drop_chunks('usage_daily_by_user', older_than => now() - make_interval(months => $1))",
        "-- drop_weekly_by_key\nSELECT count(*) FROM drop_chunks('usage_weekly_by_key', older_than => now() - make_interval(months => $1))",
        "-- drop_quarter_hourly\nSELECT count(*) FROM drop_chunks('usage_quarter_hourly', older_than => now() - make_interval(months => $1))",
        "-- drop_hourly\nSELECT count(*) FROM drop_chunks('usage_hourly', older_than => now() - make_interval(months => $1))",
        "-- drop_daily\nSELECT count(*) FROM drop_chunks('usage_daily', older_than => now() - make_interval(months => $1))",
    ];
}

/// What only the postgres flavor does.
pub mod postgres {
    /// Makes the partitions of the accepted window and of the next seven days; returns how many were
    /// missing.
    pub const ENSURE_PARTITIONS: &str = "-- ensure_partitions
SELECT ensure_partitions((floor AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date + 7)
FROM ingest_window";

    /// Detaches that were cut short: neither attached nor gone, they block every later one.
    pub const PENDING_DETACHES: &str = "-- pending_detaches
SELECT format('ALTER TABLE public.%I DETACH PARTITION public.%I FINALIZE', p.relname, c.relname)
FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhdetachpending
    AND p.relname IN ('usage_events', 'usage_daily_by_user', 'usage_weekly_by_key', 'usage_quarter_hourly',
        'usage_hourly', 'usage_daily')";

    /// Partitions whose whole span is past its retention: raw ones that ended before `$1`, rollups that
    /// ended `$2` months ago. The name carries the span; what is attached is looked up.
    pub const EXPIRED_PARTITIONS: &str = "-- expired_partitions
WITH partition AS (
    SELECT c.relname AS name, i.inhparent::regclass::text AS parent,
        substring(c.relname FROM '^(.+)_p\\d+$') AS stem, substring(c.relname FROM '_p(\\d+)$') AS span
    FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
        AND c.relname ~ '^(usage_events_p\\d{8}|usage_(daily_by_user|weekly_by_key|quarter_hourly|hourly|daily)_p\\d{6})$'
)
SELECT name, parent FROM partition
WHERE CASE WHEN stem = 'usage_events'
    THEN (to_date(span, 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' <= $1
    -- The week that a month ends with may be of the next one as well.
    ELSE (to_date(span, 'YYYYMM') + interval '1 month') AT TIME ZONE 'UTC'
        <= now() - make_interval(months => $2, days => CASE stem WHEN 'usage_weekly_by_key' THEN 7 ELSE 0 END)
END
ORDER BY name";
}

/// How a database that may have a `usage_events` of another origin differs from what V1 makes: one line
/// per column.
pub const FOREIGN_EVENTS: &str = "-- foreign_events
SELECT column_name::text || ' ' || coalesce(
    CASE WHEN data_type = 'numeric' THEN format('numeric(%s,%s)', numeric_precision, numeric_scale) END,
    data_type)::text
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = 'usage_events' ORDER BY ordinal_position";
