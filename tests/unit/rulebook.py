"""Rendered rules judged by the real promtool: counters of pods go in, and figures come out, held against an oracle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.chart.promtool import tool

from coalmine_operator.render.rules import Parameters, groups
from coalmine_operator.render.rules.parameters import SliceRules

#: Minutes of a scenario, and when it is looked at: the window of an hour lies inside.
MINUTES = 75
LOOK = "70m"
WINDOW = 60.0
TOLERANCE = 1e-6

OWN = {"namespace": "shop", "modeldeployment": "fraud"}
#: Of a series as a PodMonitor scrapes it.
FRAUD = {**OWN, "model": "fraud"}
V3 = {"version": "v3", "track": "stable"}
RECORDED = {**OWN, "model": "fraud", "version": "v3"}

Series = dict[str, str]
#: Labels and the value that the record has with them.
Samples = Sequence[tuple[Mapping[str, str], float]]

EVERYTHING = Parameters(
    namespace="shop",
    deployment="fraud",
    model="fraud",
    feedback=True,
    latency_budget=1.0,
    slices=(
        SliceRules(attribute="sex", min_samples=50),
        SliceRules(attribute="race", privileged="white", favourable="0", min_samples=50),
    ),
)


def selector(name: str, labels: Mapping[str, str]) -> str:
    return f"{name}{{{', '.join(f'{key}={json.dumps(value)}' for key, value in labels.items())}}}"


def counted(name: str, amount: float, *labels: Mapping[str, str], minutes: int = MINUTES) -> Series:
    """A counter that grows by `amount` in each hour, evenly: what Prometheus extrapolates is then exact."""
    merged = {key: value for part in labels for key, value in part.items()}
    return {"series": selector(f"{name}_total", merged), "values": f"0+{float(amount) / WINDOW!r}x{minutes}"}


def gauge(name: str, value: float, *labels: Mapping[str, str], minutes: int = MINUTES) -> Series:
    merged = {key: value for part in labels for key, value in part.items()}
    return {"series": selector(name, merged), "values": f"{float(value)!r}x{minutes}"}


def pods(name: str, amounts: Sequence[float], *labels: Mapping[str, str]) -> list[Series]:
    """One counter a pod."""
    return [counted(name, amount, {**FRAUD, **V3, "pod": f"p{i}"}, *labels) for i, amount in enumerate(amounts)]


def records(parameters: Parameters, part: str) -> set[str]:
    """Names of what is recorded; `part`: of service, data, quality, fairness."""
    found = (group for group in groups(parameters) if group["name"].endswith(f".{part}"))
    return {rule["record"] for group in found for rule in group["rules"] if "record" in rule}


def differences(
    folder: Path,
    parameters: Parameters,
    part: str,
    series: Iterable[Series],
    expected: Mapping[str, Samples],
    at: str = LOOK,
) -> str:
    """What promtool has against a part of the rules; empty: each record has these samples, no more, within 1e-6."""
    tests = []
    for record, samples in expected.items():
        own = selector(record, OWN)
        tests.append(
            {"expr": f"count({own})", "eval_time": at, "exp_samples": [{"labels": "{}", "value": len(samples)}]}
        )
        for labels, value in samples:
            one = selector(record, {**OWN, **labels})
            # Relative where the figure is a large one: rows of an hour, say.
            near = f"abs({one} - {float(value)!r}) <= bool {TOLERANCE * max(abs(float(value)), 1)!r}"
            shown = selector("", {**OWN, **labels})
            tests.append({"expr": near, "eval_time": at, "exp_samples": [{"labels": shown, "value": 1}]})
    scenario = {"interval": "1m", "input_series": list(series), "promql_expr_test": tests}
    # Six looks instead of seventy: records are made from counters and from each other, never from what was before.
    found = [{**group, "interval": "10m"} for group in groups(parameters) if group["name"].endswith(f".{part}")]
    return run(folder, found, scenario)


def run(folder: Path, found: Sequence[Mapping[str, Any]], *tests: Mapping[str, Any], step: str = "1m") -> str:
    """What promtool has against the rules or the tests; empty: nothing. `step`: how often rules are evaluated."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": list(found)}))
    (folder / "test.yaml").write_text(
        json.dumps({"rule_files": ["rules.yaml"], "evaluation_interval": step, "tests": tests})
    )
    return tool(folder, "test", "rules", "test.yaml")
