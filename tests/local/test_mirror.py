"""A canary tried on copies of requests by a real `coalmine run`: found out, or promoted, before any user met it."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.local.running import Run, coalmine, manifest, until

MORE = """  strategy:
    canary:
      steps: [{setMirror: 100}, {pause: {requests: 40}}, {setWeight: 50}, {pause: {requests: 20}}]
      scaleDownDelay: 0s
  analysis:
    interval: 500ms
    minRequests: 30
    metrics:
      - {name: shadow, preset: shadowDisagreement, threshold: 0.1, tolerance: 0.1}
      - {name: errors, preset: errorRate}
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    started = Run(tmp_path, manifest("v1", more=MORE))
    yield started
    started.clean()


@contextmanager
def users(run: Run) -> Iterator[Counter[str]]:
    """Requests one after the other; which version answered how many."""
    answered: Counter[str] = Counter()
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.wait(0.005):
            answered[run.infer()] += 1

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def shadows(run: Run, version: str) -> dict[str, float]:
    """Counters of copies for a version, and the answers by role, summed over all sidecars."""
    sums: Counter[str] = Counter()
    for path in run.state.glob("*/pods/*/pod.json"):
        port = json.loads(path.read_text())["adminPort"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except OSError:  # a pod that comes or goes
            continue
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("version") != version:
                    continue
                if sample.name.startswith("coalmine_shadow"):
                    sums[sample.name] += sample.value
                elif sample.name == "coalmine_requests_total":
                    sums[sample.labels["role"]] += sample.value
    return dict(sums)


def test_a_wrong_one_is_out_before_a_user_met_it_and_a_good_one_is_promoted(run: Run) -> None:
    assert coalmine("lint", "fraud.yaml", cwd=run.folder).stdout == "fraud.yaml: ok: 1 ModelDeployment\n"
    run.until_phase("Healthy", "v1")
    with users(run) as answered:
        run.edit(manifest("v3", "--score", "0.9", more=MORE))
        status = run.until_phase("Degraded", "v1")
    last = status["lastRollback"]
    assert (last["sourceVersion"], last["reason"], last["message"]) == ("v3", "AnalysisFailed", "verdict Fail: shadow")
    (verdict,) = last["evidence"]
    assert verdict["evidence"]["disagreed"] == verdict["evidence"]["compared"] >= 10
    assert set(answered) == {"v1"}

    with users(run) as answered:
        run.edit(manifest("v2", "--score", "0.3", more=MORE))
        until(lambda: shadows(run, "v2").get("coalmine_shadow_compared_total"), "copies of v2 are compared")
        before = shadows(run, "v2")
        status = run.until_phase("Healthy", "v2")
    assert answered["v2"]
    assert before["coalmine_shadow_disagreements_total"] == 0
    assert before["shadow"] > 0
    verdicts = {v["metric"]: v for v in status["history"][-1]["verdicts"]}
    assert verdicts["shadow"]["verdict"] == "Pass"
    assert verdicts["shadow"]["evidence"]["compared"] >= 40
    told = [line for line in run.said().splitlines() if "gets copies of 100 % of requests" in line]
    assert len(told) == 2
