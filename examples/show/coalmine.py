"""The stage on this machine: a `coalmine run` with its manifest, its API, its webhook and its processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from coalmine_operator.api.codec import from_json
from coalmine_operator.web.view import DeploymentView

from .stage import NAME, Pod

EXAMPLES = Path(__file__).resolve().parent.parent
#: As it stands in the manifest: relative to it, and so not fit for a copy.
COMMAND = "[../.venv/bin/python, model_server.py]"
#: Seconds for `coalmine run` to drain and end everything.
END = 40.0
#: psutil's start times differ a little from one look to the next.
CLOCK_SLACK = 2.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Coalmine:
    """`folder` holds the manifest, the state directory and the log; nothing outside it is written."""

    namespace = "default"
    killing = "v2's process is killed"
    revived = "v2's process is started again"

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.manifest = folder / "breast-cancer.yaml"
        self.state = folder / "state"
        self.log = folder / "coalmine.log"
        self.process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self._alerts_token = secrets.token_urlsafe(16)
        #: Every process ever seen: pid -> start time.
        self._seen: dict[int, float] = {}

    @property
    def infer(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2/models/{NAME}/infer"

    async def edit(self, version: str) -> None:
        """As an editor does: a new file in the old one's place."""
        text = (EXAMPLES / "breast-cancer.yaml").read_text()
        text = text.replace(COMMAND, json.dumps([sys.executable, str(EXAMPLES / "model_server.py")]))
        text = re.sub(r"&version v\d+", f"&version {version}", text)
        new = self.manifest.with_suffix(".new")
        new.write_text(text)
        new.replace(self.manifest)

    async def start(self) -> None:
        await self.edit("v1")
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        token = self.folder / "alerts-token"
        token.touch(mode=0o600)
        token.write_text(self._alerts_token)
        # A session of its own: Ctrl-C is for us, and we end the rest in order.
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(str(Path(sys.executable).with_name("coalmine")), "run", str(self.manifest)),
                *("--state", str(self.state), "--port", str(self.port), "--web-port", "0"),
                *("--alerts-token-file", str(token)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def broken(self) -> str:
        if self.process is None or self.process.returncode is None:
            return ""
        return f"coalmine run ended with status {self.process.returncode}: {self.last_words()}"

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it said nothing"

    async def view(self) -> DeploymentView | None:
        """What the API tells."""
        self._remember()
        run = self._run()
        if run is None or self._session is None:
            return None
        url = f"http://127.0.0.1:{run['port']}/api/deployments/default/{NAME}"
        try:
            async with self._session.get(url, headers={"Authorization": f"Bearer {run['token']}"}) as answer:
                return from_json(await answer.read(), DeploymentView) if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def alert(self, webhook: dict[str, Any]) -> tuple[int, str]:
        run = self._run()
        if run is None or self._session is None:
            return 0, "coalmine run does not run"
        url = f"http://127.0.0.1:{run['port']}/alerts"
        headers = {"Authorization": f"Bearer {self._alerts_token}"}
        try:
            async with self._session.post(url, json=webhook, headers=headers) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, f"{type(error).__name__}: {error}"

    async def metrics(self, pod: Pod) -> str:
        if self._session is None:
            return ""
        try:
            async with self._session.get(f"http://{pod.admin}/metrics") as answer:
                return await answer.text() if answer.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return ""

    def pods(self) -> list[Pod]:
        return [
            Pod(
                record["name"],
                record["revision"],
                str((record.get("model") or {}).get("pid", 0)),
                f"127.0.0.1:{port}" if (port := record.get("adminPort")) else "",
                record.get("ending", False),
            )
            for record in self._records()
        ]

    async def kill(self, pods: Sequence[Pod]) -> None:
        for pod in pods:
            os.kill(int(pod.process), signal.SIGKILL)

    def _remember(self) -> None:
        """Note which processes there are, so that none is forgotten at the end."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._seen.setdefault(self.process.pid, psutil.Process(self.process.pid).create_time())
        for record in self._records():
            for kind in ("model", "sidecar"):
                if process := record.get(kind):
                    self._seen[process["pid"]] = process["createdAt"]

    def _left(self) -> list[psutil.Process]:
        """Processes of ours that still run."""
        found = []
        for pid, created in self._seen.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                # A pid may be somebody else's by now.
                same = abs(process.create_time() - created) < CLOCK_SLACK
                if same and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    async def stop(self) -> list[str]:
        """SIGTERM, as a user would end it. What it left running is then killed."""
        self._remember()
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), END)
        self._remember()
        left = []
        for process in self._left():
            with contextlib.suppress(psutil.NoSuchProcess):
                left.append(f"{process.pid} ({' '.join(process.cmdline()[:4])})")
                process.kill()
        if self.process is not None:
            await self.process.wait()
        if self._session is not None:
            await self._session.close()
        return left

    def _run(self) -> dict[str, Any] | None:
        try:
            run: dict[str, Any] = json.loads((self.state / "run.json").read_bytes())
        except (OSError, ValueError):
            return None
        return run

    def _records(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.state.glob("*/pods/*/pod.json")):
            with contextlib.suppress(OSError, ValueError):
                yield json.loads(path.read_bytes())
