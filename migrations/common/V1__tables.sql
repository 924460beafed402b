-- Every table as a plain one. V2 makes hypertables or partitioned tables of those that grow with time.

CREATE TABLE usage_events (
    time          timestamptz    NOT NULL,
    event_id      uuid           NOT NULL,
    org_id        uuid           NOT NULL,
    user_id       uuid           NOT NULL,
    api_key_id    uuid           NOT NULL,
    model_name    varchar(255) COLLATE "C" NOT NULL,
    input_tokens  integer        NOT NULL,
    output_tokens integer        NOT NULL,
    total_tokens  integer        NOT NULL,
    cost          numeric(20,10) NOT NULL,
    latency_ms    integer,
    status        varchar(50) COLLATE "C" NOT NULL,
    error_message text,
    request_id    varchar(100),
    cached_input_tokens integer,
    reasoning_tokens    integer,
    ingested_at   timestamptz    NOT NULL DEFAULT now(),
    CONSTRAINT usage_events_time_finite CHECK (isfinite(time)),
    CONSTRAINT usage_events_model_name_not_empty CHECK (model_name <> ''),
    CONSTRAINT usage_events_input_tokens_not_negative CHECK (input_tokens >= 0),
    CONSTRAINT usage_events_output_tokens_not_negative CHECK (output_tokens >= 0),
    CONSTRAINT usage_events_total_is_sum CHECK (total_tokens = input_tokens + output_tokens),
    CONSTRAINT usage_events_cached_is_part CHECK (cached_input_tokens BETWEEN 0 AND input_tokens),
    CONSTRAINT usage_events_reasoning_is_part CHECK (reasoning_tokens BETWEEN 0 AND output_tokens),
    -- NaN is greater than every number, so the upper bound refuses it too.
    CONSTRAINT usage_events_cost_in_range CHECK (cost >= 0 AND cost <= 1000000),
    CONSTRAINT usage_events_latency_not_negative CHECK (latency_ms >= 0),
    CONSTRAINT usage_events_status_not_empty CHECK (status <> '')
);

-- What makes an event the same event. The organization first: one organization's raw events are read by it.
CREATE UNIQUE INDEX usage_events_key ON usage_events (org_id, time, event_id);
-- Rows arrive nearly in order of time, so a few bytes a block range find a span of it.
CREATE INDEX usage_events_time ON usage_events USING brin (time);

COMMENT ON TABLE usage_events IS 'One row per request to a model, as the gateway published it. Kept 90 days. Written by COPY through this table only, never changed: the rollups are added up from what is inserted here';
COMMENT ON COLUMN usage_events.time IS 'When the request ended, by the producer''s clock, cut to microseconds';
COMMENT ON COLUMN usage_events.event_id IS 'Made once per request by the producer; with org_id and time it identifies the event';
COMMENT ON COLUMN usage_events.org_id IS 'Organization that pays';
COMMENT ON COLUMN usage_events.user_id IS 'User who asked';
COMMENT ON COLUMN usage_events.api_key_id IS 'API key that was used';
COMMENT ON COLUMN usage_events.model_name IS 'Model that answered';
COMMENT ON COLUMN usage_events.input_tokens IS 'Tokens of the prompt';
COMMENT ON COLUMN usage_events.output_tokens IS 'Tokens of the answer';
COMMENT ON COLUMN usage_events.total_tokens IS 'Input and output tokens together';
COMMENT ON COLUMN usage_events.cached_input_tokens IS 'Input tokens that were read from a cache; null where the producer does not say';
COMMENT ON COLUMN usage_events.reasoning_tokens IS 'Output tokens that were spent on reasoning; null where the producer does not say';
COMMENT ON COLUMN usage_events.cost IS 'US dollars, exact to ten decimals';
COMMENT ON COLUMN usage_events.latency_ms IS 'Milliseconds to the first token; null where none came';
COMMENT ON COLUMN usage_events.status IS 'success, error, timeout, throttled, budget_exceeded or a later word; all but success count as errors';
COMMENT ON COLUMN usage_events.error_message IS 'What went wrong, as the producer said it';
COMMENT ON COLUMN usage_events.request_id IS 'The gateway''s id of the request';
COMMENT ON COLUMN usage_events.ingested_at IS 'When the batch with this event began its transaction';

CREATE TABLE dead_letters (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now(),
    queue       text        NOT NULL,
    body        bytea       NOT NULL,
    body_sha256 bytea       NOT NULL GENERATED ALWAYS AS (sha256(body)) STORED,
    headers     jsonb       NOT NULL,
    reason      text        NOT NULL,
    field       text,
    detail      text        NOT NULL
);

