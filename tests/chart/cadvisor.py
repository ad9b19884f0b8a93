"""Answers Prometheus for a kubelet: what a real one said of one container (cadvisor.txt), told of any pod, growing."""

from __future__ import annotations

import contextlib
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

_SAMPLE: Final = re.compile(r"(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+) \d+")
_SAID: Final = Path(__file__).with_name("cadvisor.txt")
#: Seconds in which a counter grows by what it had.
_GROWS: Final = 10.0


def exposition(said: str, pod: dict[str, str], now: float, running: float) -> str:
    """`said` of another pod at another time. `pod`: its labels; `running`: for how many seconds counters have grown."""
    lines = []
    for line in said.splitlines():
        sample = _SAMPLE.fullmatch(line)
        if sample is None:
            lines.append(line)
            continue
        name, labels, value = sample["name"], sample["labels"], float(sample["value"])
        for label, text in pod.items():
            labels = re.sub(rf'\b{label}="[^"]*"', f'{label}="{text}"', labels)
        if name.endswith("_total"):
            value *= 1 + running / _GROWS
        lines.append(f"{name}{{{labels}}} {value:.6g} {now * 1000:.0f}")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def kubelet() -> Iterator[int]:
    """Its port: GET /metrics/cadvisor?namespace=…&pod=…"""
    said, began = _SAID.read_text(), time.time()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pod = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
            now = time.time()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            self.wfile.write(exposition(said, pod, now, now - began).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
