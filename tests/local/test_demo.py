"""`make demo` whole: the main end-to-end test. Everything in it is real: models, processes, sockets, traffic."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, str(ROOT / "examples/demo.py")]


def run_to_the_end(process: subprocess.Popen[str], seconds: float) -> str:
    """Its output. A demo that hangs is told to end, and fails the test."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        pytest.fail(f"the demo hung:\n{process.communicate(timeout=60)[0]}")


@pytest.mark.timeout(420)
def test_the_whole_story_comes_true(tmp_path: Path) -> None:
    facts_file = tmp_path / "facts.json"
    with subprocess.Popen(
        [*DEMO, "--plain", "--json", str(facts_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    ) as process:
        output = run_to_the_end(process, 300)
    assert process.returncode == 0, output
    assert "\x1b" not in output

    facts = json.loads(facts_file.read_bytes())
    assert facts["ok"] is True
    assert [line["line"] for line in facts["timeline"] if not line["ok"]] == []
    assert len(facts["timeline"]) == 13
    score = facts["score"]
    assert score["client_errors"] == 0

    versions = {v["version"]: v for v in score["versions"]}
    assert list(versions) == ["v1", "v2", "v3", "v4"]
    assert sum(v["answered"] for v in versions.values()) == score["sent"]
    assert sum(v["labels"] for v in versions.values()) == score["sent"]
    assert versions["v2"]["accuracy"] > versions["v1"]["accuracy"] > 0.9 > versions["v3"]["accuracy"]
    assert versions["v4"]["p50_ms"] > 300

    drift, slow = score["rollbacks"]
    assert (drift["version"], drift["to"], drift["decided_by"]) == ("v3", "v2", "verdict")
    labels = drift["evidence"]["labels"]
    assert labels["logE"] >= labels["threshold"] > 0
    assert (slow["version"], slow["to"], slow["decided_by"]) == ("v4", "v2", "alert")
    assert slow["evidence"]["alert"] == "ModelLatencyHigh"
    assert slow["evidence"]["slow_share"] > 0.5
    assert score["fallback_answers"] > 0


def children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.timeout(180)
def test_ctrl_c_ends_everything_and_leaves_nothing_behind() -> None:
    before = set((ROOT / "build" / "demo").glob("run-*"))
    ours, theirs = pty.openpty()  # a terminal, so that the live view is drawn as well
    env = os.environ | {"TERM": "xterm-256color"}
    with subprocess.Popen([*DEMO], stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        shown = b""
        end = time.monotonic() + 90
        while b"Healthy" not in shown and time.monotonic() < end:
            shown += os.read(ours, 65536)
        seen = children(process.pid)
        process.send_signal(signal.SIGINT)
        try:
            while chunk := os.read(ours, 65536):
                shown += chunk
        except OSError:
            pass  # the terminal's other end is closed: the demo ended
        assert process.wait(60) == 130
    os.close(ours)
    assert len(seen) >= 3  # coalmine run, the model, its sidecar
    assert b"everything was ended" in shown
    alive = [p for p in seen if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert alive == []
    assert set((ROOT / "build" / "demo").glob("run-*")) <= before


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *arguments], capture_output=True, text=True, timeout=150, cwd=ROOT)


@pytest.mark.timeout(180)
def test_a_story_that_does_not_come_true_fails_and_says_why(tmp_path: Path) -> None:
    """The ingress port is taken: Coalmine ends with its own sentence, which the demo repeats."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run_demo("--plain", "--port", str(port), "--json", str(tmp_path / "facts.json"))
    assert ended.returncode == 1
    assert f"port {port}" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    kept = ROOT / ended.stdout.split("logs and state are in ")[1].strip()
    assert f"port {port}" in (kept / "coalmine.log").read_text()
    shutil.rmtree(kept)
    facts = json.loads((tmp_path / "facts.json").read_bytes())
    assert facts["ok"] is False
    assert [line["ok"] for line in facts["timeline"]][:2] == [False, None]
    assert facts["score"]["sent"] == 0
