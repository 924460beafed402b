//! The SQL over `dead_letters` by which an operator works off what could not become an event.

/// Which letters: all conditions hold that are given. `$1`: reasons; `$2`, `$3`: received from then on,
/// until before then; `$4`: ids.
macro_rules! selected {
    () => {
        "($1::text[] IS NULL OR reason = ANY ($1)) \
         AND ($2::timestamptz IS NULL OR received_at >= $2) \
         AND ($3::timestamptz IS NULL OR received_at < $3) \
         AND ($4::bigint[] IS NULL OR id = ANY ($4))"
    };
}

/// How many letters are selected, how large their bodies are together, and the last of them: what arrives
/// later does not belong to a run that has begun.
pub const COUNT: &str = concat!(
    "-- count_dead_letters\nSELECT count(*), coalesce(sum(length(body)), 0)::bigint, coalesce(max(id), 0) \
     FROM dead_letters WHERE ",
    selected!()
);

/// The newest `$5` of the selected letters, without their bodies.
pub const LIST: &str = concat!(
    "-- list_dead_letters\nSELECT id, received_at, queue, reason, field, detail, length(body) AS bytes \
     FROM dead_letters WHERE ",
    selected!(),
    " ORDER BY id DESC LIMIT $5"
);

/// The selected letters by reason and field, the most frequent first.
pub const COUNT_BY_REASON: &str = concat!(
    "-- count_dead_letters_by_reason\nSELECT reason, field, count(*), min(received_at), max(received_at) \
     FROM dead_letters WHERE ",
    selected!(),
    " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
);

/// The next selected letters after `$5` and up to `$6`, whole: `$7` at most, and not many more bytes than
/// `$8`.
pub const PAGE: &str = concat!(
    "-- page_of_dead_letters\nSELECT id, received_at, queue, reason, field, detail, headers, body FROM (\n\
     SELECT *, sum(length(body)) OVER (ORDER BY id) - length(body) AS before FROM (\n\
     SELECT * FROM dead_letters WHERE ",
    selected!(),
    " AND id > $5 AND id <= $6 ORDER BY id LIMIT $7) page) sized\n\
     WHERE before <= $8::bigint ORDER BY id"
);

/// Forgets letters whose events are stored. One that another replay has forgotten before is no error.
pub const DELETE: &str = "-- delete_dead_letters\nDELETE FROM dead_letters WHERE id = ANY ($1)";

/// Says why letters are still no events; only where that is news. `$1`: ids; `$2` to `$4`: the new words.
pub const UPDATE_REASONS: &str = "-- update_dead_letter_reasons
UPDATE dead_letters AS l SET reason = new.reason, field = new.field, detail = new.detail
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) AS new (id, reason, field, detail)
WHERE l.id = new.id AND (l.reason, l.field, l.detail) IS DISTINCT FROM (new.reason, new.field, new.detail)";

/// Which of these keys are stored. `$1` to `$3`: organizations, times and event ids, side by side.
pub const STORED_KEYS: &str = "-- stored_keys
SELECT org_id, time, event_id FROM usage_events
JOIN unnest($1::uuid[], $2::timestamptz[], $3::uuid[]) AS key (org_id, time, event_id)
    USING (org_id, time, event_id)";

/// Forgets letters that were received more than `$1` days ago, `$2` at a time: a round that is cut short
/// has done what it has done.
pub const EXPIRE: &str = "-- expire_dead_letters
DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM dead_letters WHERE received_at < now() - make_interval(days => $1)
    ORDER BY received_at LIMIT $2)";
