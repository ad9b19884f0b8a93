"""From live traffic to the bins that it is counted in: a real run records, `baseline build` reads, the run counts."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coalmine_operator.api.baseline import Numeric, decode_baseline

from .running import Run, said, until

MODEL = Path(__file__).with_name("any_model.py")
SENT = 60
_BIN = re.compile(r'coalmine_feature_bin_total\{.*feature="([^"]*)".*\} ([0-9.]+)')


def manifest(monitoring: dict[str, Any]) -> str:
    command = json.dumps([sys.executable, str(MODEL)])
    return (
        "apiVersion: coalmine.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: fraud}\nspec:\n"
        f"  model: {{version: v1}}\n  monitoring: {json.dumps(monitoring)}\n"
        "  template:\n    spec:\n      containers:\n"
        f"      - {{name: model, command: {command}, readinessProbe: {{httpGet: {{path: /health, port: 8080}}}}}}\n"
    )


def request(what: str, i: int) -> tuple[str, str, bytes]:
    """Route, content type and body of one that asks for two rows, but for plain JSON, which has one."""
    age, state = 20 + i, ["ny", "ca"][i % 2]
    if what == "plain":
        return "/predict", "application/json", json.dumps({"age": age, "state": state, "past": [i, i / 2]}).encode()
    if what == "csv":
        return "/invocations", "text/csv", f"{age},{state}\n{age},tx\n".encode()
    data = {"data": {"names": ["age", "state"], "ndarray": [[age, state], [age, "tx"]]}}
    return "/api/v1.0/predictions", "application/json", json.dumps(data).encode()


FEATURES = {
    "plain": (["age", "state", "past[0]", "past[1]"], "risk"),
    "csv": (["[0]", "[1]"], "output"),
    "seldon": (["age", "state"], "risk"),
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Run]]:
    runs: list[Run] = []

    def begin(text: str) -> Run:
        runs.append(Run(tmp_path, text))
        return runs[-1]

    yield begin
    for run in runs:
        run.clean()


def send(run: Run, what: str) -> None:
    for i in range(SENT):
        route, kind, body = request(what, i)
        asked = urllib.request.Request(f"http://127.0.0.1:{run.port}{route}", data=body, headers={"Content-Type": kind})
        with urllib.request.urlopen(asked, timeout=20) as answer:
            assert answer.read()


def metrics(run: Run) -> str:
    (pod,) = run.state.glob("*/pods/*/pod.json")
    port = json.loads(pod.read_text())["adminPort"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        return answer.read().decode()


def rows_by_bin(run: Run) -> dict[str, list[float]]:
    """Of each feature, bins that nothing is in left out."""
    found: dict[str, list[float]] = {}
    for feature, count in _BIN.findall(metrics(run)):
        found.setdefault(feature, [])
        if float(count):
            found[feature].append(float(count))
    return {feature: sorted(counts) for feature, counts in found.items()}


@pytest.mark.parametrize(
    ("what", "file"), [("plain", "requests.jsonl"), ("csv", "requests.jsonl"), ("seldon", "requests.parquet")]
)
def test_from_a_recording_to_the_bins(
    what: str, file: str, start: Callable[[str], Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    run = start(manifest({"payloadLog": {"percent": 100, "file": f"logs/{file}"}}))
    run.until_phase("Healthy", "v1")
    send(run, what)
    # What is gathered for Parquet is written when nothing is to be recorded any more.
    run.edit(manifest({}))
    until(lambda: f'payload_log_total{{outcome="sent"}} {2 * SENT}.0' in metrics(run), "all is recorded")

    target = tmp_path / "v1.json"
    words = ["baseline", "build", str(logs), "-o", str(target), "--model", "fraud", "--version", "v1", "--bins", "5"]
    code, out, err = said(capsys, *words)
    assert (code, err) == (0, "")
    made = decode_baseline(target.read_bytes())
    features, output = FEATURES[what]
    assert list(made.features) == features, out
    assert list(made.outputs) == [output]
    assert made.rows == (SENT if what == "plain" else 2 * SENT), out

    named = [
        {"name": name, "type": "numeric" if isinstance(one, Numeric) else "categorical"}
        for name, one in made.features.items()
    ]
    run.edit(manifest({"features": named, "baseline": {"file": "v1.json"}}))
    until(lambda: len(rows_by_bin(run)) == len(features), "the sidecar has the bins")
    send(run, what)
    expected = {name: sorted(float(count) for count in column.counts) for name, column in made.features.items()}
    until(lambda: rows_by_bin(run) == expected, f"the same requests are in the same bins: {expected}")
