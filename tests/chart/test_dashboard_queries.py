"""Every query of both dashboards returns data, in a real Prometheus that scrapes a model deployment which serves."""

from __future__ import annotations

import contextlib
import csv
import json
import random
import shutil
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from msgspec.structs import replace
from tests.acceptance.nannyml_data import Scored
from tests.acceptance.prometheus import Prometheus
from tests.acceptance.story import Story, manifest, numeric, text
from tests.chart.cadvisor import kubelet
from tests.chart.chart import Chart
from tests.chart.past import back_fill
from tests.chart.test_rules import rules_text
from tests.local.running import coalmine, until
from tests.queries import Query, queries
from tests.unit.rulebook import EVERYTHING

from coalmine_operator.api.baseline import digest_of
from coalmine_operator.render.rules import groups
from coalmine_operator.render.rules.parameters import Statistic
from coalmine_sidecar.monitoring import Task

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (make tools)"),
    pytest.mark.timeout(300),
]

#: What each scenario has beside requests.
SERVING = frozenset(
    {
        "an operator", "cadvisor", "chart rules", "limits", "outcomes", "payload log", "text or names as outputs",
        "a week", "a whole window",
    }
)  # fmt: skip
ROLLING_OUT = SERVING | {"canary", "a fallback that answered", "an operator that rolled back"}
REGRESSION = frozenset({"regression"})
#: Rules that the story has not: they find no data.
OTHERS = [
    *(replace(EVERYTHING, deployment=task, task=task) for task in get_args(Task)),
    *(replace(EVERYTHING, deployment=statistic, statistic=statistic) for statistic in get_args(Statistic)),
]
#: The `coalmine` that runs.
COMMAND = (sys.executable, Path(__file__).with_name("short_windows.py"))


def rows(count: int) -> Scored:
    draw = random.Random(count)
    ages = [draw.gauss(40, 10) for _ in range(count)]
    scores = np.array([min(max(age / 80 + draw.gauss(0, 0.1), 0.0), 1.0) for age in ages])
    labels = np.array([float(draw.random() < score) for score in scores])
    columns: dict[str, list[Any]] = {"age": ages, "sex": [draw.choice("FM") for _ in range(count)]}
    return Scored(columns=columns, scores=scores, labels=labels)


