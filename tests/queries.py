"""Queries of the chart's dashboards as Grafana sends them: variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

FILES: Final = Path(__file__).resolve().parents[1] / "helm" / "coalmine" / "files"
DASHBOARDS: Final[dict[str, dict[str, Any]]] = {
    name: json.loads((FILES / f"{name}.json").read_text()) for name in ("dashboard", "dashboard-deployment")
}
#: What Grafana puts in for its own variables at a look back of three hours, scraped each 15 s.
_GRAFANA: Final = {"__rate_interval": "1m", "__interval": "15s", "__range": "3h"}
_VARIABLE: Final = re.compile(r"\$(\w+)|\$\{(\w+)(?::\w+)?\}")

#: What has to be there so that a query with such a metric returns data: more than traffic to a monitored binary model
#: with a baseline, labels and slices.
_NEEDS: Final = {
    "canary": r"coalmine:output_psi:canary",
    "cadvisor": r"coalmine:cpu_throttled:ratio|reason=\"throttling\"",
    "chart rules": r"coalmine:(?:requests|failed|rescued|request_duration_seconds|output_psi:canary)\b",
    "a fallback that answered": r"coalmine_fallbacks_total|coalmine:rescued:ratio",
    "an operator that rolled back": r"coalmine_operator_rollbacks_total",
    "an operator": r"coalmine_deployment_|coalmine_operator_|coalmine_(?:feature|output)_baseline_|coalmine_baseline_"
    r"|coalmine_drift_",
    "limits": r"coalmine:(?:memory|cpu):limit_ratio|coalmine:resource_limited:bool",
    "outcomes": r"coalmine:outcome:",
    "payload log": r"coalmine_payload_log",
    "regression": r"coalmine:(?:mae|rmse|r2):",
    "a week": r"coalmine:throughput:week_ratio",
    "a whole window": r"coalmine_drift_run_length_log",
    "text or names as outputs": r"coalmine_output_class_total",
}


class Query(Struct, frozen=True, kw_only=True):
    """`needs`: words of what the scenario has to have beside requests, so that it returns data."""

    dashboard: str
    panel: str
    expr: str
    needs: frozenset[str]


def queries(**variables: str) -> list[Query]:
    """Every target of every panel. `variables`: namespace, modeldeployment, model, version, feature, output, as regular
    expressions; all by default."""
    values = {**_GRAFANA, "namespace": ".*", "modeldeployment": ".*", "model": ".*", "version": ".*"}
    values |= {"feature": ".*", "output": ".*"} | variables
    return [
        Query(dashboard=name, panel=title, expr=filled(expr, values), needs=needs(expr))
        for name, dashboard in DASHBOARDS.items()
        for title, expr in targets(dashboard)
    ]


def targets(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and expression, as they stand in the file."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def filled(expr: str, values: Mapping[str, str]) -> str:
    """Raises KeyError for a variable without a value."""
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], expr)


def needs(expr: str) -> frozenset[str]:
    return frozenset(word for word, pattern in _NEEDS.items() if re.search(pattern, expr))
