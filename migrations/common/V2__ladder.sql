-- The ladder of rollups: each rung adds up the one below it, and the lowest two add up usage_events.
--
-- The two *written* rungs are kept by a trigger, in the writer's own transaction. All others are *derived*: maintenance
-- adds up each of their buckets once, when it is over. A late event, one for a bucket that is closed already, is added to
-- every rung by the trigger. So every rung is exact below its watermark at every commit, and a reader takes a rung up to
-- its watermark and the rung below from there on.

CREATE TABLE ladder (
    rung            text        PRIMARY KEY,
    place           integer     NOT NULL UNIQUE,
    source          text        NOT NULL,
    time_column     text        NOT NULL,
    width           interval    NOT NULL,
    key             text[]      NOT NULL,
    histogram       boolean     NOT NULL,
    words           text        NOT NULL,
    closed_through  timestamptz,
    closing_through timestamptz,
    CONSTRAINT ladder_written_or_derived CHECK ((source = 'usage_events') = (closed_through IS NULL)),
    CONSTRAINT ladder_closing_is_ahead CHECK (closing_through >= closed_through)
);

COMMENT ON TABLE ladder IS 'The rollups, what each is added up from, and how far each is derived';
COMMENT ON COLUMN ladder.rung IS 'Name of the table';
COMMENT ON COLUMN ladder.place IS 'Order of writing, the same for every writer; a rung comes after its source';
COMMENT ON COLUMN ladder.source IS 'Relation that it is added up from';
COMMENT ON COLUMN ladder.time_column IS 'Column with the start of the bucket';
COMMENT ON COLUMN ladder.width IS 'Width of a bucket; weeks begin on Monday, all times UTC';
COMMENT ON COLUMN ladder.key IS 'Columns that tell rows apart, in the order in which rows are locked';
COMMENT ON COLUMN ladder.histogram IS 'Whether it has the latency histogram';
COMMENT ON COLUMN ladder.words IS 'What a row is';
COMMENT ON COLUMN ladder.closed_through IS 'Watermark: the rung is complete before this, and read only so far; null for a written rung, which is always complete';
COMMENT ON COLUMN ladder.closing_through IS 'Events before this are late for the rung: whoever writes them adds them to it. Ahead of closed_through while a closing is under way';

-- No event from before the accepted window is ever written: a new database is closed up to the first Monday in it.
INSERT INTO ladder (place, rung, source, time_column, width, histogram, words, key) VALUES
    (1, 'usage_quarter_hourly_by_user', 'usage_events', 'bucket', '15 minutes', false,
        'Usage by quarter of an hour, organization, user, key, model and status',
        '{org_id,user_id,bucket,api_key_id,model_name,status}'),
    (2, 'usage_quarter_hourly', 'usage_events', 'bucket', '15 minutes', true,
        'Usage by quarter of an hour, organization, model and status',
        '{org_id,bucket,model_name,status}');
INSERT INTO ladder (place, rung, source, time_column, width, histogram, words, key, closed_through, closing_through)
SELECT derived.*, opened, opened
FROM (VALUES
    (3, 'closed_hourly', 'usage_quarter_hourly', 'hour', interval '1 hour', true,
        'Usage by hour, organization, model and status',
        '{org_id,hour,model_name,status}'::text[]),
    (4, 'closed_daily', 'closed_hourly', 'day', '1 day', true,
        'Usage by UTC day, organization, model and status',
        '{org_id,day,model_name,status}'),
    (5, 'closed_daily_by_user', 'usage_quarter_hourly_by_user', 'day', '1 day', false,
        'Usage by UTC day, organization, user, key, model and status',
        '{org_id,user_id,day,api_key_id,model_name,status}'),
    (6, 'closed_weekly_by_key', 'closed_daily_by_user', 'week', '7 days', false,
        'Usage by week from a Monday, UTC, organization, user and key',
        '{org_id,week,user_id,api_key_id}'),
    (7, 'closed_hourly_by_org', 'closed_hourly', 'hour', '1 hour', false,
        'Usage by hour and organization',
        '{org_id,hour}'),
    (8, 'closed_daily_by_org', 'closed_hourly_by_org', 'day', '1 day', false,
        'Usage by UTC day and organization',
        '{org_id,day}'),
    (9, 'closed_system_quarter_hourly', 'usage_quarter_hourly', 'bucket', '15 minutes', true,
        'Usage of all organizations by quarter of an hour, model and status',
        '{bucket,model_name,status}'),
    (10, 'closed_system_daily', 'closed_system_quarter_hourly', 'day', '1 day', true,
        'Usage of all organizations by UTC day, model and status',
        '{day,model_name,status}')
) AS derived (place, rung, source, time_column, width, histogram, words, key),
    date_bin('7 days', now() - interval '82 days', '2000-01-03 00:00Z') AS opened;

