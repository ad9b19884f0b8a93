"""Every query of both dashboards returns data, in a real Prometheus that scrapes a model deployment which serves."""

from __future__ import annotations

import csv
import json
import random
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.acceptance.nannyml_data import Scored
from tests.acceptance.story import Story, manifest, numeric, text
from tests.chart.chart import Chart
from tests.chart.test_rules import rules_text
from tests.local.running import coalmine, until
from tests.queries import Query, queries

from coalmine_operator.api.baseline import digest_of

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (make tools)"),
    pytest.mark.timeout(300),
]

#: What each scenario has beside requests.
SERVING = frozenset({"an operator", "chart rules", "outcomes", "payload log", "limits", "text or names as outputs"})
ROLLING_OUT = SERVING | {"canary", "a fallback that answered", "an operator that rolled back"}
REGRESSION = frozenset({"regression"})
#: What takes a kubelet (throttling), a week, or a quarter of an hour of traffic: promtool has these in its own time.
LACKS = frozenset({"cadvisor", "a week", "a whole window"})


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
    story = Story(folder, document, "--baseline", "baseline.json", more_rules=rules_text(chart))
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
        text("decision", ["high" if score >= 0.5 else "low" for score in all_.scores[part]]),
    ]


def test_what_the_scenarios_lack_is_known() -> None:
    assert {need for query in queries() for need in query.needs} == ROLLING_OUT | REGRESSION | LACKS


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


def test_the_others_are_well_formed(story: Story) -> None:
    """Prometheus takes them, and finds nothing."""
    for query in queries():
        if query.needs & LACKS:
            assert not returns(story, query)


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
    return bool(story.prometheus.query(query.expr))
