-- The database adds every batch to the rollups inside the writer's own transaction: what is committed is
-- counted, once, whatever dies when.
--
-- The functions run as their owner, so that a writer needs INSERT on usage_events alone. Their search_path
-- ends in pg_temp and every name is qualified: a writer's temporary table cannot take a rollup's place.
-- Groups go in in one order, so that two writers cannot lock the same rows in opposite orders. It is the order of a
-- columnstore as well, where a row that is counted up takes its whole batch out and holds that until the commit.

CREATE FUNCTION add_to_usage_daily_by_user() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO public.usage_daily_by_user AS r (day, org_id, user_id, api_key_id, model_name, status,
        request_count, total_input_tokens, total_output_tokens, total_cost_e10, latency_ms_sum, latency_count)
    SELECT date_bin('1 day', time, '2000-01-01 00:00Z'), org_id, user_id, api_key_id, model_name, status,
        count(*), sum(input_tokens), sum(output_tokens), sum((cost * 10000000000)::bigint)::bigint,
        coalesce(sum(latency_ms), 0), count(latency_ms)
    FROM added
    GROUP BY 2, 3, 1, 4, 5, 6
    ORDER BY 2, 3, 1, 4, 5, 6
    ON CONFLICT (org_id, day, user_id, api_key_id, model_name, status) DO UPDATE SET
        request_count = r.request_count + excluded.request_count,
        total_input_tokens = r.total_input_tokens + excluded.total_input_tokens,
        total_output_tokens = r.total_output_tokens + excluded.total_output_tokens,
        total_cost_e10 = r.total_cost_e10 + excluded.total_cost_e10,
        latency_ms_sum = r.latency_ms_sum + excluded.latency_ms_sum,
        latency_count = r.latency_count + excluded.latency_count;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION add_to_usage_daily_by_user IS 'Adds the inserted events to usage_daily_by_user';

CREATE FUNCTION add_to_usage_weekly_by_key() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO public.usage_weekly_by_key AS r (week, org_id, user_id, api_key_id, request_count,
        error_count, total_input_tokens, total_output_tokens, total_cost_e10, latency_ms_sum, latency_count)
    SELECT date_bin('7 days', time, '2000-01-03 00:00Z'), org_id, user_id, api_key_id, count(*),
        count(*) FILTER (WHERE status <> 'success'), sum(input_tokens), sum(output_tokens),
        sum((cost * 10000000000)::bigint)::bigint, coalesce(sum(latency_ms), 0), count(latency_ms)
    FROM added
    GROUP BY 2, 1, 3, 4
    ORDER BY 2, 1, 3, 4
    ON CONFLICT (org_id, week, user_id, api_key_id) DO UPDATE SET
        request_count = r.request_count + excluded.request_count,
        error_count = r.error_count + excluded.error_count,
        total_input_tokens = r.total_input_tokens + excluded.total_input_tokens,
        total_output_tokens = r.total_output_tokens + excluded.total_output_tokens,
        total_cost_e10 = r.total_cost_e10 + excluded.total_cost_e10,
        latency_ms_sum = r.latency_ms_sum + excluded.latency_ms_sum,
        latency_count = r.latency_count + excluded.latency_count;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION add_to_usage_weekly_by_key IS 'Adds the inserted events to usage_weekly_by_key';

