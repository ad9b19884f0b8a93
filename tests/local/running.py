"""A real `coalmine run` for tests: started, asked through the real command line, ended."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coalmine_operator.cli.main import main

COALMINE = Path(sys.executable).with_name("coalmine")
MODEL = Path(__file__).with_name("v2_model.py")


def coalmine(*arguments: str, cwd: Path, stdin: str | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; it must exit with `code` and show nobody a traceback."""
    done = subprocess.run(
        [COALMINE, *arguments], cwd=cwd, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == code, done
    return done


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    """Exit status and what was said, by the same command line without a process of its own, which takes a while."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return ended.value.code, out, err


def manifest(version: str, *options: str, more: str = "") -> str:
    """Of `fraud`, whose model takes `options`; `more` are further lines of the spec."""
    command = json.dumps([sys.executable, str(MODEL), "--version", version, *options])
    return (
        "apiVersion: coalmine.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: fraud}\nspec:\n"
        f"  model: {{version: {version}, protocol: v2}}\n"
        f"  template: {{spec: {{containers: [{{name: model, command: {command}}}]}}}}\n{more}"
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(true: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """The first truthy answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := true():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


class Run:
    """`coalmine run` of `fraud.yaml` in a folder, with its state in `.coalmine`."""

    def __init__(
        self, folder: Path, text: str, *options: str, terminal: int | None = None, port: int | None = None
    ) -> None:
        self.folder = folder
        self.state = folder / ".coalmine"
        self.port = port or free_port()
        self.edit(text)
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [COALMINE, "run", "fraud.yaml", "--port", str(self.port), "--web-port", "0", *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self.log if terminal is None else terminal,
            stderr=self.log if terminal is None else terminal,
            env=os.environ | {"COLUMNS": "120", "LINES": "40", "TERM": "xterm", "TZ": "UTC"},
        )
        until(lambda: self.process.poll() is not None or (self.state / "run.json").exists(), "run.json")
        assert self.process.poll() is None, self.said()

    def edit(self, text: str) -> None:
        new = self.folder / "fraud.new"
        new.write_text(text)
        new.replace(self.folder / "fraud.yaml")

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def view(self) -> dict[str, Any]:
        return self.api("/api/deployments/default/fraud")

    def until_phase(self, phase: str, version: str = "") -> dict[str, Any]:
        """A view in that phase, with that version as stable."""

        def there() -> dict[str, Any] | None:
            status = self.api("/api/deployments/default/fraud")["status"]
            right = status.get("phase", "Pending") == phase
            return status if right and version in ("", status.get("stable", {}).get("version")) else None

        found: dict[str, Any] = until(there, f"{phase} {version}: {self.said()[-2000:]}", 40)
        return found

    def info(self) -> dict[str, Any]:
        return json.loads((self.state / "run.json").read_text())

    def api(self, path: str) -> dict[str, Any]:
        info = self.info()
        request = urllib.request.Request(
            f"http://127.0.0.1:{info['port']}{path}", headers={"Authorization": f"Bearer {info['token']}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:  # before the first reconcile
                    return {"status": {}}
                raise

    def alert(self, token: str, status: str = "firing", **labels: str) -> tuple[int, str]:
        # In whole seconds it might have fired before the rollout that it is about.
        alert = {"status": status, "labels": labels, "startsAt": dt.datetime.now(dt.UTC).isoformat()}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.info()['port']}/alerts",
            data=json.dumps({"version": "4", "alerts": [alert]}).encode(),
            headers={"Authorization": f"Bearer {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def infer(self) -> str:
        """Which version answered."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v2/models/fraud/infer", data=b'{"inputs": []}')
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())["model_version"]

    def pids(self) -> list[int]:
        """Of models and sidecars, as the state directory names them."""
        found = [int(pid) for path in self.state.glob("*/pods/*/pod.json") for pid in _PID.findall(path.read_text())]
        return [pid for pid in found if pid]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = 40) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self.log.close()

    def clean(self) -> None:
        """Whatever a failed test left."""
        pids = self.pids()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


_PID = re.compile(r'"pid": (\d+)')
