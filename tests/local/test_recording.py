"""From live traffic to a baseline, whole: `coalmine run` logs payloads, and `coalmine baseline build` reads them."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from tests.local.running import Run, coalmine, manifest, until


def ask(run: Run, amount: float) -> None:
    tensor = {"name": "amount", "shape": [1], "datatype": "FP64", "data": [amount]}
    url, body = f"http://127.0.0.1:{run.port}/v2/models/fraud/infer", json.dumps({"inputs": [tensor]}).encode()
    with urllib.request.urlopen(url, data=body, timeout=20) as answer:
        assert answer.read()  # who leaves before that has got no prediction


@pytest.mark.parametrize("file", ["recording/payloads.jsonl", "recording/payloads.parquet"])
def test_what_run_logs_becomes_a_baseline(tmp_path: Path, file: str) -> None:
    run = Run(tmp_path, manifest("v1", more=f"  monitoring: {{payloadLog: {{percent: 100, file: {file}}}}}\n"))
    try:
        run.until_phase("Healthy", "v1")
        for number in range(40):
            ask(run, number)
        run.signal()
        assert run.ended() == 0
    finally:
        run.clean()
    assert {path.suffix for path in (tmp_path / "recording").iterdir()} == {Path(file).suffix}
    identity = ("--model", "fraud", "--version", "v1")
    coalmine("baseline", "build", "recording", "-o", "baseline.json", *identity, cwd=tmp_path)
    baseline = json.loads((tmp_path / "baseline.json").read_text())
    features = {name: sum(feature["counts"]) for name, feature in baseline["features"].items()}
    assert features == {"amount": 40}


def test_a_payload_log_that_cannot_be_written_is_told_on_the_terminal(tmp_path: Path) -> None:
    run = Run(tmp_path, manifest("v1", more="  monitoring: {payloadLog: {percent: 100, file: /proc/x/y.jsonl}}\n"))
    try:
        run.until_phase("Healthy", "v1")
        ask(run, 1.0)
        until(lambda: "payload log to /proc/x/y." in run.said(), "the failure on the terminal")
        run.signal()
        assert run.ended() == 0
    finally:
        run.clean()