-- One function for every rollup by time, model and status; its arguments are the relation, its time column
-- and its width. (Trigger arguments are literals of this file: nothing foreign reaches the text.)
CREATE FUNCTION add_to_rollup_by_time() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    EXECUTE format($sql$
        INSERT INTO public.%1$I AS r
        SELECT date_bin(%3$L, time, '2000-01-01 00:00Z'), org_id, model_name, status,
            count(*), sum(input_tokens), sum(output_tokens), sum((cost * 10000000000)::bigint)::bigint,
            coalesce(sum(latency_ms), 0), count(latency_ms),
            count(*) FILTER (WHERE latency_ms <= 25),
            count(*) FILTER (WHERE latency_ms > 25 AND latency_ms <= 50),
            count(*) FILTER (WHERE latency_ms > 50 AND latency_ms <= 100),
            count(*) FILTER (WHERE latency_ms > 100 AND latency_ms <= 175),
            count(*) FILTER (WHERE latency_ms > 175 AND latency_ms <= 300),
            count(*) FILTER (WHERE latency_ms > 300 AND latency_ms <= 500),
            count(*) FILTER (WHERE latency_ms > 500 AND latency_ms <= 800),
            count(*) FILTER (WHERE latency_ms > 800 AND latency_ms <= 1300),
            count(*) FILTER (WHERE latency_ms > 1300 AND latency_ms <= 2500),
            count(*) FILTER (WHERE latency_ms > 2500 AND latency_ms <= 5000),
            count(*) FILTER (WHERE latency_ms > 5000 AND latency_ms <= 10000),
            count(*) FILTER (WHERE latency_ms > 10000 AND latency_ms <= 30000),
            count(*) FILTER (WHERE latency_ms > 30000)
        FROM added
        GROUP BY 2, 1, 3, 4
        ORDER BY 2, 1, 3, 4
        ON CONFLICT (org_id, %2$I, model_name, status) DO UPDATE SET
            request_count = r.request_count + excluded.request_count,
            total_input_tokens = r.total_input_tokens + excluded.total_input_tokens,
            total_output_tokens = r.total_output_tokens + excluded.total_output_tokens,
            total_cost_e10 = r.total_cost_e10 + excluded.total_cost_e10,
            latency_ms_sum = r.latency_ms_sum + excluded.latency_ms_sum,
            latency_count = r.latency_count + excluded.latency_count,
            latency_to_25ms = r.latency_to_25ms + excluded.latency_to_25ms,
            latency_to_50ms = r.latency_to_50ms + excluded.latency_to_50ms,
            latency_to_100ms = r.latency_to_100ms + excluded.latency_to_100ms,
            latency_to_175ms = r.latency_to_175ms + excluded.latency_to_175ms,
            latency_to_300ms = r.latency_to_300ms + excluded.latency_to_300ms,
            latency_to_500ms = r.latency_to_500ms + excluded.latency_to_500ms,
            latency_to_800ms = r.latency_to_800ms + excluded.latency_to_800ms,
            latency_to_1300ms = r.latency_to_1300ms + excluded.latency_to_1300ms,
            latency_to_2500ms = r.latency_to_2500ms + excluded.latency_to_2500ms,
            latency_to_5000ms = r.latency_to_5000ms + excluded.latency_to_5000ms,
            latency_to_10000ms = r.latency_to_10000ms + excluded.latency_to_10000ms,
            latency_to_30000ms = r.latency_to_30000ms + excluded.latency_to_30000ms,
            latency_above_30000ms = r.latency_above_30000ms + excluded.latency_above_30000ms
        $sql$, TG_ARGV[0], TG_ARGV[1], TG_ARGV[2]);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION add_to_rollup_by_time IS 'Adds the inserted events to the rollup that the trigger names';

-- Triggers of one event fire in order of their names: the same order for every writer.
CREATE TRIGGER rollup_1_daily_by_user AFTER INSERT ON usage_events
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION add_to_usage_daily_by_user();
CREATE TRIGGER rollup_2_quarter_hourly AFTER INSERT ON usage_events
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT
    EXECUTE FUNCTION add_to_rollup_by_time('usage_quarter_hourly', 'bucket', '15 minutes');

CREATE TRIGGER rollup_5_weekly_by_key AFTER INSERT ON usage_events
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION add_to_usage_weekly_by_key();

-- Where continuous aggregates keep the two coarser ones, triggers must not.
DO $$
BEGIN
    IF (SELECT flavor FROM schema_flavor) = 'postgres' THEN
        CREATE TRIGGER rollup_3_hourly AFTER INSERT ON usage_events
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT
            EXECUTE FUNCTION add_to_rollup_by_time('usage_hourly', 'hour', '1 hour');
        CREATE TRIGGER rollup_4_daily AFTER INSERT ON usage_events
            REFERENCING NEW TABLE AS added FOR EACH STATEMENT
            EXECUTE FUNCTION add_to_rollup_by_time('usage_daily', 'day', '1 day');
    END IF;
END $$;

-- An event that is changed or deleted would leave the rollups wrong. Dropping old chunks or partitions
-- does not come through here.
CREATE FUNCTION refuse_change_of_events() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% on usage_events is refused: the rollups would no longer equal the events', TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = 'usage_events is append-only; it is emptied by retention.';
END $$;
COMMENT ON FUNCTION refuse_change_of_events IS 'Keeps usage_events append-only';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON usage_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON usage_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();

COMMENT ON COLUMN usage_hourly.hour IS 'Start of the hour';
COMMENT ON COLUMN usage_daily.day IS 'Midnight UTC that begins the day';