-- The same body is the same message: redelivered after a commit whose acknowledgement was lost, it must
-- not stand here twice.
CREATE UNIQUE INDEX dead_letters_body ON dead_letters (body_sha256);
CREATE INDEX dead_letters_received_at ON dead_letters (received_at);

COMMENT ON TABLE dead_letters IS 'Messages that could not become events, each once, committed together with the batch they arrived in';
COMMENT ON COLUMN dead_letters.id IS 'Order of arrival, with gaps';
COMMENT ON COLUMN dead_letters.received_at IS 'When the batch with this message began its transaction';
COMMENT ON COLUMN dead_letters.queue IS 'Queue it came from';
COMMENT ON COLUMN dead_letters.body IS 'The message, byte for byte';
COMMENT ON COLUMN dead_letters.body_sha256 IS 'Its digest: what makes it the same message';
COMMENT ON COLUMN dead_letters.headers IS 'Its AMQP properties and headers';
COMMENT ON COLUMN dead_letters.reason IS 'Why it is no event, as a code';
COMMENT ON COLUMN dead_letters.field IS 'Which field, where it is one field';
COMMENT ON COLUMN dead_letters.detail IS 'The same for a person';

CREATE TABLE ingest_workers (
    worker_id         text        PRIMARY KEY,
    queue             text        NOT NULL,
    started_at        timestamptz NOT NULL,
    beat_at           timestamptz NOT NULL,
    queue_empty_at    timestamptz,
    oldest_unacked_at timestamptz,
    stopped           boolean     NOT NULL DEFAULT false,
    lacks_partition_at timestamptz
) WITH (fillfactor = 50);

COMMENT ON TABLE ingest_workers IS 'What each ingest-worker knows of the queue, rewritten once a second; freshness is measured from it. All times by the database''s clock';
COMMENT ON COLUMN ingest_workers.worker_id IS 'One per process: host, process id and a random part';
COMMENT ON COLUMN ingest_workers.queue IS 'Queue it consumes';
COMMENT ON COLUMN ingest_workers.started_at IS 'When the process started to consume';
COMMENT ON COLUMN ingest_workers.beat_at IS 'When the rest of this row was true';
COMMENT ON COLUMN ingest_workers.queue_empty_at IS 'When the queue was last without a ready message and everything that this worker had received by then has been counted since; a new worker begins with what all others say';
COMMENT ON COLUMN ingest_workers.oldest_unacked_at IS 'When the oldest delivery arrived that it has not yet acknowledged; null if it holds none';
COMMENT ON COLUMN ingest_workers.lacks_partition_at IS 'When a row of this worker last found no partition: a request to whoever maintains';
COMMENT ON COLUMN ingest_workers.stopped IS 'Whether it ended in order, holding nothing';

-- Everything published before the moment that a worker reports was delivered by then, to some worker; and each
-- worker has counted what it had received by its own moment. So all is counted through the earliest one. A
-- worker that fell silent keeps its word for a minute after the latest beat of any: by then the broker has
-- noticed, and what it held has come to others. Only workers that ended in order no longer count.
CREATE VIEW counted_through AS
WITH recent AS (
    SELECT * FROM ingest_workers
    WHERE beat_at > (SELECT max(beat_at) FROM ingest_workers) - interval '60 seconds'
)
SELECT CASE
    WHEN count(*) FILTER (WHERE NOT stopped) = 0 THEN max(queue_empty_at)
    WHEN bool_or(queue_empty_at IS NULL) FILTER (WHERE NOT stopped) THEN NULL
    ELSE min(queue_empty_at) FILTER (WHERE NOT stopped)
END AS counted_through
FROM recent;
COMMENT ON VIEW counted_through IS 'One row: the moment through which everything published is counted; null if none is known';
COMMENT ON COLUMN counted_through.counted_through IS 'Everything published before this is committed, and so in usage_events and in every rollup';

CREATE TABLE ingest_window (
    floor         timestamptz NOT NULL,
    rollups_since timestamptz NOT NULL,
    one_row       boolean     PRIMARY KEY DEFAULT true CHECK (one_row)
);
INSERT INTO ingest_window (floor, rollups_since)
VALUES (now() - interval '89 days', now() - interval '13 months');

COMMENT ON TABLE ingest_window IS 'One row: which events are too old to be accepted, and how far back answers go';
COMMENT ON COLUMN ingest_window.floor IS 'Events before this are refused. It only moves ahead, and before raw events older than it are dropped: a redelivery after the drop would count again';
COMMENT ON COLUMN ingest_window.rollups_since IS 'Rollups are whole from here on. It only moves ahead, and before anything older is dropped: an answer never counts what is left of a month';
COMMENT ON COLUMN ingest_window.one_row IS 'Keeps the table to one row';
