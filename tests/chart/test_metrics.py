"""Rules and dashboard ask for nothing that nobody exports, by no label that is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric
from tests.chart.chart import CHART, Chart, named
from tests.chart.promtool import needs_promtool, tool

from coalmine_operator.web.metrics import Metrics
from coalmine_sidecar.contract import Resources
from coalmine_sidecar.telemetry import Telemetry
from coalmine_sidecar.telemetry.render import TelemetryCollector

DASHBOARD: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
_NAME = re.compile(r"\bcoalmine[a-z_:]*(?:\b|(?=\{))")


def exported() -> set[str]:
    telemetry = Telemetry(pod="pod", revision="r")
    telemetry.resources = Resources(memory_bytes=1, memory_limit_bytes=2, cpu_seconds=1.0, cpu_limit_cores=1.0)
    families: list[Metric] = [*TelemetryCollector(telemetry).collect(), *Metrics().registry.collect()]
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
    return {family.name + suffix for family in families for suffix in suffixes[family.type]}


@pytest.fixture
def records(chart: Chart) -> list[dict[str, Any]]:
    custom = named(chart.render({"prometheusRule": {"enabled": True}}), "PrometheusRule", "coalmine")
    return [rule for group in custom["spec"]["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable.get("definition", "")


def test_everything_asked_for_is_there(records: list[dict[str, Any]]) -> None:
    known = exported() | {rule["record"] for rule in records if "record" in rule}
    asked = {name for text in (*expressions(), *(rule["expr"] for rule in records)) for name in _NAME.findall(text)}
    assert len(asked) > 25
    assert asked - known == set()


def test_every_record_is_used(records: list[dict[str, Any]]) -> None:
    alerts = [rule["expr"] for rule in records]
    used = {name for text in (*expressions(), *alerts) for name in _NAME.findall(text)}
    assert {rule["record"] for rule in records if "record" in rule} - used == set()


@needs_promtool
def test_prometheus_reads_every_query(tmp_path: Path) -> None:
    """As Grafana sends it, with its variables filled in."""
    queries = [text for text in expressions() if text and not text.startswith("label_values")]
    filled = [re.sub(r"\$__\w+", "5m", re.sub(r"\$(namespace|modeldeployment)", ".*", text)) for text in queries]
    assert not [text for text in filled if "$" in text]
    rules = [{"record": f"query:n{number}", "expr": text} for number, text in enumerate(filled)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert tool(tmp_path, "check", "rules", "rules.yaml") == ""


def test_panels_have_places_and_names_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    for key in ("id", "title"):
        values = [panel[key] for panel in DASHBOARD["panels"]]
        assert len(values) == len(set(values))


def test_the_dashboard_arrives_as_it_is(chart: Chart) -> None:
    values = {"enabled": True, "labels": {"grafana": "yes"}, "annotations": {"grafana_folder": "Models"}}
    config = named(chart.render({"dashboard": values}), "ConfigMap", "coalmine-dashboard")
    assert json.loads(config["data"]["coalmine.json"]) == DASHBOARD
    assert config["metadata"]["labels"]["grafana"] == "yes"
    assert config["metadata"]["annotations"] == {"grafana_folder": "Models"}
