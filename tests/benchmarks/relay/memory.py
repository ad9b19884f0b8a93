"""Resident memory: with nothing to do, for each idle connection, and over a long load."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .cases import CASES
from .machine import BenchError, cores
from .peers import COALMINE, Peer, lab
from .wrk import script

IDLE = 1000
#: Seconds between two looks at a soak, and between two scrapes of what is soaked.
LOOK, SCRAPE = 1.0, 5.0
_REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: model\r\nContent-Length: 2\r\n\r\n{}"


def idle_connection_kb(peer: Peer, count: int = IDLE) -> float:
    """Of each of `count` connections that had one request answered and are kept. In the proxy, not in the kernel."""
    with ExitStack() as stack:

        def ask() -> None:
            opened = stack.enter_context(socket.create_connection(("127.0.0.1", peer.port), timeout=10))
            opened.sendall(_REQUEST)
            if not opened.recv(4096).startswith(b"HTTP/1.1 200"):
                raise BenchError(f"{peer.name}: a connection among {count} got no answer")

        for _ in range(20):
            ask()
        before = peer.rss_mb()
        for _ in range(count):
            ask()
        return (peer.rss_mb() - before) * 1e3 / count


@dataclass
class Soaked:
    """RSS at each look, MB. `growth_mb`: from the second quarter to the last one, medians."""

    seconds: float
    rss_mb: list[float]

    @property
    def growth_mb(self) -> float:
        quarter = len(self.rss_mb) // 4
        return median(self.rss_mb[-quarter:]) - median(self.rss_mb[quarter : 2 * quarter]) if quarter else 0.0


def soak(seconds: int, folder: Path, tell: Callable[[str], None]) -> Soaked:
    """The sidecar under full load on kept and on fresh connections, scraped and asked for snapshots meanwhile."""
    looks: list[float] = []
    with lab(folder, [COALMINE], model="nginx") as ours, ExitStack() as stack:
        peer = ours.peer(COALMINE)
        loads = []
        for case in CASES:
            if case.name in ("c32", "new_connection"):
                file = script(case.load, folder / case.name)
                command = ["taskset", "-c", str(cores()[1]), "wrk", "-t1", f"-c{case.connections}", f"-d{seconds}s"]
                url = f"http://127.0.0.1:{peer.port}{case.load.path}"
                load = subprocess.Popen([*command, "-s", str(file), url], stdout=subprocess.DEVNULL)
                stack.callback(load.wait)
                stack.callback(load.kill)
                loads.append(load)
        began = scraped = time.monotonic()
        while any(load.poll() is None for load in loads):
            time.sleep(LOOK)
            looks.append(peer.rss_mb())
            now = time.monotonic()
            if now - scraped >= SCRAPE:
                scraped = now
                peer.get("/metrics"), peer.get("/snapshot")
                tell(f"soak: {now - began:.0f} of {seconds} s, RSS {looks[-1]:.1f} MB")
    return Soaked(seconds, looks)
