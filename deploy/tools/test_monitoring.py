"""Alert rules, dashboards and the metrics of the services: what one names, the other has."""

import json
import re
import subprocess

import pytest
import yaml

import dashboards
from rendering import ROOT, objects, of_kind

PROMETHEUS = ROOT / "deploy" / "prometheus"
MANUAL = (ROOT / "docs" / "operations.md").read_text()
RULES = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
# RabbitMQ's own, at /metrics/detailed?family=queue_coarse_metrics of its Prometheus plugin.
OF_OTHERS = {"rabbitmq_detailed_queue_messages"}


def emitted() -> set[str]:
    """The metrics that a macro of the services' code records, by their names."""
    found = set()
    for crate in ("ingest-worker", "analytics-api"):
        source = ROOT / "crates" / crate / "src"
        names = dict(re.findall(r'const ([A-Z_]+): &str = "(usage_[a-z_]+)"', (source / "metrics.rs").read_text()))
        code = "\n".join(path.read_text() for path in source.rglob("*.rs"))
        recorded = re.findall(r"(?<!describe_)\b(?:counter|gauge|histogram)!\(\s*(?:metrics::)?([A-Z_]+)\b", code)
        # A constant that no macro records would be a metric that is described and never there.
        assert names.keys() == names.keys() & set(recorded), names.keys() - set(recorded)
        found |= set(names.values())
    return found


def named(expression: str) -> set[str]:
    """The metrics of an expression, histograms without the endings of their series."""
    found = re.findall(r"\b(?:usage|rabbitmq)_[a-z_]+", re.sub(r'"[^"]*"', "", expression))
    return {re.sub(r"_(bucket|count|sum)$", "", name) if "_seconds_" in name or "_rows_" in name else name for name in found}


def panels():
    for name, text in dashboards.generated().items():
        for panel in json.loads(text)["panels"]:
            for target in panel.get("targets", []):
                yield name, panel, target


def promql() -> list[str]:
    replaced = lambda text: text.replace("$__rate_interval", "5m")
    return [replaced(target["expr"]) for _, _, target in panels() if "expr" in target]


def test_what_rules_and_dashboards_name_is_emitted():
    known = emitted() | OF_OTHERS
    for expression in [rule["expr"] for group in RULES["groups"] for rule in group["rules"]] + promql():
        assert named(expression) <= known, expression
        for name in re.findall(r"\busage:[a-z0-9_:]+", expression):
            assert name in RECORDED, expression


def test_what_is_emitted_is_documented_and_shown():
    shown = set().union(*(named(expression) for expression in promql()))
    for name in emitted():
        assert f"`{name}" in MANUAL, f"{name} is not in docs/operations.md"
        assert name in shown, f"{name} is on no dashboard"


def test_what_is_documented_is_emitted():
    documented = set(re.findall(r"`(usage_(?:ingest|maintenance|analytics_api)_[a-z_]+)", MANUAL))
    assert documented <= emitted(), documented - emitted()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_leads_to_its_section(alert):
    name = alert["alert"]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
    section = MANUAL.partition(f"\n### {name}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    assert len(section.strip()) > 80, f"docs/operations.md has no section {name}"


def test_every_alert_is_seen_to_fire_and_to_stay_silent():
    fires, silent = set(), set()
    for file in ("rules_test.yaml", "rules_long_test.yaml"):
        for case in yaml.safe_load((PROMETHEUS / file).read_text())["tests"]:
            for expected in case["promql_expr_test"]:
                name = re.search(r'alertname="(\w+)",alertstate="firing"', expected["expr"])[1]
                (fires if expected["exp_samples"] else silent).add(name)
    names = {alert["alert"] for alert in ALERTS}
    assert fires == names and silent == names


def promtool(*arguments):
    said = subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=PROMETHEUS, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("file", ["rules_test.yaml", "rules_long_test.yaml"])
def test_rules_do_what_they_say(file):
    promtool("test", "rules", file)


def test_expressions_are_promql(tmp_path):
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(promql())]
    assert len(rules) > 30
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(path))
    promtool("check", "rules", "rules.yaml")


def test_dashboards_are_current():
    committed = {path.name: path.read_text() for path in dashboards.FOLDER.glob("*.json")}
    assert committed == dashboards.generated(), "run `make dashboards`"


def test_panels_are_whole():
    titles = [(name, panel["title"]) for name, panel, target in panels() if target["refId"] == "A"]
    assert len(titles) == len(set(titles)) == 29
    for name, panel, _ in panels():
        assert panel["datasource"]["uid"] in ("${metrics}", "${database}"), (name, panel["title"])


def test_the_chart_brings_all_rules_and_dashboards():
    rule = of_kind(objects("production"), "PrometheusRule")[0]
    assert rule["spec"] == RULES
    # Without a worker that maintains there are no metrics of maintenance.
    without = of_kind(objects("postgres", "monitoring.rules.enabled=true"), "PrometheusRule")[0]["spec"]["groups"]
    assert [group["name"] for group in RULES["groups"] if group not in without] == ["usage-maintenance"]
    brought = {}
    for each in of_kind(objects("production"), "ConfigMap"):
        brought |= each["data"]
    assert brought == dashboards.generated()
