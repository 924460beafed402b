-- Partitions by time for what grows with it: raw events by day, rollups by month. All rollups are kept by
-- triggers (V3).

ALTER TABLE usage_events RENAME TO usage_events_shape;
CREATE TABLE usage_events (LIKE usage_events_shape INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)
    PARTITION BY RANGE (time);
DO $$ BEGIN
    EXECUTE format('COMMENT ON TABLE usage_events IS %L', obj_description('usage_events_shape'::regclass));
END $$;
DROP TABLE usage_events_shape;
CREATE UNIQUE INDEX usage_events_key ON usage_events (org_id, time, event_id);
CREATE INDEX usage_events_time ON usage_events USING brin (time);

ALTER TABLE usage_daily_by_user RENAME TO usage_daily_by_user_shape;
CREATE TABLE usage_daily_by_user (LIKE usage_daily_by_user_shape INCLUDING COMMENTS) PARTITION BY RANGE (day);
DO $$ BEGIN
    EXECUTE format('COMMENT ON TABLE usage_daily_by_user IS %L', obj_description('usage_daily_by_user_shape'::regclass));
END $$;
DROP TABLE usage_daily_by_user_shape;
ALTER TABLE usage_daily_by_user ADD PRIMARY KEY (org_id, day, user_id, api_key_id, model_name, status);

ALTER TABLE usage_weekly_by_key RENAME TO usage_weekly_by_key_shape;
CREATE TABLE usage_weekly_by_key (LIKE usage_weekly_by_key_shape INCLUDING COMMENTS) PARTITION BY RANGE (week);
DO $$ BEGIN
    EXECUTE format('COMMENT ON TABLE usage_weekly_by_key IS %L', obj_description('usage_weekly_by_key_shape'::regclass));
END $$;
DROP TABLE usage_weekly_by_key_shape;
ALTER TABLE usage_weekly_by_key ADD PRIMARY KEY (org_id, week, user_id, api_key_id);
CREATE INDEX usage_weekly_by_key_org_week ON usage_weekly_by_key (org_id, week);

ALTER TABLE usage_quarter_hourly RENAME TO usage_quarter_hourly_shape;
CREATE TABLE usage_quarter_hourly (LIKE usage_quarter_hourly_shape INCLUDING COMMENTS) PARTITION BY RANGE (bucket);
DO $$ BEGIN
    EXECUTE format('COMMENT ON TABLE usage_quarter_hourly IS %L', obj_description('usage_quarter_hourly_shape'::regclass));
END $$;
DROP TABLE usage_quarter_hourly_shape;
ALTER TABLE usage_quarter_hourly ADD PRIMARY KEY (org_id, bucket, model_name, status);

CREATE TABLE usage_hourly (LIKE usage_quarter_hourly INCLUDING COMMENTS) PARTITION BY RANGE (bucket);
ALTER TABLE usage_hourly RENAME COLUMN bucket TO hour;
ALTER TABLE usage_hourly ADD PRIMARY KEY (org_id, hour, model_name, status);
COMMENT ON TABLE usage_hourly IS 'Usage by hour, organization, model and status; kept by a trigger on usage_events, 13 months';

CREATE TABLE usage_daily (LIKE usage_quarter_hourly INCLUDING COMMENTS) PARTITION BY RANGE (bucket);
ALTER TABLE usage_daily RENAME COLUMN bucket TO day;
ALTER TABLE usage_daily ADD PRIMARY KEY (org_id, day, model_name, status);
COMMENT ON TABLE usage_daily IS 'Usage by UTC day, organization, model and status; kept by a trigger on usage_events, 13 months';

CREATE TABLE schema_flavor (flavor text PRIMARY KEY);
INSERT INTO schema_flavor VALUES ('postgres');
COMMENT ON TABLE schema_flavor IS 'One row: how this database stores what grows with time';
COMMENT ON COLUMN schema_flavor.flavor IS 'postgres';

-- Makes one partition unless it is there, and tells whether it did. Created aside and then attached:
-- CREATE TABLE .. PARTITION OF would lock the parent against every reader and writer.
CREATE FUNCTION ensure_partition(parent text, suffix text, lower_bound timestamptz, upper_bound timestamptz)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    name text := parent || '_p' || suffix;
BEGIN
    IF EXISTS (SELECT FROM pg_inherits
               WHERE inhparent = format('public.%I', parent)::regclass
                 AND inhrelid = to_regclass(format('public.%I', name))) THEN
        RETURN false;
    END IF;
    -- Rows of rollups are rewritten while their bucket is open: free space keeps the new version on the
    -- same page, and so out of the index. Raw events are never rewritten.
    EXECUTE format('CREATE TABLE IF NOT EXISTS public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
                    WITH (fillfactor = %s)',
                   name, parent, CASE parent WHEN 'usage_events' THEN 100 ELSE 70 END);
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, name, lower_bound, upper_bound);
    RETURN true;
END $$;
COMMENT ON FUNCTION ensure_partition IS 'Makes one partition unless it is attached already; true if it did';

-- All partitions that cover the days from first_day to last_day, raw and rolled up.
CREATE FUNCTION ensure_partitions(first_day date, last_day date)
RETURNS integer LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    made integer := 0;
    step date;
    parent text;
BEGIN
    FOR step IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
        IF public.ensure_partition('usage_events', to_char(step, 'YYYYMMDD'), step, step + 1) THEN
            made := made + 1;
        END IF;
    END LOOP;
    -- The first day's week may begin in the month before.
    FOR step IN SELECT generate_series(date_trunc('month', first_day - 6), last_day, interval '1 month')::date LOOP
        FOREACH parent IN ARRAY ARRAY['usage_daily_by_user', 'usage_weekly_by_key', 'usage_quarter_hourly', 'usage_hourly',
                                    'usage_daily'] LOOP
            CONTINUE WHEN step < date_trunc('month', first_day) AND parent <> 'usage_weekly_by_key';
            IF public.ensure_partition(parent, to_char(step, 'YYYYMM'), step, step + interval '1 month') THEN
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
COMMENT ON FUNCTION ensure_partitions IS 'Makes the partitions that cover a span of UTC days; returns how many were missing';

SELECT ensure_partitions(
    (now() AT TIME ZONE 'UTC')::date - 91, (now() AT TIME ZONE 'UTC')::date + 7
);
