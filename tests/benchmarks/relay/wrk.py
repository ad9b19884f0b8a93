"""The load: wrk on the other core, with its figures as JSON."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .machine import BenchError, cores
from .peers import Peer

_LUA = """
local file = io.open("{body}", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/json"
{more}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nFIGURES {{"requests": %d, "micros": %d, "errors": %d, "p50": %d, "p99": %d, "p999": %d, "max": %d}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
"""
_CLOSE = 'wrk.headers["Connection"] = "close"'
_PAUSED = "delay = function() return math.random({low}, {high}) end"


@dataclass
class Load:
    """What wrk sends. `pause_ms`: mean time between an answer and the next request of a connection."""

    path: str
    body: bytes
    close: bool = False
    pause_ms: int = 0


@dataclass
class Figures:
    """Of one peer in one round. Microseconds; `cpu_us` of the proxy's processes for each request."""

    rps: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    cpu_us: float
    rss_mb: float


def script(load: Load, at: Path) -> Path:
    """What wrk is told of a load, in files beginning with `at`."""
    body, file = at.with_suffix(".body"), at.with_suffix(".lua")
    body.write_bytes(load.body)
    low, high = load.pause_ms // 2, load.pause_ms + load.pause_ms // 2
    more = _CLOSE if load.close else _PAUSED.format(low=low, high=high) if load.pause_ms else ""
    file.write_text(_LUA.format(body=body, more=more))
    return file


def drive(peer: Peer, load: Load, connections: int, seconds: float, folder: Path) -> Figures:
    """Raises BenchError where a request fails."""
    file = script(load, folder / "load")
    # wrk takes whole seconds only, and is timed by what it says of itself.
    flags = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(file)]
    command = ["taskset", "-c", str(cores()[1]), "wrk", *flags, f"http://127.0.0.1:{peer.port}{load.path}"]
    before = peer.cpu_seconds()
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu = peer.cpu_seconds() - before
    _, found, text = output.partition("\nFIGURES ")
    if not found:
        raise BenchError(f"{peer.name}: wrk wrote no figures: {output[-300:]}")
    seen = json.loads(text)
    if seen["errors"] or not seen["requests"]:
        raise BenchError(f"{peer.name}, {load.path}, {connections} connections: {output}")
    return Figures(
        rps=seen["requests"] / seen["micros"] * 1e6,
        p50_us=seen["p50"],
        p99_us=seen["p99"],
        p999_us=seen["p999"],
        max_us=seen["max"],
        cpu_us=cpu / seen["requests"] * 1e6,
        rss_mb=peer.rss_mb(),
    )
