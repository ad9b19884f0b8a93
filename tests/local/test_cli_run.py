"""`coalmine run` and its companions, whole: processes, signals, a terminal, orders, an alert."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.local.running import Run, coalmine, free_port, manifest, said, until

from coalmine_operator.cli.errors import CliError
from coalmine_operator.cli.tokens import read_token

Start = Callable[..., Run]
Refused = Callable[..., list[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def begin(text: str, *options: str, terminal: int | None = None, port: int | None = None) -> Run:
        runs.append(Run(tmp_path, text, *options, terminal=terminal, port=port))
        return runs[-1]

    yield begin
    for run in runs:
        run.clean()


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """What a run says that does not start."""

    def says(*options: str) -> list[str]:
        monkeypatch.chdir(tmp_path)
        code, out, err = said(capsys, "run", "fraud.yaml", "--port", str(free_port()), "--web-port", "0", *options)
        assert (code, out) == (2, "")
        return err.splitlines()

    return says


def test_bad_input_is_one_line_each_and_nothing_starts(tmp_path: Path) -> None:
    more = "  replica: 2\n  strategy: {canary: {steps: [{setWeight: 5}, {setWeight: 140}]}}\n"
    (tmp_path / "fraud.yaml").write_text(manifest("v1", more=more))
    lines = coalmine("run", "fraud.yaml", cwd=tmp_path, code=2).stderr.splitlines()
    assert len(lines) == 2
    assert any("spec.strategy.canary.steps[1].setWeight: 140 is over 100" in line for line in lines)
    assert any("spec.replica: " in line for line in lines)
    assert not (tmp_path / ".coalmine").exists()


def test_no_file(refused: Refused) -> None:
    (line,) = refused()
    assert line.endswith("fraud.yaml: No such file or directory")


def test_taken_ports_are_named(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "fraud.yaml").write_text(manifest("v1"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lines = refused("--web-port", str(port))
        assert lines == [
            f"port {port} on 127.0.0.1 is taken: stop what listens there or give another one with --web-port"
        ]
        lines = refused("--port", str(port))
        assert lines == [f"port {port} on 127.0.0.1 is taken: stop what listens there or give another one with --port"]
    assert not list(tmp_path.glob(".coalmine/*/pods/*"))


@pytest.mark.parametrize(
    ("token", "line"),
    [
        (b"", "holds no token: write one word of at most 4096 characters"),
        (b"two words", "holds no token: write one word of at most 4096 characters"),
        (b"x" * 5000, "holds no token: write one word of at most 4096 characters"),
        (b"\xff\xfe", "holds a token that is no ASCII text: write a new one"),
    ],
)
def test_a_bad_token(token: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(token)
    with pytest.raises(CliError) as caught:
        read_token(tmp_path / "token")
    assert (str(caught.value), caught.value.code) == (f"{tmp_path / 'token'}: {line}", 2)


def test_no_token_file_and_nothing_starts(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "fraud.yaml").write_text(manifest("v1"))
    assert refused("--alerts-token-file", "token") == ["token: cannot be read: No such file or directory"]
    assert not (tmp_path / ".coalmine").exists()


def test_start_secrets_orders_and_a_clean_stop(
    start: Start, refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def says(*arguments: str) -> tuple[object, str]:
        code, out, err = said(capsys, *arguments, "--state", str(tmp_path / ".coalmine"))
        return code, out + err

    run = start(manifest("v1"))
    for secret in ("run.json", "alerts-token"):
        assert stat.S_IMODE((run.state / secret).stat().st_mode) == 0o600
    run.until_phase("Healthy", "v1")
    assert run.infer() == "v1"

    assert coalmine("status", cwd=tmp_path).stdout.startswith("fraud Healthy; v1 stable 100 % (1/1 ready, ")
    assert says("status", "fraud", "--output", "json")[1].startswith('{\n  "running": true')
    assert says("history")[1].startswith("fraud rollout 1: v1 Promoted FirstRevision")
    assert says("pause") == (1, "fraud: pause refused: no rollout is under way\n")
    assert says("pause", "other") == (1, "no model deployment other: there is fraud\n")
    code, line = says("promote", "--revision", "v9")
    assert code == 1
    assert line.startswith("fraud: promote refused: the order names v9, but now it is about v1")
    (line,) = refused()
    assert "in use by another `coalmine run`" in line

    pids = run.pids()
    assert len(pids) == 2
    token = run.info()["token"]
    run.signal()
    assert run.ended() == 0
    assert not (run.state / "run.json").exists()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    log = run.said()
    assert token not in log
    assert (run.state / "alerts-token").read_text().strip() not in log
    assert re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 .+\n)+", log)
    assert log.splitlines()[-1].endswith(" stopped")

    _, text = says("status")
    assert text.startswith("fraud Healthy; v1 stable 100 %")
    assert f"no coalmine run is running with state directory {run.state}: this is as of 20" in text
    assert len(json.loads(says("history", "--output", "json")[1])["default/fraud"]) == 1


def test_leave_and_take_up_again(start: Start, refused: Refused) -> None:
    run = start(manifest("v1"), "--on-exit", "leave")
    run.until_phase("Healthy", "v1")
    pids = run.pids()
    run.signal(signal.SIGINT)
    assert run.ended() == 0
    assert all(map(psutil.pid_exists, pids))
    assert run.infer() == "v1"

    token = (run.state / "alerts-token").read_text()
    (run.state / "alerts-token").write_text("")
    (line,) = refused()
    assert line == ".coalmine/alerts-token: holds no token: write one word of at most 4096 characters"
    assert all(map(psutil.pid_exists, pids))
    (run.state / "alerts-token").write_text(token)

    again = start(manifest("v1"), port=run.port)
    again.until_phase("Healthy", "v1")
    assert again.pids() == pids
    assert again.infer() == "v1"


def test_a_canary_is_promoted_by_order_and_the_next_rolled_back_by_an_alert(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    more = (
        "  strategy: {canary: {steps: [{setWeight: 50}, {pause: {}}], scaleDownDelay: 0s}}\n"
        "  autoRollback: {alerts: [{name: Slow}], bakeTime: 0s}\n"
    )
    run = start(manifest("v1", more=more))
    run.until_phase("Healthy", "v1")
    run.edit(manifest("v2", more=more))
    run.until_phase("Paused", "v1")
    until(lambda: {run.infer() for _ in range(8)} == {"v1", "v2"}, "both answer")
    code, line, _ = said(capsys, "promote", "fraud", "--state", str(run.state))
    assert (code, line.split(" by ")[0]) == (0, "fraud: rollout 2: promotion ordered")
    run.until_phase("Healthy", "v2")

    run.edit(manifest("v3", more=more))
    run.until_phase("Paused", "v2")
    token = (run.state / "alerts-token").read_text().strip()
    assert run.alert("wrong", alertname="Slow", model="fraud")[0] == 401
    status, text = run.alert(token, alertname="Fast", model="fraud")
    assert (status, json.loads(text)) == (200, {"received": 1, "matched": {}, "unattributed": 0})
    status, text = run.alert(token, alertname="Slow", modeldeployment="fraud", namespace="default")
    assert (status, json.loads(text)["matched"]) == (200, {"default/fraud": 1})
    rolled_back = run.api("/api/deployments/default/fraud")["status"]["lastRollback"]
    assert (rolled_back["sourceVersion"], rolled_back["reason"]) == ("v3", "AlertFiring")
    until(lambda: {run.infer() for _ in range(8)} == {"v2"}, "only stable answers")

    lines = said(capsys, "history", "--state", str(run.state))[1].splitlines()
    assert lines[1].startswith("fraud rollout 2: v1 -> v2 Promoted PromotedByOrder: ")
    rollback = next(number for number, line in enumerate(lines) if "v2 -> v3 RolledBack AlertFiring" in line)
    assert any("alert Slow (modeldeployment=fraud, namespace=default)" in line for line in lines[rollback:])

    run.edit(manifest("v3", more=more + "  replicas: -1\n"))
    status = until(lambda: run.view() if run.view()["problems"] else None, "the problem shows")
    assert any("spec.replicas" in problem for problem in status["problems"])
    assert run.infer() == "v2"


def test_a_second_signal_ends_at_once(start: Start) -> None:
    run = start(manifest("v1", "--deaf"))
    run.until_phase("Healthy", "v1")
    run.signal()
    until(lambda: "draining and stopping" in run.said(), "the first signal is heard")
    run.signal()
    assert run.ended(5) == 1
    assert "ended at once: model processes may still run, the next coalmine run takes them up" in run.said()


def test_the_live_view_on_a_terminal(start: Start, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:
                return
            if not chunk:
                return
            seen.extend(chunk)

    run = start(manifest("v1"), terminal=theirs)
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    until(lambda: "fraud" in text_of(seen) and "Healthy" in text_of(seen), "a healthy panel is drawn")
    assert "████████████████████ 100 %" in text_of(seen)
    assert f"http://127.0.0.1:{run.port}" in text_of(seen)
    run.signal(signal.SIGINT)
    assert run.ended() == 0
    reader.join(10)
    os.close(ours)
    assert bytes(seen).rstrip().endswith(b"stopped")
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")  # the cursor came back


def text_of(seen: bytearray) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", bytes(seen).decode("utf-8", "replace"))
