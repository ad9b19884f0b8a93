"""A sidecar as a process of its own, and load on it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.relay.harness import Client, post

from coalmine_sidecar.contract import Routing, encode_routing


def replace(path: Path, routing: Routing | bytes) -> None:
    """As the operator does: a new file, renamed over the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(routing if isinstance(routing, bytes) else encode_routing(routing))
    fresh.replace(path)


class Sidecar:
    def __init__(self, process: asyncio.subprocess.Process, ports: dict[str, int]) -> None:
        self.process = process
        self.ingress, self.local, self.admin = ports["ingress"], ports["local"], ports["admin"]

    async def get(self, path: str) -> tuple[int, bytes]:
        """From the admin port."""

        def fetch() -> tuple[int, bytes]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as reply:
                    return reply.status, reply.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read()

        return await asyncio.to_thread(fetch)

    async def snapshot(self) -> dict[str, Any]:
        return json.loads((await self.get("/snapshot"))[1])

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, seconds: float = 15.0) -> tuple[int, str]:
        """Its exit status and what it wrote."""
        _, errors = await asyncio.wait_for(self.process.communicate(), seconds)
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()


@asynccontextmanager
async def sidecar(
    routing: Path,
    model: int,
    *flags: str,
    revision: str = "a",
    ingress: socket.socket | None = None,
    local: socket.socket | None = None,
    **environment: str,
) -> AsyncIterator[Sidecar]:
    """All its sockets are inherited, so that it can be spoken to before it listens."""
    sockets = {"local": local or listening(), "admin": listening(), "ingress": ingress or listening()}
    addresses = [f"--{role}=fd:{opened.fileno()}" for role, opened in sockets.items()]
    process = await start(
        *addresses,
        f"--routing={routing}",
        f"--revision={revision}",
        "--pod=p",
        f"--model=127.0.0.1:{model}",
        *flags,
        pass_fds=tuple(opened.fileno() for opened in sockets.values()),
        **environment,
    )
    ports = {role: opened.getsockname()[1] for role, opened in sockets.items()}
    for opened in sockets.values():
        if opened not in (ingress, local):
            opened.close()
    running = Sidecar(process, ports)
    try:
        assert (await running.get("/healthz"))[0] == 200
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        # What a test that failed has begun to read is not read twice.
        with suppress(TimeoutError):
            await asyncio.wait_for(process.communicate(), 5)


async def start(*flags: str, pass_fds: tuple[int, ...] = (), **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "coalmine_sidecar",
        *flags,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=pass_fds,
        env=os.environ | environment,
    )


def listening() -> socket.socket:
    opened = socket.socket()
    opened.bind(("127.0.0.1", 0))
    opened.listen(512)
    return opened


class Load:
    """Clients on keep-alive connections that make no allowances: each request has to be answered with 200."""

    def __init__(self, port: int, clients: int = 4, body: bytes = b"{}") -> None:
        self.answered: Counter[str | None] = Counter()
        self.errors: list[str] = []
        self._port = port
        self._body = body
        self._stopping = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(clients)]

    @property
    def total(self) -> int:
        return sum(self.answered.values())

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _run(self) -> None:
        client: Client | None = None
        while not self._stopping:
            try:
                if client is None:
                    client = await Client.connect(self._port)
                reply = await client.ask(post(self._body))
            except (OSError, asyncio.IncompleteReadError) as error:
                self.errors.append(repr(error))
                client = None
                continue
            if reply.status == 200:
                self.answered[reply.revision] += 1
            else:
                self.errors.append(f"{reply.status} {reply.body!r}")
            if reply.header("connection") == "close":
                await client.close()
                client = None
        if client is not None:
            await client.close()
