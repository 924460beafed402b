-- Hypertables for what grows with time, with a columnstore for what is over.
-- All calls that move chunks are made by the worker's maintenance: no policy, no background job.

SELECT create_hypertable('usage_events', by_range('time', interval '1 day'), create_default_indexes => false);
ALTER TABLE usage_events SET (
    timescaledb.enable_columnstore, timescaledb.segmentby = 'org_id', timescaledb.orderby = 'time, event_id'
);

-- Late rows have segments of their own, so that a late event takes no other row out of the columnstore. A written rung's
-- row is rewritten by nearly every batch while its bucket is open: free space keeps the new version on the same page, and
-- so out of the index.
DO $$
DECLARE
    rung ladder;
BEGIN
    FOR rung IN SELECT * FROM ladder ORDER BY place LOOP
        EXECUTE format('ALTER TABLE %I ADD PRIMARY KEY (%s, late)', rung.rung, array_to_string(rung.key, ', '));
        EXECUTE format('ALTER TABLE %I SET (fillfactor = %s)', rung.rung,
            CASE WHEN rung.closed_through IS NULL THEN 70 ELSE 100 END);
        PERFORM create_hypertable(rung.rung::regclass, by_range(rung.time_column::name, CASE
            WHEN rung.rung = 'usage_quarter_hourly_by_user' THEN interval '1 day'
            WHEN rung.width < interval '1 day' OR rung.rung = 'closed_daily_by_user' THEN interval '7 days'
            ELSE interval '28 days' END), create_default_indexes => false);
        -- A closing reads a span of time of all organizations, in which rows arrive nearly.
        EXECUTE format('CREATE INDEX %1$s_time ON %1$I USING brin (%2$I) WITH (pages_per_range = 32)', rung.rung, rung.time_column);
        EXECUTE format('ALTER TABLE %I SET (timescaledb.enable_columnstore, timescaledb.segmentby = %L, timescaledb.orderby = %L)',
            rung.rung,
            CASE WHEN rung.key[1] = 'org_id' AND cardinality(rung.key) > 2 THEN 'org_id, late' ELSE 'late' END,
            (SELECT string_agg(name, ', ' ORDER BY name <> rung.time_column AND cardinality(rung.key) = 2, number)
             FROM unnest(rung.key) WITH ORDINALITY AS key (name, number)
             WHERE name <> 'org_id' OR cardinality(rung.key) = 2));
    END LOOP;
END $$;

-- All of an organization's users, by time. The primary key is by user first.
CREATE INDEX closed_daily_by_user_org_day ON closed_daily_by_user (org_id, day);

CREATE TABLE schema_flavor (flavor text PRIMARY KEY);
INSERT INTO schema_flavor VALUES ('timescaledb');
COMMENT ON TABLE schema_flavor IS 'One row: how this database stores what grows with time';
COMMENT ON COLUMN schema_flavor.flavor IS 'timescaledb';
