-- Hypertables for what is written, real-time continuous aggregates for what follows from it.
-- All calls that move chunks are made by the worker's maintenance: no policy, no background job.

SELECT create_hypertable('usage_events', by_range('time', interval '1 day'), create_default_indexes => false);
ALTER TABLE usage_events SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'org_id', timescaledb.orderby = 'time, event_id'
);

-- A row is rewritten by nearly every batch while its bucket is open: free space keeps the new version on
-- the same page, and so out of the index.
ALTER TABLE usage_daily_by_user SET (fillfactor = 70);
ALTER TABLE usage_quarter_hourly SET (fillfactor = 70);
ALTER TABLE usage_weekly_by_key SET (fillfactor = 70);

-- A week, so that little of a month is still in the rowstore: a large organization's rows are all over it. In the
-- columnstore by user first: who asks for a few users finds theirs in a few batches of each week.
SELECT create_hypertable('usage_daily_by_user', by_range('day', interval '7 days'), create_default_indexes => false);
ALTER TABLE usage_daily_by_user SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'org_id',
    timescaledb.orderby = 'user_id, day, api_key_id, model_name, status'
);

-- It stays in the rowstore: few rows, and those of the running week are rewritten by nearly every batch.
SELECT create_hypertable('usage_weekly_by_key', by_range('week', interval '28 days'), create_default_indexes => false);

SELECT create_hypertable('usage_quarter_hourly', by_range('bucket', interval '7 days'), create_default_indexes => false);
ALTER TABLE usage_quarter_hourly SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'org_id',
    timescaledb.orderby = 'bucket, model_name, status'
);

CREATE MATERIALIZED VIEW usage_hourly
WITH (timescaledb.continuous, timescaledb.materialized_only = false,
      timescaledb.create_group_indexes = false, timescaledb.chunk_interval = '7 days') AS
SELECT time_bucket('1 hour', bucket) AS hour, org_id, model_name, status,
    sum(request_count)::bigint AS request_count,
    sum(total_input_tokens)::bigint AS total_input_tokens,
    sum(total_output_tokens)::bigint AS total_output_tokens,
    sum(total_cost_e10)::bigint AS total_cost_e10,
    sum(latency_ms_sum)::bigint AS latency_ms_sum,
    sum(latency_count)::bigint AS latency_count,
    sum(latency_to_25ms)::bigint AS latency_to_25ms,
    sum(latency_to_50ms)::bigint AS latency_to_50ms,
    sum(latency_to_100ms)::bigint AS latency_to_100ms,
    sum(latency_to_175ms)::bigint AS latency_to_175ms,
    sum(latency_to_300ms)::bigint AS latency_to_300ms,
    sum(latency_to_500ms)::bigint AS latency_to_500ms,
    sum(latency_to_800ms)::bigint AS latency_to_800ms,
    sum(latency_to_1300ms)::bigint AS latency_to_1300ms,
    sum(latency_to_2500ms)::bigint AS latency_to_2500ms,
    sum(latency_to_5000ms)::bigint AS latency_to_5000ms,
    sum(latency_to_10000ms)::bigint AS latency_to_10000ms,
    sum(latency_to_30000ms)::bigint AS latency_to_30000ms,
    sum(latency_above_30000ms)::bigint AS latency_above_30000ms
FROM usage_quarter_hourly
GROUP BY 1, 2, 3, 4
WITH NO DATA;
CREATE INDEX usage_hourly_org ON usage_hourly (org_id, hour);
ALTER MATERIALIZED VIEW usage_hourly SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'org_id',
    timescaledb.orderby = 'hour, model_name, status'
);
COMMENT ON VIEW usage_hourly IS 'Usage by hour, organization, model and status: a real-time continuous aggregate of usage_quarter_hourly, 13 months';

CREATE MATERIALIZED VIEW usage_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false,
      timescaledb.create_group_indexes = false, timescaledb.chunk_interval = '30 days') AS
SELECT time_bucket('1 day', hour) AS day, org_id, model_name, status,
    sum(request_count)::bigint AS request_count,
    sum(total_input_tokens)::bigint AS total_input_tokens,
    sum(total_output_tokens)::bigint AS total_output_tokens,
    sum(total_cost_e10)::bigint AS total_cost_e10,
    sum(latency_ms_sum)::bigint AS latency_ms_sum,
    sum(latency_count)::bigint AS latency_count,
    sum(latency_to_25ms)::bigint AS latency_to_25ms,
    sum(latency_to_50ms)::bigint AS latency_to_50ms,
    sum(latency_to_100ms)::bigint AS latency_to_100ms,
    sum(latency_to_175ms)::bigint AS latency_to_175ms,
    sum(latency_to_300ms)::bigint AS latency_to_300ms,
    sum(latency_to_500ms)::bigint AS latency_to_500ms,
    sum(latency_to_800ms)::bigint AS latency_to_800ms,
    sum(latency_to_1300ms)::bigint AS latency_to_1300ms,
    sum(latency_to_2500ms)::bigint AS latency_to_2500ms,
    sum(latency_to_5000ms)::bigint AS latency_to_5000ms,
    sum(latency_to_10000ms)::bigint AS latency_to_10000ms,
    sum(latency_to_30000ms)::bigint AS latency_to_30000ms,
    sum(latency_above_30000ms)::bigint AS latency_above_30000ms
