"""Fails unless every operation of the contract has been answered with a 200, as the API's metrics tell."""

import re
import sys
import urllib.request

import yaml

contract, address = sys.argv[1:]
with open(contract, encoding="utf-8") as file:
    paths = yaml.safe_load(file)["paths"]
with urllib.request.urlopen(f"{address}/metrics") as response:
    metrics = response.read().decode()

series = re.compile(
    r"^usage_analytics_api_http_request_duration_seconds_count"
    r'\{method="GET",route="([^"]*)",status="(\d+)"\} (\d+)$',
    re.MULTILINE,
)
counts = {}
for route, status, count in series.findall(metrics):
    counts.setdefault(route, {})[status] = int(count)
for path in paths:
    print(f"   {path}: {counts.get(path, {})}")
without = [path for path in paths if not counts.get(path, {}).get("200")]
if without:
    sys.exit(f"never answered: {without}")
