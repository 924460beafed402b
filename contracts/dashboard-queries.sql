-- The dashboard's questions in SQL, for psql, notebooks and BI tools; the same on either flavor.
--
--   psql "$DATABASE_URL" -v org_id=... -v start_time=2026-11-01 -v end_time=2026-12-01 -f dashboard-queries.sql
--
-- start_time belongs to the range, end_time does not; both at midnight UTC here, as the rollups that are
-- read are by the UTC day (the API answers any range, by adding finer rollups at its edges). Everything
-- but "success" is an error. Cost is exact, in US dollars. Each relation is complete through the last commit.

-- name: tokens_by_day
-- The first key query of the specification, on raw events: what the rollups below must equal.
SELECT date_bin('1 day', time, timestamptz '2000-01-01 00:00Z') AS day,
    count(*) AS requests, count(*) FILTER (WHERE status <> 'success') AS errors,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
    sum(total_tokens) AS total_tokens, sum(cost) AS cost
FROM usage_events
WHERE org_id = :'org_id' AND time >= :'start_time' AND time < :'end_time'
GROUP BY 1 ORDER BY 1 DESC;

-- name: tokens_by_user
-- The second key query of the specification, on raw events.
SELECT user_id, count(*) AS requests, count(*) FILTER (WHERE status <> 'success') AS errors,
    sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
    sum(total_tokens) AS total_tokens, sum(cost) AS cost
FROM usage_events
WHERE org_id = :'org_id' AND time >= :'start_time' AND time < :'end_time'
GROUP BY 1 ORDER BY total_tokens DESC, user_id;

-- name: org_usage
-- An organization by day: the token chart, and summed up, its totals of the month.
SELECT day, sum(request_count) AS requests,
    sum(error_count) AS errors,
    sum(total_input_tokens) AS input_tokens, sum(total_output_tokens) AS output_tokens,
    sum(total_input_tokens + total_output_tokens) AS total_tokens,
    sum(total_cost) AS cost
FROM usage_daily
WHERE org_id = :'org_id' AND day >= :'start_time' AND day < :'end_time'
GROUP BY 1 ORDER BY 1;

-- name: org_users
-- An organization's users, most tokens first.
SELECT user_id, sum(request_count) AS requests,
    sum(error_count) AS errors,
    sum(total_input_tokens) AS input_tokens, sum(total_output_tokens) AS output_tokens,
    sum(total_input_tokens + total_output_tokens) AS total_tokens,
    sum(total_cost) AS cost
FROM usage_daily_by_user
WHERE org_id = :'org_id' AND day >= :'start_time' AND day < :'end_time'
GROUP BY 1 ORDER BY total_tokens DESC, user_id;

-- name: org_models
-- An organization's models, most tokens first.
SELECT model_name AS model, sum(request_count) AS requests,
    sum(error_count) AS errors,
    sum(total_input_tokens) AS input_tokens, sum(total_output_tokens) AS output_tokens,
    sum(total_input_tokens + total_output_tokens) AS total_tokens,
    sum(total_cost) AS cost
FROM usage_daily
WHERE org_id = :'org_id' AND day >= :'start_time' AND day < :'end_time'
GROUP BY 1 ORDER BY total_tokens DESC, model;

-- name: system_usage
-- The whole system by day.
SELECT day, sum(request_count) AS requests,
    sum(error_count) AS errors,
    sum(total_input_tokens) AS input_tokens, sum(total_output_tokens) AS output_tokens,
    sum(total_input_tokens + total_output_tokens) AS total_tokens,
    sum(total_cost) AS cost
FROM usage_system_daily
WHERE day >= :'start_time' AND day < :'end_time'
GROUP BY 1 ORDER BY 1;

-- name: system_orgs
-- The top organizations.
SELECT org_id, sum(request_count) AS requests,
    sum(error_count) AS errors,
    sum(total_input_tokens) AS input_tokens, sum(total_output_tokens) AS output_tokens,
    sum(total_input_tokens + total_output_tokens) AS total_tokens,
    sum(total_cost) AS cost
FROM usage_daily_by_org
WHERE day >= :'start_time' AND day < :'end_time'
GROUP BY 1 ORDER BY total_tokens DESC, org_id LIMIT 100;

-- name: system_models
-- The models of the whole system.
SELECT model_name AS model, sum(request_count) AS requests,
    sum(error_count) AS errors,
    sum(total_input_tokens) AS input_tokens, sum(total_output_tokens) AS output_tokens,
    sum(total_input_tokens + total_output_tokens) AS total_tokens,
    sum(total_cost) AS cost
FROM usage_system_daily
WHERE day >= :'start_time' AND day < :'end_time'
GROUP BY 1 ORDER BY total_tokens DESC, model;

-- name: freshness
-- Through when everything published is counted.
SELECT counted_through, now() - counted_through AS age FROM counted_through;
