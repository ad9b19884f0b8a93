"""The relay against nginx and haproxy, in one run on one machine: `python -m tests.benchmarks.relay`.

One core for the proxy under test, the other one for its upstream (nginx answering from its configuration) and the
load (wrk). The proxies take turns in short rounds; each figure is the median of its rounds. The sidecar records
every prediction, and the run fails if it skipped any. What a noisy machine does to the figures it does to all.

A core that has nothing to do is put to sleep, a virtual one by its hypervisor, and waking it can take longer than any
proxy: processes of idle priority keep both awake, for all proxies alike. They run only when nobody else would.

`BENCH_JSON=FILE` writes the figures to a file; BENCH_SECONDS and BENCH_ROUNDS (3 and 5) make the run longer.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil

CASE = "95-byte POST, 130-byte JSON answer"
CONNECTIONS = (1, 32)
SECONDS = int(os.environ.get("BENCH_SECONDS", "3"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
PATH = "/v2/models/m/infer"

REQUEST = b'{"inputs":[{"name":"x","shape":[1,6],"datatype":"FP64","data":[0.1,0.2,0.3,0.4,0.5,0.6]}]}'.ljust(95)
ANSWER = (
    b'{"model_name":"m","model_version":"1","id":"1234",'
    b'"outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.25]}]}'
).ljust(130)

NGINX = """
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  client_body_temp_path {folder}/{name}.b; proxy_temp_path {folder}/{name}.p; fastcgi_temp_path {folder}/{name}.f;
  uwsgi_temp_path {folder}/{name}.u; scgi_temp_path {folder}/{name}.s;
  {body}
}}
"""
NGINX_UPSTREAM = """
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type application/json; return 200 '{answer}'; }} }}"""
NGINX_PROXY = """
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
"""
HAPROXY = """
global
  nbthread 1
  maxconn 2000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  http-reuse always
frontend in
  bind 127.0.0.1:{port}
  default_backend model
backend model
  server one 127.0.0.1:{upstream}
