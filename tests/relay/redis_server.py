"""A real redis-server on a free loopback port, which can go away and come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.relay.harness import free_port

PASSWORD = "a-password-of-redis"
_MISSING = "redis-server is not installed (Debian: apt-get install redis-server)"


class RedisServer:
    """Keeps what it holds in `folder` when it is stopped, as servers do that are restarted."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        options = {
            "--port": str(self.port),
            "--bind": "127.0.0.1",
            "--requirepass": PASSWORD,
            "--dir": str(self._folder),
            "--appendonly": "yes",
            "--appendfsync": "always",
            "--save": "",
            "--maxmemory": "64mb",
        }
        words = [word for pair in options.items() for word in pair]
        self._process = await asyncio.create_subprocess_exec(
            self._program, *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        for _ in range(1000):
            assert self._process.returncode is None, "redis-server ended"
            if b"PONG" in await self.ask("PING"):
                return
            await asyncio.sleep(0.02)
        pytest.fail("redis-server does not answer")

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            await process.wait()

    async def ask(self, *commands: str) -> bytes:
        """What it says to inline commands; empty while it is away."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            lines = [f"AUTH {PASSWORD}", *commands, "QUIT"]
            writer.write("".join(f"{line}\r\n" for line in lines).encode())
            said = await reader.read()
            writer.close()
            return said
        return b""


@contextlib.asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail(_MISSING)
        pytest.skip(_MISSING)
    server = RedisServer(program, folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
