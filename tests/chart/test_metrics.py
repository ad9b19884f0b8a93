"""Rules and dashboard ask for nothing that nobody exports, by no label that is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from msgspec.structs import replace
from tests.chart.chart import Chart, named
from tests.chart.promtool import needs_promtool, tool
from tests.exported import exported
from tests.queries import DASHBOARDS, queries, targets
from tests.unit.rulebook import EVERYTHING

from coalmine_operator.render.rules import groups
from coalmine_sidecar.monitoring import Task

_NAME = re.compile(r"\bcoalmine[a-z0-9_:]*(?:\b|(?=\{))")
_EACH = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())


@pytest.fixture
def records(chart: Chart) -> list[dict[str, Any]]:
    custom = named(chart.render({"prometheusRule": {"enabled": True}}), "PrometheusRule", "coalmine")
    return [rule for group in custom["spec"]["groups"] for rule in group["rules"]]


def rendered() -> set[str]:
    """What rules of a model deployment record, whatever its task."""
    found = (group for task in get_args(Task) for group in groups(replace(EVERYTHING, task=task)))
    return {rule["record"] for group in found for rule in group["rules"] if "record" in rule}


def expressions() -> Iterator[str]:
    for dashboard in DASHBOARDS.values():
        yield from (expr for _, expr in targets(dashboard))
        for variable in dashboard["templating"]["list"]:
            yield variable.get("definition", "")


def test_everything_asked_for_is_there(records: list[dict[str, Any]]) -> None:
    known = exported().keys() | {rule["record"] for rule in records if "record" in rule} | rendered()
    asked = {name for text in (*expressions(), *(rule["expr"] for rule in records)) for name in _NAME.findall(text)}
    assert len(asked) > 90
    assert asked - known == set()


def test_every_record_is_used(records: list[dict[str, Any]]) -> None:
    alerts = [rule["expr"] for rule in records]
    used = {name for text in (*expressions(), *alerts) for name in _NAME.findall(text)}
    assert {rule["record"] for rule in records if "record" in rule} - used == set()


@needs_promtool
def test_prometheus_reads_every_query(tmp_path: Path) -> None:
    """As Grafana sends it, with its variables filled in."""
    found = queries()
    assert not [query for query in found if "$" in query.expr]
    rules = [{"record": f"query:n{number}", "expr": query.expr} for number, query in enumerate(found)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert tool(tmp_path, "check", "rules", "rules.yaml") == ""


@_EACH
def test_panels_have_places_and_names_of_their_own(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
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
        values = [panel[key] for panel in dashboard["panels"]]
        assert len(values) == len(set(values))


@_EACH
def test_panels_ask_the_chosen_data_source(dashboard: dict[str, Any]) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = dashboard["templating"]["list"]
    assert [one["type"] for one in variables] == ["datasource", *["query"] * (len(variables) - 1)]
    assert all(one["datasource"] == source for one in variables[1:])
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == source
        assert panel["targets"], panel["title"]
        ids = [target["refId"] for target in panel["targets"]]
        assert len(ids) == len(set(ids))
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert target["expr"].strip()


@_EACH
def test_variables_are_used_and_known(dashboard: dict[str, Any]) -> None:
    known = {one["name"] for one in dashboard["templating"]["list"]} - {"datasource"}
    asked = {name for _, expr in targets(dashboard) for name in re.findall(r"\$([a-z]+)\b", expr)}
    assert asked == known


@_EACH
def test_overrides_name_what_is_there(dashboard: dict[str, Any]) -> None:
    """A query that is renamed without its override loses its unit, and nobody notices."""
    for panel in dashboard["panels"]:
        ids = {target["refId"] for target in panel.get("targets", ())}
        columns = {f"Value #{one}" for one in ids} if len(ids) > 1 else {"Value"}
        for one in panel.get("fieldConfig", {}).get("overrides", ()):
            matcher = one["matcher"]
            assert matcher["options"] in (ids if matcher["id"] == "byFrameRefID" else columns), panel["title"]


def test_dashboards_lead_to_each_other() -> None:
    uids = {dashboard["uid"] for dashboard in DASHBOARDS.values()}
    assert len(uids) == len(DASHBOARDS)
    for dashboard in DASHBOARDS.values():
        assert {link["url"].removeprefix("/d/") for link in dashboard["links"]} == uids - {dashboard["uid"]}


def test_dashboards_arrive_as_they_are(chart: Chart) -> None:
    values = {"enabled": True, "labels": {"grafana": "yes"}, "annotations": {"grafana_folder": "Models"}}
    config = named(chart.render({"dashboard": values}), "ConfigMap", "coalmine-dashboard")
    assert json.loads(config["data"]["coalmine.json"]) == DASHBOARDS["dashboard"]
    assert json.loads(config["data"]["coalmine-deployment.json"]) == DASHBOARDS["dashboard-deployment"]
    assert config["metadata"]["labels"]["grafana"] == "yes"
    assert config["metadata"]["annotations"] == {"grafana_folder": "Models"}
