-- Partitions by time for what grows with it: by day for what is kept as long as raw events, by month for the rest.

ALTER TABLE usage_events RENAME TO usage_events_shape;
CREATE TABLE usage_events (LIKE usage_events_shape INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS)
    PARTITION BY RANGE (time);
DO $$ BEGIN
    EXECUTE format('COMMENT ON TABLE usage_events IS %L', obj_description('usage_events_shape'::regclass));
END $$;
DROP TABLE usage_events_shape;
CREATE UNIQUE INDEX usage_events_key ON usage_events (org_id, time, event_id);
CREATE INDEX usage_events_time ON usage_events USING brin (time);

DO $$
DECLARE
    rung ladder;
BEGIN
    FOR rung IN SELECT * FROM ladder ORDER BY place LOOP
        EXECUTE format('ALTER TABLE %1$I RENAME TO %1$s_shape', rung.rung);
        EXECUTE format('CREATE TABLE %1$I (LIKE %1$s_shape INCLUDING COMMENTS) PARTITION BY RANGE (%2$I)',
            rung.rung, rung.time_column);
        EXECUTE format('COMMENT ON TABLE %I IS %L', rung.rung, obj_description((rung.rung || '_shape')::regclass));
        EXECUTE format('DROP TABLE %s_shape', rung.rung);
        EXECUTE format('ALTER TABLE %I ADD PRIMARY KEY (%s, late)', rung.rung, array_to_string(rung.key, ', '));
        -- A closing reads a span of time of all organizations, in which rows arrive nearly.
        EXECUTE format('CREATE INDEX %1$s_time ON %1$I USING brin (%2$I) WITH (pages_per_range = 32)', rung.rung, rung.time_column);
    END LOOP;
END $$;

-- All of an organization's users, by time. The primary key is by user first.
CREATE INDEX closed_daily_by_user_org_day ON closed_daily_by_user (org_id, day);

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
    -- Rows of written rungs are rewritten while their bucket is open: free space keeps the new version on the
    -- same page, and so out of the index. Raw events are never rewritten, rows of derived rungs hardly ever.
    EXECUTE format('CREATE TABLE IF NOT EXISTS public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
                    WITH (fillfactor = %s)',
                   name, parent, CASE WHEN parent IN ('usage_quarter_hourly_by_user', 'usage_quarter_hourly') THEN 70 ELSE 100 END);
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
        FOREACH parent IN ARRAY ARRAY['usage_events', 'usage_quarter_hourly_by_user'] LOOP
            IF public.ensure_partition(parent, to_char(step, 'YYYYMMDD'), step, step + 1) THEN
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    -- The first day's week may begin in the month before.
    FOR step IN SELECT generate_series(date_trunc('month', first_day - 6), last_day, interval '1 month')::date LOOP
        FOR parent IN SELECT rung FROM public.ladder WHERE rung <> 'usage_quarter_hourly_by_user' ORDER BY place LOOP
            CONTINUE WHEN step < date_trunc('month', first_day) AND parent <> 'closed_weekly_by_key';
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
