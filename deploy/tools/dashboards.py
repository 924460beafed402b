"""Generates deploy/grafana/*.json, by Grafana's own SDK. `make dashboards` writes them; the tests hold them current."""

import json
import pathlib

from grafana_foundation_sdk.builders import dashboard, prometheus, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

FOLDER = pathlib.Path(__file__).parents[1] / "grafana"
METRICS = DataSourceRef(type_val="prometheus", uid="${metrics}")
DATABASE = DataSourceRef(type_val="grafana-postgresql-datasource", uid="${database}")


class Sql(Dataquery, Builder):
    """A statement for the PostgreSQL data source, of which the SDK has no builder."""

    def __init__(self, sql: str, format_as: str):
        self.sql, self.format_as = sql, format_as

    def build(self):
        return self

    def to_json(self):
        return {
            "refId": "A",
            "datasource": DATABASE,
            "editorMode": "code",
            "format": self.format_as,
            "rawQuery": True,
            "rawSql": self.sql,
        }


def over_time(title: str, unit: str, help_text: str, *queries: tuple[str, str]):
    """A chart of PromQL expressions, each with its legend."""
    panel = timeseries.Panel().title(title).description(help_text).unit(unit).min(0).span(8).height(8).datasource(METRICS)
    for letter, (expression, legend) in zip("ABCDEF", queries):
        panel.with_target(prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(legend))
    return panel


def percentile(metric: str, quantile: float, by: str = "") -> str:
    labels = ", ".join(filter(None, ["le", by]))
    return f"histogram_quantile({quantile}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))"


def rate(metric: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[$__rate_interval]))"


def board(uid: str, title: str, since: str):
    return dashboard.Dashboard(title).uid(uid).tags(["usage-analytics"]).time(since, "now").refresh("30s").readonly()


def metrics_board(uid: str, title: str):
    source = dashboard.DatasourceVariable("metrics").label("Prometheus").type("prometheus")
    return board(uid, title, "now-3h").with_variable(source)


def pipeline():
    ingest, maintenance = "usage_ingest", "usage_maintenance"
    rows = {
        "Flow": [
            over_time("Events", "eps", "What was committed, and what was there already.",
                      (rate(f"{ingest}_events_stored_total"), "stored"),
                      (rate(f"{ingest}_events_duplicate_total"), "duplicates"),
                      (rate(f"{ingest}_deliveries_redelivered_total"), "redelivered")),
            over_time("Backlog", "short", "Messages that wait in the queue, and those that workers hold.",
                      (f"max({ingest}_queue_ready_messages)", "ready"),
                      (f"sum({ingest}_unacked_deliveries)", "unacknowledged"),
                      (f"sum({ingest}_window_deliveries)", "may be held")),
            over_time("Held", "bytes", "Bodies and headers that workers hold, against MEMORY_BUDGET_MIB.",
                      (f"max({ingest}_held_bytes)", "one worker, at most")),
            over_time("Lag", "s", "How old the newest stored event is, and how long a message has been held.",
                      (f"max({ingest}_event_lag_seconds)", "event lag"),
                      (f"max({ingest}_oldest_unacked_seconds)", "oldest held"),
                      (f"max({ingest}_counted_through_age_seconds)", "counted through")),
        ],
        "Batches": [
            over_time("Rows in a batch", "short", "Full batches cost the database least.",
                      (percentile(f"{ingest}_batch_rows", 0.5), "p50"), (percentile(f"{ingest}_batch_rows", 0.99), "p99")),
            over_time("Where the time goes, p99", "s", "COPY has the rollups' triggers in it.",
                      (percentile(f"{ingest}_copy_seconds", 0.99), "COPY"),
                      (percentile(f"{ingest}_commit_seconds", 0.99), "COMMIT"),
                      (percentile(f"{ingest}_write_seconds", 0.99), "transaction")),
            over_time("From delivery to commit", "s", "Of a batch's oldest delivery.",
                      (percentile(f"{ingest}_delivery_to_commit_seconds", 0.5), "p50"),
                      (percentile(f"{ingest}_delivery_to_commit_seconds", 0.99), "p99")),
        ],
        "What goes wrong": [
            over_time("Dead letters by reason", "eps", "Messages that are no events.",
                      (rate(f"{ingest}_dead_letters_total", "reason") + " > 0", "{{reason}}"),
                      (rate(f"{ingest}_deliveries_read_total"), "all that was read")),
            over_time("Texts mended", "eps", "By field: what could not be stored as it was.",
                      (rate(f"{ingest}_texts_mended_total", "field") + " > 0", "{{field}}")),
            over_time("Retries and reconnections", "ops", "Batches tried again, connections made, sessions given up.",
                      (rate(f"{ingest}_batches_retried_total"), "batches retried"),
                      (rate(f"{ingest}_broker_connections_total"), "broker connections"),
                      (rate(f"{ingest}_broker_sessions_lost_total"), "broker sessions lost"),
                      (rate(f"{ingest}_sessions_given_up_total", "kind"), "given up: {{kind}}")),
            over_time("Connected", "short", "How many workers reach what they need, and how many are braked.",
                      (f"sum({ingest}_database_up)", "database"), (f"sum({ingest}_broker_up)", "broker"),
                      (f"sum({ingest}_brake_pulled)", "braked")),
        ],
        "Maintenance": [
            over_time("Age of the last success", "s", "By step.",
                      (f"time() - max by (step) ({maintenance}_last_success_timestamp_seconds)", "{{step}}")),
            over_time("Duration, p99", "s", "By step.",
                      (percentile(f"{maintenance}_step_seconds", 0.99, "step"), "{{step}}")),
            over_time("Differences", "short", "All of these should be 0, but for the maintainer: 1.",
                      (f"max by (relation) ({maintenance}_audit_differences)", "audit: {{relation}}"),
                      (f"max({maintenance}_repeated_event_ids)", "repeated event ids"),
                      (rate(f"{maintenance}_failures_total", "step"), "failures: {{step}}"),
                      (f"sum({maintenance}_active)", "maintainers")),
        ],
    }
    return filled(metrics_board("usage-pipeline", "Usage analytics: pipeline"), rows)


