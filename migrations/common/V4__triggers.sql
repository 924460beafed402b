-- The database adds every batch to the ladder inside the writer's own transaction: what is committed is counted, once,
-- whatever dies when.
--
-- The functions run as their owner, so that a writer needs INSERT on usage_events alone. Their search_path is
-- pg_catalog and pg_temp, and every other name is qualified: a writer's temporary table cannot take a rollup's place.

-- The INSERT that adds rows of `origin` to a rung: events of a trigger's batch (`added`), or rows of the rung below. `is_late`
-- and `condition` are SQL over the origin. Rows go in in the order of the key, so that two writers cannot lock the same rows
-- in opposite orders.
CREATE FUNCTION ladder_insert(target public.ladder, origin text, is_late text, condition text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('-- add_to_%1$s
INSERT INTO public.%1$I AS r (%2$s, late, %3$s)
SELECT %4$s, %5$s, %6$s
FROM %7$s WHERE %8$s GROUP BY %9$s ORDER BY %9$s
ON CONFLICT (%2$s, late) DO UPDATE SET %10$s',
        target.rung, keys.names, measures.names,
        keys.selected, is_late, CASE origin WHEN 'added' THEN measures.of_events ELSE measures.of_rows END,
        origin, condition, keys.places, measures.additions)
    FROM (
        SELECT string_agg(name, ', ' ORDER BY number) AS names,
            string_agg(CASE name WHEN target.time_column
                THEN format('date_bin(%L, %s, %L)', target.width, coalesce(
                    (SELECT below.time_column FROM public.ladder below WHERE 'public.' || below.rung = origin), 'time'), '2000-01-03 00:00Z')
                ELSE name END, ', ' ORDER BY number) AS selected,
            string_agg(number::text, ', ' ORDER BY number) || ', ' || max(number) + 1 AS places
        FROM unnest(target.key) WITH ORDINALITY AS key (name, number)
    ) AS keys, (
        SELECT string_agg(measure, ', ' ORDER BY number) AS names,
            string_agg(of_events, ', ' ORDER BY number) AS of_events,
            string_agg(format('sum(%s)::bigint', measure), ', ' ORDER BY number) AS of_rows,
            string_agg(format('%1$s = r.%1$s + excluded.%1$s', measure), ', ' ORDER BY number) AS additions
        FROM public.ladder_measures(target.histogram) WITH ORDINALITY AS counted (measure, of_events, words, number)
    ) AS measures
$$;
COMMENT ON FUNCTION ladder_insert IS 'The statement that adds events or rows of a source to a rung';

-- Every batch holds this lock, shared, from here to its end; whoever moves a rung's closing_through holds it alone. So a
-- batch sees one closing_through from here to its commit. It comes before all locks of rows: a writer that waits here
-- holds up nobody.
CREATE FUNCTION add_to_ladder() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    earliest timestamptz;
    today    timestamptz;
    rung     public.ladder;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7203118455612003);
    SELECT min(time) INTO earliest FROM added;
    SELECT closing_through INTO today FROM public.ladder WHERE ladder.rung = 'closed_daily';
    FOR rung IN SELECT * FROM public.ladder WHERE closed_through IS NULL OR closing_through > earliest ORDER BY place LOOP
        IF rung.closed_through IS NULL THEN
            EXECUTE public.ladder_insert(rung, 'added', format('time < %L', today), 'true');
        ELSE
            EXECUTE public.ladder_insert(rung, 'added', 'true', format('time < %L', rung.closing_through));
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION add_to_ladder IS 'Adds the inserted events to the written rungs, and late ones to the derived rungs';
CREATE TRIGGER add_to_ladder AFTER INSERT ON usage_events
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION add_to_ladder();

-- An event that is changed or deleted would leave the rollups wrong. Dropping old chunks or partitions
-- does not come through here.
CREATE FUNCTION refuse_change_of_events() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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

