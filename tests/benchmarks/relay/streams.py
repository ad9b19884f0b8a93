"""Server-sent events: what a proxy makes of 64 streams of 200 tokens, seen by a client on the model's core.

    python -m tests.benchmarks.relay.streams PORT STREAMS

A token carries the time at which the model wrote it, so its delay is that of both its ways and of the proxy. Straight
from the model it is that of one way: what is more is the proxy's.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median, quantiles

import uvloop

from .machine import BenchError, cores
from .model import TOKENS
from .peers import Peer

STREAMS = 64
_REQUEST = b"POST /stream HTTP/1.1\r\nHost: model\r\nContent-Length: 2\r\n\r\n{}"
_TOKEN = re.compile(rb"data: (\d+)\n\n")


@dataclass
class Streamed:
    """Microseconds. `coalesced`: tokens that came together with the one before; `cpu_us`: of the proxy, a token."""

    delay_p50_us: float
    delay_p99_us: float
    delay_max_us: float
    coalesced: int
    cpu_us: float


def drive(peer: Peer, streams: int = STREAMS) -> Streamed:
    """Raises BenchError where a token is missing."""
    command = ["taskset", "-c", str(cores()[1]), sys.executable, "-m", __name__, str(peer.port), str(streams)]
    before = peer.cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True)
    cpu = peer.cpu_seconds() - before
    if done.returncode:
        raise BenchError(f"{peer.name}: streams: {done.stderr.strip().splitlines()[-1]}")
    seen = json.loads(done.stdout)
    if seen["tokens"] != streams * TOKENS:
        raise BenchError(f"{peer.name}: {seen['tokens']} tokens of {streams * TOKENS} came")
    return Streamed(seen["p50"], seen["p99"], seen["max"], seen["coalesced"], cpu / seen["tokens"] * 1e6)


class _Client(asyncio.Protocol):
    def __init__(self, delays: list[float]) -> None:
        self.delays = delays
        self.coalesced = 0
        self.ended = asyncio.get_running_loop().create_future()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(_REQUEST)  # type: ignore[attr-defined] # uvloop's transports are no subclasses

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._rest += data
        end = 0
        tokens = 0
        for found in _TOKEN.finditer(self._rest):
            self.delays.append((now - int(found[1])) / 1e3)
            end = found.end()
            tokens += 1
        self._rest = self._rest[end:]
        self.coalesced += max(0, tokens - 1)
        if self._rest.endswith(b"\r\n0\r\n\r\n"):
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def _run(port: int, streams: int) -> dict[str, float]:
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Client(delays), "127.0.0.1", port))[1]
        for _ in range(streams)
    ]  # fmt: skip
    async with asyncio.timeout(60):
        await asyncio.gather(*(client.ended for client in clients))
    return {
        "tokens": len(delays),
        "p50": median(delays),
        "p99": quantiles(delays, n=100)[98],
        "max": max(delays),
        "coalesced": sum(client.coalesced for client in clients),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_run(int(sys.argv[1]), int(sys.argv[2])))))
