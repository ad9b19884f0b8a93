"""Every query of both dashboards returns data, in a real Prometheus that scrapes a model deployment which serves."""

from __future__ import annotations

import csv
import json
import random
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.acceptance.nannyml_data import Scored
from tests.acceptance.story import Story, manifest, numeric, text
from tests.chart.chart import Chart
from tests.chart.test_rules import rules_text
from tests.local.running import coalmine
from tests.queries import Query, queries

from coalmine_operator.api.baseline import digest_of

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (make tools)"),
    pytest.mark.timeout(300),
]

#: What the scenario has beside requests, labels and slices.
HAS = frozenset({"an operator", "chart rules", "outcomes", "payload log"})
#: What it has not: a rollout, a failure, limits of a container, a week, a quarter of an hour of traffic, another task.
LACKS = frozenset({
    "canary", "cadvisor", "a fallback that answered", "an operator that rolled back", "limits", "regression", "a week",
    "a whole window", "text or names as outputs",
})  # fmt: skip


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
    story = Story(
        folder, manifest("fraud", "score", monitoring), "--baseline", "baseline.json", more_rules=rules_text(chart)
    )
    try:
        live = rows(1500)
        story.play(live, slice(0, len(live.scores)), tensors, "row")
        clicked(story, "row-0")
        # An increase is seen from the second one on: until the first there is no counter.
        second = threading.Timer(4, clicked, (story, "row-250"))
        second.start()
        story.play(live, slice(0, len(live.scores)), tensors, "again")
        second.join()
        yield story
    finally:
        story.stop()


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
    ]


def test_what_the_scenario_lacks_is_known() -> None:
    assert {need for query in queries() for need in query.needs} <= HAS | LACKS


def test_every_query_returns_data(story: Story) -> None:
    asked = [query for query in queries(modeldeployment="fraud", model="fraud") if query.needs <= HAS]
    print(f"{len(asked)} of {len(queries())} queries")
    assert len(asked) > len(queries()) * 0.6
    empty = [f"{query.dashboard}: {query.panel}: {query.expr}" for query in asked if not answered(story, query)]
    assert not empty, "\n".join(empty)


def answered(story: Story, query: Query) -> bool:
    return bool(story.prometheus.query(query.expr))


def test_those_that_need_more_are_well_formed(story: Story) -> None:
    """Prometheus takes them, and finds nothing."""
    for query in queries():
        if not query.needs <= HAS:
            story.prometheus.query(query.expr)
