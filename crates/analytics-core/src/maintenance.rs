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
/// before anything is dropped, and returns before when raw events may be: nothing is that has not been closed.
pub const MOVE_FLOOR: &str = "-- move_floor
UPDATE ingest_window SET floor = greatest(floor, now() - make_interval(days => $1 - 1)),
    rollups_since = greatest(rollups_since, now() - make_interval(months => $2) + interval '1 hour')
RETURNING least(floor - interval '1 day', (SELECT min(closed_through) FROM ladder)) AS cutoff";

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

/// How far the ladder can be climbed: how far its lowest derived rung is closed, and how far that is due. Ten minutes
/// after its end a bucket is closed: what comes later is late. Where that is more than a day away, also where the first
/// usage is: what lies before is empty. No row if nothing is due.
pub const CLOSABLE: &str = "-- closable
SELECT closed_through, due, CASE WHEN closed_through < due - interval '1 day' THEN
    (SELECT min(bucket) FROM usage_quarter_hourly WHERE bucket >= closed_through AND bucket < due) END AS first_usage
FROM ladder, date_bin('15 minutes', now() - interval '10 minutes', '2000-01-03 00:00Z') AS due
WHERE rung = 'closed_system_quarter_hourly' AND closed_through < due";

/// Derives the buckets that ended before `$1` (`migrations/common/V4__triggers.sql`). Not inside a transaction.
pub const CLOSE_BUCKETS: &str = "-- close_buckets\nCALL close_buckets($1::timestamptz)";

/// Gives the lock of that back if it ended by an error.
pub const RELEASE_LADDER: &str = "-- release_ladder
SELECT pg_advisory_unlock(7203118455612003) FROM pg_locks
WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND mode = 'ExclusiveLock' AND granted
    AND classid::bigint << 32 | objid::bigint = 7203118455612003";

/// What only the timescaledb flavor does.
pub mod timescaledb {
    /// Recompression takes its whole lock before it moves a row, or not at all. Otherwise it and a batch can
    /// wait for each other, for 5 s per chunk and in vain.
    pub const SESSION: &str =
        "-- maintenance_session\nSET timescaledb.enable_exclusive_locking_recompression = on";

    /// Chunks of raw events and rollups that are old enough for the columnstore and not in it yet, oldest first. Those of a
    /// derived rung are closed first.
    pub const CHUNKS_TO_COMPRESS: &str = "-- chunks_to_compress
SELECT format('%I.%I', chunk_schema, chunk_name) AS chunk
FROM timescaledb_information.chunks LEFT JOIN ladder ON rung = hypertable_name
WHERE NOT is_compressed AND hypertable_schema = 'public' AND (rung IS NOT NULL OR hypertable_name = 'usage_events')
    AND range_end < now() - interval '1 day' AND coalesce(closed_through >= range_end, true)
ORDER BY range_start";

    /// Chunks that many late rows have reached since they went to the columnstore: more than a megabyte of them. Fewer are
    /// read as fast where they are, and moving them keeps batches out meanwhile.
    pub const CHUNKS_TO_RECOMPRESS: &str = "-- chunks_to_recompress
SELECT format('%I.%I', c.schema_name, c.table_name) AS chunk
FROM _timescaledb_catalog.chunk c
JOIN _timescaledb_catalog.hypertable h ON h.id = c.hypertable_id
LEFT JOIN ladder ON rung = h.table_name
WHERE c.compressed_chunk_id IS NOT NULL AND c.status & 8 = 8
    AND h.schema_name = 'public' AND (rung IS NOT NULL OR h.table_name = 'usage_events')
    AND pg_relation_size(format('%I.%I', c.schema_name, c.table_name)::regclass) > 1048576
ORDER BY c.id";

    /// Moves a chunk to the columnstore, or the late rows of one that is there. `$1`: the chunk.
    pub const COMPRESS: &str =
        "-- compress\nSELECT compress_chunk($1::text::regclass, if_not_compressed => true)";

    /// Drops raw events, and rollups that are kept as long, that ended before `$1`.
    pub const DROP_RAW: &str = "-- drop_raw
SELECT count(dropped) FROM unnest(ARRAY['usage_events', 'usage_quarter_hourly_by_user']) AS kept
CROSS JOIN LATERAL drop_chunks(kept::regclass, older_than => $1::timestamptz) AS dropped";

    /// Drops rollup chunks that ended `$1` months ago.
    pub const DROP_ROLLUPS: &str = "-- drop_rollups
SELECT count(dropped) FROM ladder
CROSS JOIN LATERAL drop_chunks(rung::regclass, older_than => now() - make_interval(months => $1)) AS dropped
WHERE rung <> 'usage_quarter_hourly_by_user'";
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
WHERE i.inhdetachpending AND p.relname IN (SELECT rung FROM ladder UNION ALL VALUES ('usage_events'))";

    /// Partitions whose whole span is past its retention: raw events, and rollups that are kept as long, that ended before
    /// `$1`, other rollups that ended `$2` months ago. The name carries the span; what is attached is looked up.
    pub const EXPIRED_PARTITIONS: &str = "-- expired_partitions
WITH partition AS (
    SELECT c.relname AS name, i.inhparent::regclass::text AS parent,
        substring(c.relname FROM '^(.+)_p\\d+$') AS stem, substring(c.relname FROM '_p(\\d+)$') AS span
    FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND c.relname ~ '_p(\\d{8}|\\d{6})$'
)
SELECT name, parent FROM partition
WHERE stem IN (SELECT rung FROM ladder UNION ALL VALUES ('usage_events'))
AND CASE WHEN length(span) = 8
    THEN (to_date(span, 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' <= $1
    -- The week that a month ends with may be of the next one as well.
    ELSE (to_date(span, 'YYYYMM') + interval '1 month') AT TIME ZONE 'UTC'
        <= now() - make_interval(months => $2, days => CASE stem WHEN 'closed_weekly_by_key' THEN 7 ELSE 0 END)
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