@pytest.fixture(scope="module")
def story(chart: Chart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("dashboards")
    reference = rows(6000)
    with (folder / "reference.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "sex", "score", "label"])
        columns = reference.columns
        writer.writerows(
            zip(columns["age"], columns["sex"], reference.scores, reference.labels.astype(int), strict=True)
        )
    coalmine(
        "baseline", "build", "reference.csv", "-o", "baseline.json", "--model", "fraud", "--version", "v1",
        "--score", "score", "--label", "label", "--chunk", "1000", cwd=folder,
    )  # fmt: skip
    monitoring = {
        "features": [{"name": "age"}, {"name": "sex", "type": "categorical"}],
        "baseline": {"file": "baseline.json", "digest": digest_of((folder / "baseline.json").read_bytes())},
        "slices": [{"attribute": "sex", "path": "sex"}],
        "payloadLog": {"percent": 100, "file": "payloads.jsonl"},
    }
    document = manifest("fraud", "score", monitoring, "decision")
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(kubelet())
        story = Story(
            folder, document, "--baseline", "baseline.json",
            more_rules=rules_text(chart), command=COMMAND, cadvisor_port=port,
        )  # fmt: skip
        stack.callback(story.stop)
        live = rows(1500)
        story.play(live, slice(0, len(live.scores)), tensors, "row")
        clicked(story, "row-0")
        back_fill(story.prometheus, "coalmine_requests_total", per_second=1.0)
        # An increase is seen from the second one on: until the first there is no counter.
        second = threading.Timer(4, clicked, (story, "row-250"))
        second.start()
        story.play(live, slice(0, len(live.scores)), tensors, "again")
        second.join()
        yield story


def clicked(story: Story, prediction: str) -> None:
    body = json.dumps({"predictionId": prediction, "outcome": "clicked", "value": 1}).encode()
    url = f"http://127.0.0.1:{story.port}/feedback"
    outcome = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(outcome, timeout=10) as answer:
        assert answer.status == 202


def tensors(all_: Scored, part: slice) -> list[dict[str, Any]]:
    return [
        numeric("age", all_.columns["age"][part]),
        text("sex", all_.columns["sex"][part]),
        numeric("score", list(all_.scores[part])),
        text("decision", ["high" if score >= 0.5 else "low" for score in all_.scores[part]]),
    ]


def test_every_query_is_asked() -> None:
    asked = [*wanted(SERVING, frozenset()), *wanted(ROLLING_OUT, SERVING), *wanted(REGRESSION, frozenset())]
    missing = [query for query in queries() if query not in asked]
    assert not missing


def test_every_query_returns_data(story: Story) -> None:
    check(story, SERVING, frozenset())


def test_those_about_rollouts_do_when_one_goes_wrong(story: Story) -> None:
    """A canary that fails now and then."""
    document = yaml.safe_load((story.folder / "model.yaml").read_text())
    document["spec"]["model"]["version"] = "v2"
    document["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "FAILS", "value": "3"}]
    document["spec"]["strategy"] = {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}}
    document["spec"]["analysis"] = {"metrics": []}
    story.edit(document)
    until(lambda: story.prometheus.query('coalmine_route_weight{version="v2"} == 50'), "the canary's share", 60)
    live = rows(3000)
    # Counters of what goes wrong come with the first time; their increase with the second.
    for turn in ("first", "second"):
        story.play(live, slice(0, len(live.scores)), tensors, turn)
    check(story, ROLLING_OUT, SERVING)


def test_those_about_numbers_do_for_a_regression(tmp_path: Path) -> None:
    story = Story(tmp_path, manifest("price", "score", {"task": "regression"}))
    try:
        live = rows(1000)
        for turn in ("first", "second"):
            story.play(live, slice(0, len(live.scores)), tensors, turn)
        check(story, REGRESSION, frozenset())
    finally:
        story.stop()


def test_prometheus_3_says_the_same(story: Story, prometheus_3: Path) -> None:
    """It has the data of the one before, scrapes on, and evaluates its rules and all others."""
    folder = story.folder / "prometheus-3"
    story.prometheus.copy_data(folder)
    others = [yaml.safe_dump({"groups": groups(one)}) for one in OTHERS]
    newer = Prometheus(folder, [*story.rules, *others], story.web_port, program=prometheus_3)
    try:
        until(lambda: all(rule["health"] != "unknown" for rule in newer.rules()), "every rule to be evaluated")
        failed = [f"{rule['name']}: {rule['lastError']}" for rule in newer.rules() if rule["health"] != "ok"]
        assert not failed, "\n".join(failed)
        at = between_scrapes(story)
        expressions = {rule["query"] for rule in story.prometheus.rules()} | {query.expr for query in queries()}
        told = {expr: [samples(one, expr, at) for one in (story.prometheus, newer)] for expr in sorted(expressions)}
    finally:
        newer.stop()
    have_data = sum(bool(before) for before, _ in told.values())
    print(f"{have_data} of {len(told)} expressions have data")
    assert have_data > len(told) / 2
    other = [expr for expr, (before, now) in told.items() if now != pytest.approx(before, rel=1e-9, nan_ok=True)]
    assert not other, "\n".join(other)


def samples(prometheus: Prometheus, expr: str, at: float) -> dict[str, float]:
    return {json.dumps(labels, sort_keys=True): value for labels, value in prometheus.query(expr, at)}


def between_scrapes(story: Story) -> float:
    """When no sample lies on the edge of a window of whole seconds: that counted before Prometheus 3, which leaves it
    out."""
    moments = [0.0, *(moment for _, moment in story.prometheus.query("timestamp(up)", story.end))]
    candidates = [story.end - number / 32 for number in range(32)]
    return max(candidates, key=lambda at: min(abs((at - moment + 0.5) % 1 - 0.5) for moment in moments))


def wanted(has: frozenset[str], had: frozenset[str]) -> list[Query]:
    """Queries that return data with what a scenario has, and not with what the one before had."""
    return [query for query in queries() if query.needs <= has and not (had and query.needs <= had)]


def check(story: Story, has: frozenset[str], had: frozenset[str]) -> None:
    asked = [query for query in wanted(has, had) if has != REGRESSION or query.needs]
    print(f"{len(asked)} of {len(queries())} queries")
    assert asked
    empty = [f"{query.dashboard}: {query.panel}: {query.expr}" for query in asked if not returns(story, query)]
    assert not empty, "\n".join(empty)


def returns(story: Story, query: Query) -> bool:
    return bool(story.prometheus.query(query.expr, story.end))