-- Closes what ended before `up_to`: each derived rung is filled up to its last full bucket before that.
--
-- 1. Alone with the lock, no batch is under way: closing_through moves. Every later batch adds its events for these buckets
--    to the rung by itself, as late ones. Late rows that a closing which was cut short has left are taken out: it was not
--    read, and the events behind them are in the rung below.
-- 2. The snapshot of the second transaction is taken while the lock is still held. It has every event of a batch before the
--    lock and none of a batch after it, so that no event is missing and none is added twice.
-- 3. The rungs are added up from that snapshot while batches go on, and are read from its commit on.
--
-- Cut short after 1 it is done again from there; cut short in 2 or 3 nothing of it stays.
CREATE PROCEDURE close_buckets(up_to timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    target public.ladder;
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '1s', true);
    -- A session's lock, since this is two transactions. Given back below; after an error by the caller.
    PERFORM pg_catalog.pg_advisory_lock(7203118455612003);
    FOR target IN SELECT * FROM public.ladder WHERE closing_through > closed_through ORDER BY place LOOP
        EXECUTE format('DELETE FROM public.%I WHERE late AND %I >= %L', target.rung, target.time_column, target.closed_through);
    END LOOP;
    UPDATE public.ladder
    SET closing_through = greatest(closing_through, date_bin(width, up_to, '2000-01-03 00:00Z'))
    WHERE closed_through IS NOT NULL;
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
    PERFORM pg_catalog.pg_advisory_unlock(7203118455612003);
    FOR target IN SELECT * FROM public.ladder WHERE closing_through > closed_through ORDER BY place LOOP
        EXECUTE (
            SELECT public.ladder_insert(target, 'public.' || target.source, 'false',
                format('%1$I >= %2$L AND %1$I < %3$L', below.time_column, target.closed_through, target.closing_through))
            FROM public.ladder below WHERE below.rung = target.source);
    END LOOP;
    UPDATE public.ladder SET closed_through = closing_through WHERE closing_through > closed_through;
    COMMIT;
END $$;
REVOKE ALL ON PROCEDURE close_buckets FROM PUBLIC;
COMMENT ON PROCEDURE close_buckets IS 'Derives the buckets that ended before a moment';

-- Each derived rung with what is not closed yet: always complete, one row for a key. For people and their tools; the API
-- reads the rungs themselves.
DO $$
DECLARE
    target ladder;
    below  ladder;
    said   record;
BEGIN
    FOR target IN SELECT * FROM ladder WHERE closed_through IS NOT NULL ORDER BY place LOOP
        SELECT * INTO below FROM ladder WHERE rung = target.source;
        EXECUTE (
            SELECT format('CREATE VIEW %1$I AS
SELECT %2$s, %3$s,
    sum(total_input_tokens + total_output_tokens)::bigint AS total_tokens,
    sum(total_cost_e10) / 10000000000 AS total_cost,
    sum(latency_ms_sum) / nullif(sum(latency_count), 0) AS avg_latency_ms
FROM (
    SELECT %2$s, %4$s FROM %5$I WHERE %6$I < (SELECT closed_through FROM ladder WHERE rung = %5$L)
    UNION ALL
    SELECT %7$s, %4$s FROM %8$I WHERE %9$I >= (SELECT closed_through FROM ladder WHERE rung = %5$L)
) AS part
GROUP BY %2$s',
                replace(target.rung, 'closed_', 'usage_'),
                array_to_string(target.key, ', '),
                string_agg(format('sum(%1$s)::bigint AS %1$s', measure), ', ' ORDER BY number),
                string_agg(measure, ', ' ORDER BY number),
                target.rung, target.time_column,
                (SELECT string_agg(CASE name WHEN target.time_column
                     THEN format('date_bin(%L, %I, %L) AS %I', target.width, below.time_column, '2000-01-03 00:00Z', name)
                     ELSE name END, ', ' ORDER BY place) FROM unnest(target.key) WITH ORDINALITY AS key (name, place)),
                replace(below.rung, 'closed_', 'usage_'), below.time_column)
            FROM ladder_measures(target.histogram) WITH ORDINALITY AS counted (measure, of_events, words, number));
        EXECUTE format('COMMENT ON VIEW %I IS %L', replace(target.rung, 'closed_', 'usage_'),
            target.words || ', through the last commit');
        FOR said IN
            SELECT column_name::text AS name, col_description(target.rung::regclass, ordinal_position) AS words
            FROM information_schema.columns WHERE table_schema = 'public' AND table_name = target.rung AND column_name <> 'late'
            UNION ALL VALUES ('total_tokens', 'Tokens of prompts and answers'), ('total_cost', 'Cost in US dollars'),
                ('avg_latency_ms', 'Mean of the latencies that were measured, milliseconds')
        LOOP
            EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', replace(target.rung, 'closed_', 'usage_'), said.name, said.words);
        END LOOP;
    END LOOP;
END $$;
