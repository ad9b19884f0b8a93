"""A manifest, a state directory and a running local platform for tests; whatever a test leaves running is an error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

from coalmine_operator.platforms.local import LocalPlatform
from coalmine_operator.platforms.local.deployment import PodView
from coalmine_operator.platforms.local.process import MARK
from coalmine_operator.runtime import Runtime, View

KEY = "default/fraud"
HERE = Path(__file__).parent
PATIENCE = 60.0


def free_port() -> int:
    """A port outside of those that models and outgoing connections get, with room for a second deployment."""
    for port in random.sample(range(10000, 19000), 200):
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10))
            return port
    raise OSError("no free port")


def manifest(
    version: str = "v1", *flags: str, name: str = "fraud", container: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """A deployment of `v2_model.py` without analysis: only the platform is under test."""
    command = [sys.executable, "-S", str(HERE / "v2_model.py"), "--version", version, *flags]
    return {
        "apiVersion": "coalmine.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "m", "version": version, "protocol": "v2"},
            "analysis": {"metrics": []},
            "strategy": {"canary": {"scaleDownDelay": "0s"}},
            "template": {"spec": {"containers": [{"name": "model", "command": command, **(container or {})}]}},
            **spec,
        },
    }


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "fraud.yaml"
        self.state = folder / "state"
        self.port = free_port()
        self.platform: LocalPlatform
        self.runtime: Runtime

    def write(self, *documents: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump_all(documents))

    @contextlib.asynccontextmanager
    async def running(self, *, leave: bool = False, **options: Any) -> AsyncIterator[World]:
        self.platform = LocalPlatform(self.file, self.state, port=self.port, **options)
        await self.platform.start()
        self.runtime = Runtime(self.platform)
        self.runtime.start()
        try:
            yield self
        finally:
            await self.runtime.stop()
            await self.platform.stop(leave=leave)
            if not leave:
                assert self.processes() == []

    def start_runner(self) -> subprocess.Popen[bytes]:
        """`running`, in another process."""
        with (self.folder / "runner.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, str(HERE / "platform_runner.py"), str(self.file), str(self.state), str(self.port)],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    # What it sees

    def view(self, key: str = KEY) -> View:
        found = self.runtime.view(key)
        assert found is not None
        return found

    def pods(self, key: str = KEY) -> list[PodView]:
        return self.platform.pods(key)

    def pod_records(self, key: str = "fraud") -> list[dict[str, Any]]:
        """As they stand on the disk."""
        return [json.loads(path.read_text()) for path in sorted(self.state.glob(f"{key}/pods/*/pod.json"))]

    def routing(self, key: str = "fraud") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / key / "routing.json").read_text())
        return found

    def endpoints(self) -> list[str]:
        return [endpoint for revision in self.routing()["revisions"] for endpoint in revision["endpoints"]]

    def processes(self) -> list[int]:
        """Models and sidecars that run, by their mark; zombies are nobody's."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                marked = f":{self.state}/" in process.environ().get(MARK, "")
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    # What it waits for

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not _true(condition):  # noqa: ASYNC110 - the world outside sends no event
                    await asyncio.sleep(0.02)
        except TimeoutError:
            seen = self.runtime.view(KEY) if hasattr(self, "runtime") else None
            raise AssertionError(f"never: {what or condition}; {seen and seen.status}") from None

    async def healthy(self, version: str = "v1", ready: int = 1) -> None:
        """`version` is stable and alone, and all its pods are in the routing file."""

        def so() -> bool:
            status = self.view().status
            assert status.stable
            return (
                status.phase == "Healthy"
                and status.stable.version == version
                and len(self.pods()) == ready == sum(pod.ready for pod in self.pods()) == len(self.endpoints())
            )

        await self.until(so, f"{version} healthy")

    async def infer(self, port: int | None = None, **parameters: Any) -> dict[str, Any]:
        """One request through the ingress. Raises aiohttp.ClientError, or AssertionError unless the answer is a 200."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{port or self.port}/v2/models/m/infer", json={"inputs": []}) as answer,
        ):
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = await answer.json()
            return found


def _true(condition: Callable[[], Any]) -> bool:
    """Conditions look at a world in motion: what is not there yet is not true yet."""
    try:
        return bool(condition())
    except (AssertionError, LookupError, OSError, ValueError):
        return False


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, 9)