"""
LUA = """
wrk.method = "POST"
wrk.body = '{body}'
wrk.headers["Content-Type"] = "application/json"
"""


@dataclass
class Figures:
    case: str
    proxy: str
    connections: int
    rps: float
    p50_us: float
    p99_us: float
    cpu_us_per_request: float
    rss_mb: float


@dataclass
class Proxy:
    name: str
    port: int
    process: psutil.Process | None = None

    def processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)] if self.process else []

    def cpu_seconds(self) -> float:
        return sum(t.user + t.system for t in (p.cpu_times() for p in self.processes()))

    def rss(self) -> int:
        return sum(p.memory_info().rss for p in self.processes())


def main() -> int:
    missing = [name for name in ("nginx", "haproxy", "wrk", "taskset") if _tool(name) is None]
    if missing:
        print(f"benchmark skipped: not installed: {', '.join(missing)} (Debian: apt-get install nginx haproxy wrk)")
        return 0
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("benchmark skipped: it takes two cores, one of them for the proxy under test alone")
        return 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coalmine-bench-")))
        for core in cores[:2]:
            stack.enter_context(_awake(core))
        proxies = _start(stack, folder, proxy_core=cores[0], other_core=cores[1])
        (folder / "post.lua").write_text(LUA.format(body=REQUEST.decode()))
        rounds: dict[tuple[str, int], list[Figures]] = {}
        for number in range(ROUNDS):
            for connections in CONNECTIONS:
                # Another order each round: who comes after whom must not matter.
                for proxy in proxies[number % len(proxies) :] + proxies[: number % len(proxies)]:
                    figures = _measure(proxy, connections, folder, cores[1])
                    rounds.setdefault((proxy.name, connections), []).append(figures)
        recorded = _recorded(next(p for p in proxies if p.name == "coalmine"), folder)
    cases = [_median(figures) for figures in rounds.values()]
    ratios = _ratios({(f.proxy, f.connections): f for f in cases})
    _print(cases, ratios, recorded)
    if target := os.environ.get("BENCH_JSON"):
        Path(target).write_text(json.dumps({"cases": [asdict(f) for f in cases], "ratios": ratios}, indent=1) + "\n")
    return 0 if recorded == 1.0 else 1


@contextmanager
def _awake(core: int) -> Iterator[None]:
    """Keep a core from sleeping."""
    pin = f"os.sched_setaffinity(0, {{{core}}}); os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))"
    process = subprocess.Popen([sys.executable, "-c", f"import os; {pin}\nwhile os.getppid() == {os.getpid()}: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _start(stack: ExitStack, folder: Path, *, proxy_core: int, other_core: int) -> list[Proxy]:
    ports = _free_ports(6)
    upstream, nginx, haproxy, ingress, local, admin = ports
    answer = NGINX_UPSTREAM.format(port=upstream, answer=ANSWER.decode())
    _write_nginx(folder, "upstream", answer)
    _write_nginx(folder, "proxy", NGINX_PROXY.format(upstream=upstream, port=nginx))
    (folder / "haproxy.cfg").write_text(HAPROXY.format(upstream=upstream, port=haproxy))
    revision = {"name": "r", "version": "1", "track": "stable", "weight": 100, "endpoints": []}
    routing = {"deployment": "d", "model": "m", "generation": 1, "revisions": [revision]}
    (folder / "routing.json").write_text(json.dumps(routing))
    (folder / "admin").write_text(str(admin))
    listen = {"ingress": ingress, "local": local, "admin": admin}
    commands = {
        "direct": (upstream, other_core, [_tool("nginx"), "-c", f"{folder}/upstream.conf"]),
        "nginx": (nginx, proxy_core, [_tool("nginx"), "-c", f"{folder}/proxy.conf"]),
        "haproxy": (haproxy, proxy_core, [_tool("haproxy"), "-f", f"{folder}/haproxy.cfg"]),
        "coalmine": (
            ingress,
            proxy_core,
            [
                *(
                    sys.executable,
                    "-m",
                    "coalmine_sidecar",
                    f"--routing={folder}/routing.json",
                    "--revision=r",
                    "--pod=p",
                ),
                f"--model=127.0.0.1:{upstream}",
                *(f"--{role}=127.0.0.1:{port}" for role, port in listen.items()),
            ],
        ),
    }
    proxies = []
    for name, (port, core, command) in commands.items():
        process = stack.enter_context(_running([str(part) for part in command], core, folder / f"{name}.out"))
        _wait_for(port, folder / f"{name}.out")
        proxies.append(Proxy(name, port, psutil.Process(process.pid) if name != "direct" else None))
    return proxies


def _write_nginx(folder: Path, name: str, body: str) -> None:
    (folder / f"{name}.conf").write_text(NGINX.format(folder=folder, name=name, body=body))


@contextmanager
def _running(command: list[str], core: int, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as out:
        process = subprocess.Popen(["taskset", "-c", str(core), *command], stdout=out, stderr=out)
    try:
        yield process
    finally:
        # SIGTERM to nginx's master ends its worker as well.
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [int(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _wait_for(port: int, output: Path) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit(f"benchmark: nothing listens on port {port}: {output.read_text()}")


def _measure(proxy: Proxy, connections: int, folder: Path, core: int) -> Figures:
    before = proxy.cpu_seconds()
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", f"{folder}/post.lua"]
    url = f"http://127.0.0.1:{proxy.port}{PATH}"
    output = subprocess.run(["taskset", "-c", str(core), *wrk, url], capture_output=True, text=True, check=True).stdout
    cpu = proxy.cpu_seconds() - before
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"benchmark: {proxy.name}: {output}")
    requests = int(_find(r"(\d+) requests in", output))
    return Figures(
        CASE,
        proxy.name,
        connections,
        rps=float(_find(r"Requests/sec:\s+([\d.]+)", output)),
        p50_us=_micros(_find(r"^ +50% +(\S+)", output)),
        p99_us=_micros(_find(r"^ +99% +(\S+)", output)),
        cpu_us_per_request=cpu / requests * 1e6,
        rss_mb=proxy.rss() / 1e6,
    )


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise SystemExit(f"benchmark: wrk wrote no {pattern!r}: {text}")
    return match[1]


def _micros(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr] # wrk's own format
    return float(number) * {"us": 1.0, "ms": 1e3, "s": 1e6}[unit]


def _median(rounds: list[Figures]) -> Figures:
    def of(value: Callable[[Figures], float]) -> float:
        return round(median(map(value, rounds)), 2)

    return Figures(
        CASE,
        rounds[0].proxy,
        rounds[0].connections,
        of(lambda f: f.rps),
        of(lambda f: f.p50_us),
        of(lambda f: f.p99_us),
        of(lambda f: f.cpu_us_per_request),
        of(lambda f: f.rss_mb),
    )


def _ratios(by: dict[tuple[str, int], Figures]) -> dict[str, float]:
    """Of the sidecar to each other proxy; added latency is through the proxy minus direct, in the same run."""
    ours, ratios = "coalmine", {}
    for other in ("nginx", "haproxy"):
        ratios[f"rps_vs_{other}_c32"] = by[ours, 32].rps / by[other, 32].rps
        ratios[f"cpu_vs_{other}_c32"] = by[ours, 32].cpu_us_per_request / by[other, 32].cpu_us_per_request
        added = [by[name, 1].p50_us - by["direct", 1].p50_us for name in (ours, other)]
        ratios[f"added_p50_vs_{other}_c1"] = added[0] / max(added[1], 1.0)
    return {name: round(value, 3) for name, value in ratios.items()}


def _recorded(proxy: Proxy, folder: Path) -> float:
    """The share of answers whose outputs were counted."""
    admin = (folder / "admin").read_text()
    time.sleep(0.5)
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/snapshot", timeout=10) as reply:
        counts = json.load(reply)["epochs"][""]["r"]
    return sum(counts["outputs"]["p"]["bins"]) / counts["answered"]


def _print(cases: list[Figures], ratios: dict[str, float], recorded: float) -> None:
    print(f"\n{CASE}; median of {ROUNDS} rounds of {SECONDS} s, proxies in turn")
    print("requests/s: counted by wrk, the proxy pinned to one core, upstream and wrk to the other;")
    print("CPU: user and system time of the proxy's processes by request (of nginx direct: not measured)\n")
    print(f"{'proxy':<10}{'conns':>6}{'requests/s':>12}{'p50 us':>9}{'p99 us':>9}{'CPU us/req':>12}{'RSS MB':>8}")
    for f in sorted(cases, key=lambda f: (f.connections, f.proxy)):
        cpu, rss = (f"{f.cpu_us_per_request:.1f}", f"{f.rss_mb:.0f}") if f.proxy != "direct" else ("", "")
        print(f"{f.proxy:<10}{f.connections:>6}{f.rps:>12.0f}{f.p50_us:>9.0f}{f.p99_us:>9.0f}{cpu:>12}{rss:>8}")
    print()
    for name, value in ratios.items():
        print(f"{name:<26}{value:>8.2f}")
    print(f"{'predictions recorded':<26}{recorded:>8.1%}")
    print(f"\ngoals: rps_vs_nginx_c32 >= 0.4 and added_p50_vs_nginx_c1 <= 2: {_verdict(ratios)}")


def _verdict(ratios: dict[str, float]) -> str:
    return "reached" if ratios["rps_vs_nginx_c32"] >= 0.4 and ratios["added_p50_vs_nginx_c1"] <= 2 else "missed"


if __name__ == "__main__":
    sys.exit(main())