def api():
    prefix = "usage_analytics_api"
    requests = f"{prefix}_http_request_duration_seconds"
    rows = {
        "Requests": [
            over_time("Rate by route", "reqps", "All answers.", (rate(f"{requests}_count", "route"), "{{route}}")),
            over_time("Errors by route", "reqps", "5xx.",
                      (rate(f'{requests}_count{{status=~"5.."}}', "route") + " > 0", "{{route}}")),
            over_time("Duration by route, p99", "s", "From a request to its answer.",
                      (percentile(requests, 0.99, "route"), "{{route}}")),
        ],
        "Database": [
            over_time("Question time, p99", "s", "By statement.",
                      (percentile(f"{prefix}_database_query_duration_seconds", 0.99, "query"), "{{query}}")),
            over_time("Wait for a session", "s", "Above 0.1 s the pool is too small, or the database too slow.",
                      (percentile(f"{prefix}_database_pool_wait_seconds", 0.5), "p50"),
                      (percentile(f"{prefix}_database_pool_wait_seconds", 0.99), "p99")),
            over_time("Sessions", "short", "Of the pool; and those that were ended, a second.",
                      (f"sum by (state) ({prefix}_database_pool_connections)", "{{state}}"),
                      (rate(f"{prefix}_database_sessions_ended_total", "outcome"), "ended: {{outcome}}")),
        ],
        "Admission": [
            over_time("In flight", "short", "Questions that are being answered.",
                      (f"sum({prefix}_questions_in_flight)", "questions")),
            over_time("Refused", "reqps", "Too many of one caller (429), too many at once (503), tokens that prove nothing (401).",
                      (rate(f"{prefix}_questions_refused_total", "reason"), "{{reason}}"),
                      (rate(f"{prefix}_tokens_refused_total", "reason"), "token: {{reason}}")),
            over_time("Signing keys", "ops", "Attempts to read them from the identity provider.",
                      (rate(f"{prefix}_jwks_fetches_total", "outcome"), "{{outcome}}")),
        ],
    }
    return filled(metrics_board("usage-api", "Usage analytics: API"), rows)


def filled(target, rows):
    for title, panels in rows.items():
        target.with_row(dashboard.Row(title))
        for panel in panels:
            target.with_panel(panel)
    return target


SELECTED = """FROM usage_daily
WHERE day >= $__timeFrom() AND day < $__timeTo()
    AND org_id::text IN (${organization:sqlstring}) AND model_name IN (${model:sqlstring})"""
COST = "sum(total_cost_e10) / 10000000000"


def sql_panel(title: str, unit: str, sql: str, format_as: str):
    kind = timeseries.Panel() if format_as == "time_series" else table.Panel()
    return kind.title(title).unit(unit).span(12).height(9).datasource(DATABASE).with_target(Sql(sql, format_as))


def usage():
    def choice(name: str, label: str, sql: str):
        return (dashboard.QueryVariable(name).label(label).datasource(DATABASE).query(sql).multi(True)
                .include_all(True).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED))

    source = dashboard.DatasourceVariable("database").label("Database").type("grafana-postgresql-datasource")
    between = "FROM usage_daily WHERE day >= $__timeFrom() AND day < $__timeTo() ORDER BY 1"
    target = (
        board("usage-database", "Usage analytics: tokens and cost", "now-30d")
        .refresh("5m")
        .with_variable(source)
        .with_variable(choice("organization", "Organization", f"SELECT DISTINCT org_id::text {between}"))
        .with_variable(choice("model", "Model", f"SELECT DISTINCT model_name {between}"))
    )
    by_day = "SELECT day AS time, {label} AS metric, {measure} AS value\n{selected}\nGROUP BY 1, 2 ORDER BY 1"
    listed = (
        "SELECT {label}, sum(request_count) AS requests, sum(total_input_tokens) AS input_tokens,\n"
        "    sum(total_output_tokens) AS output_tokens, {cost} AS cost\n{selected}\nGROUP BY 1 ORDER BY cost DESC LIMIT 100"
    )
    tokens = "sum(total_input_tokens + total_output_tokens)"
    rows = {
        "By day": [
            sql_panel("Tokens by model", "short", by_day.format(label="model_name", measure=tokens, selected=SELECTED), "time_series"),
            sql_panel("Cost by model", "currencyUSD", by_day.format(label="model_name", measure=COST, selected=SELECTED), "time_series"),
            sql_panel("Tokens by organization", "short", by_day.format(label="org_id::text", measure=tokens, selected=SELECTED), "time_series"),
            sql_panel("Cost by organization", "currencyUSD", by_day.format(label="org_id::text", measure=COST, selected=SELECTED), "time_series"),
        ],
        "Most costly": [
            sql_panel("Organizations", "short", listed.format(label="org_id::text AS organization", cost=COST, selected=SELECTED), "table"),
            sql_panel("Models", "short", listed.format(label="model_name AS model", cost=COST, selected=SELECTED), "table"),
        ],
    }
    return filled(target, rows)


def generated() -> dict[str, str]:
    """Each file's name and text."""
    boards = {"pipeline.json": pipeline(), "api.json": api(), "usage.json": usage()}
    return {
        name: json.dumps(each.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n" for name, each in boards.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, text in generated().items():
        (FOLDER / file_name).write_text(text)