-- What is counted, how it is added up from events, and what it means.
CREATE FUNCTION ladder_measures(histogram boolean)
RETURNS TABLE (measure text, of_events text, words text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT measure, of_events, words FROM (VALUES
        (1, 'request_count', 'count(*)', 'Requests'),
        (2, 'error_count', 'count(*) FILTER (WHERE status <> ''success'')', 'Requests whose status is another than success'),
        (3, 'total_input_tokens', 'sum(input_tokens)', 'Tokens of the prompts'),
        (4, 'total_output_tokens', 'sum(output_tokens)', 'Tokens of the answers'),
        (5, 'total_cached_input_tokens', 'coalesce(sum(cached_input_tokens), 0)', 'Tokens of the prompts that were read from a cache, as far as producers say'),
        (6, 'total_reasoning_tokens', 'coalesce(sum(reasoning_tokens), 0)', 'Tokens of the answers that were spent on reasoning, as far as producers say'),
        (7, 'total_cost_e10', 'sum((cost * 10000000000)::bigint)::bigint', 'Cost in units of 1e-10 US dollars'),
        (8, 'latency_ms_sum', 'coalesce(sum(latency_ms), 0)', 'Sum of the latencies that were measured, milliseconds'),
        (9, 'latency_count', 'count(latency_ms)', 'Requests whose latency was measured')
    ) AS counted (place, measure, of_events, words)
    UNION ALL
    SELECT format('latency_to_%sms', upper_bound),
        format('count(*) FILTER (WHERE latency_ms > %s AND latency_ms <= %s)', lower_bound, upper_bound),
        format('Requests with a latency above %s and up to %s ms', greatest(lower_bound, 0), upper_bound)
    FROM (VALUES (-1, 25), (25, 50), (50, 100), (100, 175), (175, 300), (300, 500), (500, 800), (800, 1300),
        (1300, 2500), (2500, 5000), (5000, 10000), (10000, 30000)) AS latency (lower_bound, upper_bound)
    WHERE histogram
    UNION ALL
    SELECT 'latency_above_30000ms', 'count(*) FILTER (WHERE latency_ms > 30000)', 'Requests with a latency above 30000 ms'
    WHERE histogram
$$;
COMMENT ON FUNCTION ladder_measures IS 'The measures of a rung, in the order of its columns';

-- Every table as a plain one: V3 makes hypertables or partitioned tables of them.
--
-- Ids come before the measures and words after them: what follows a value of no fixed width is found more slowly.
-- Words are text with collation "C": TimescaleDB adds a columnstore up by whole columns only then.
DO $$
DECLARE
    rung   ladder;
    said   record;
BEGIN
    FOR rung IN SELECT * FROM ladder ORDER BY place LOOP
        EXECUTE format('CREATE TABLE %I (%s)', rung.rung, (
            SELECT string_agg(format('%I %s NOT NULL', name, type), ', ' ORDER BY place, number)
            FROM (
                SELECT CASE WHEN name = rung.time_column THEN 1 WHEN name LIKE '%\_id' THEN 2 ELSE 5 END AS place,
                    number, name,
                    CASE WHEN name = rung.time_column THEN 'timestamptz' WHEN name LIKE '%\_id' THEN 'uuid'
                         ELSE 'text COLLATE "C"' END AS type
                FROM unnest(rung.key) WITH ORDINALITY AS part (name, number)
                UNION ALL
                SELECT 3, number, measure, 'bigint' FROM ladder_measures(rung.histogram) WITH ORDINALITY
                    AS counted (measure, of_events, words, number)
                UNION ALL
                SELECT 4, 1, 'late', 'boolean'
            ) AS columns));
        EXECUTE format('COMMENT ON TABLE %I IS %L', rung.rung, rung.words || ', of '
            || CASE WHEN rung.closed_through IS NULL THEN 'all events; kept by a trigger on ' || rung.source
                    ELSE 'buckets that are closed; derived from ' || rung.source END);
        FOR said IN
            SELECT measure AS name, words FROM ladder_measures(rung.histogram)
            UNION ALL SELECT name, words FROM (VALUES
                ('org_id', 'Organization'), ('user_id', 'User'), ('api_key_id', 'API key'), ('model_name', 'Model'),
                ('status', 'Status; all but success are errors')) AS keys (name, words) WHERE name = ANY (rung.key)
            UNION ALL SELECT rung.time_column, 'Start of the bucket'
            UNION ALL SELECT 'late', 'Whether the row counts events that came after their bucket was closed: they have rows of their own, so that '
                || 'adding one takes no other row out of the columnstore'
        LOOP
            EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', rung.rung, said.name, said.words);
        END LOOP;
    END LOOP;
END $$;