FROM usage_hourly
GROUP BY 1, 2, 3, 4
WITH NO DATA;
CREATE INDEX usage_daily_org ON usage_daily (org_id, day);
ALTER MATERIALIZED VIEW usage_daily SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = '', timescaledb.orderby = 'day, org_id'
);
COMMENT ON VIEW usage_daily IS 'Usage by UTC day, organization, model and status: a real-time continuous aggregate of usage_hourly, 13 months';

-- Their columns mean what those of their source mean.
DO $$
DECLARE
    said record;
BEGIN
    FOR said IN
        SELECT aggregate, attname, col_description(attrelid, attnum) AS words
        FROM pg_attribute, unnest(ARRAY['usage_hourly', 'usage_daily']) AS aggregate
        WHERE attrelid = 'usage_quarter_hourly'::regclass AND attnum > 0 AND attname <> 'bucket'
    LOOP
        EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', said.aggregate, said.attname, said.words);
    END LOOP;
END $$;

-- Moving an aggregate's watermark ahead (closing buckets) and committing events exclude each other. Without that
-- an event that was answered live is gone when the watermark passes it, until the next refresh; and one whose
-- COMMIT has looked at TimescaleDB's invalidation threshold just before a refresh moves that is never materialized
-- at all, as nothing is left in a log. So each batch holds this lock from here to its end, shared, and whoever closes
-- buckets holds it alone. It comes before the locks of rollup rows (triggers fire in order of their names, and "h" is before "r"): a
-- writer that waits here makes no other wait.
CREATE FUNCTION hold_watermarks() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7203118455612003);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION hold_watermarks IS 'Keeps the aggregates'' watermarks where they are until the batch has ended';
CREATE TRIGGER hold_watermarks AFTER INSERT ON usage_events
    FOR EACH STATEMENT EXECUTE FUNCTION hold_watermarks();

-- The other side. A session's lock, since a refresh is several transactions; it is given back here and not by the
-- caller, who might be cut off. On an error the caller has to. A second is for how long batches that wait behind it
-- may be held up by one that does not end.
CREATE PROCEDURE close_buckets(aggregate regclass, first timestamptz, last timestamptz)
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '1s', true);
    PERFORM pg_catalog.pg_advisory_lock(7203118455612003);
    CALL public.refresh_continuous_aggregate(aggregate, first, last);
    PERFORM pg_catalog.pg_advisory_unlock(7203118455612003);
END $$;
REVOKE ALL ON PROCEDURE close_buckets FROM PUBLIC;
COMMENT ON PROCEDURE close_buckets IS 'Refreshes an aggregate ahead of its watermark while no batch can be committed';

-- An event for a bucket that is materialized already waits for a refresh. From its commit on it stands in
-- TimescaleDB's log of changes of the source, then in the aggregate's own log, and leaves that when it is
-- materialized, each step in one transaction: what a query sees here fits what it sees in the aggregate.
-- The aggregate's log also holds what lies outside of all refreshes: they begin with the oldest chunk of the
-- source, and from the watermark on the aggregate answers live; days are materialized where hours may still be
-- live, if the last of them were empty. In plpgsql, as a view would tie the extension's tables down and block its
-- updates.
CREATE OR REPLACE FUNCTION awaits_refresh() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log changed
        JOIN _timescaledb_catalog.continuous_agg aggregate ON aggregate.raw_hypertable_id = changed.hypertable_id
        WHERE aggregate.user_view_schema = 'public' AND aggregate.user_view_name IN ('usage_hourly', 'usage_daily')
    ) OR EXISTS (
        SELECT FROM _timescaledb_catalog.continuous_aggs_materialization_invalidation_log stale
        JOIN _timescaledb_catalog.continuous_agg aggregate ON aggregate.mat_hypertable_id = stale.materialization_id
        JOIN _timescaledb_catalog.continuous_aggs_watermark filled USING (mat_hypertable_id)
        CROSS JOIN (
            SELECT greatest(
                (SELECT _timescaledb_functions.to_unix_microseconds(floor) FROM public.ingest_window),
                (SELECT min(slice.range_start)
                 FROM _timescaledb_catalog.hypertable source
                 JOIN _timescaledb_catalog.dimension ON dimension.hypertable_id = source.id
                 JOIN _timescaledb_catalog.dimension_slice slice ON slice.dimension_id = dimension.id
                 WHERE source.schema_name = 'public' AND source.table_name = 'usage_quarter_hourly')
            ) AS first, (
                SELECT max(either.watermark)
                FROM _timescaledb_catalog.continuous_agg
                JOIN _timescaledb_catalog.continuous_aggs_watermark either USING (mat_hypertable_id)
                WHERE user_view_schema = 'public' AND user_view_name IN ('usage_hourly', 'usage_daily')
            ) AS filled_by_either
        ) AS kept
        WHERE aggregate.user_view_schema = 'public' AND aggregate.user_view_name IN ('usage_hourly', 'usage_daily')
            AND stale.greatest_modified_value >= kept.first
            AND greatest(stale.lowest_modified_value, kept.first) < CASE aggregate.user_view_name
                WHEN 'usage_hourly' THEN kept.filled_by_either ELSE filled.watermark END
    );
END $$;

CREATE TABLE schema_flavor (flavor text PRIMARY KEY);
INSERT INTO schema_flavor VALUES ('timescaledb');
COMMENT ON TABLE schema_flavor IS 'One row: how this database stores what grows with time';
COMMENT ON COLUMN schema_flavor.flavor IS 'timescaledb';
