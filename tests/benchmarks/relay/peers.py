"""Who takes part: the sidecar, the proxies beside it, and the model behind them all."""

from __future__ import annotations

import compileall
import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.lab.run import LabError
from tests.compiled import compiled

from . import configs, queue_proxy
from .machine import PYTHON, ROOT, BenchError, Usage, cores, free_ports, python_path, running, tool, wait_for
from .messages import ANSWER, MONITORED_ANSWER, MONITORED_PATH, tensor

DIRECT, NGINX, HAPROXY, QUEUE_PROXY, PLAIN, COALMINE = PEERS = (
    "direct", "nginx", "haproxy", "queue-proxy", "aiohttp", "coalmine",
)  # fmt: skip

#: The file that the sidecar is told of.
ROUTING = "routing.json"


@dataclass
class Peer:
    """`usage` is of the proxy; `direct`, which is none, has None. `rss_idle_mb`: before its first request."""

    name: str
    port: int
    usage: Usage | None
    rss_idle_mb: float = 0.0
    admin: int = 0

    def cpu_seconds(self) -> float:
        return self.usage.cpu_seconds() if self.usage else 0.0

    def rss_mb(self) -> float:
        return self.usage.rss_mb() if self.usage else 0.0

    def snapshot(self) -> dict[str, Any]:
        """The sidecar's own counts."""
        return json.loads(self.get("/snapshot"))

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=30) as reply:
            return reply.read()


@dataclass
class Lab:
    """One model, the peers in front of it, and a folder for their files."""

    folder: Path
    peers: list[Peer]

    def peer(self, name: str) -> Peer:
        return next(peer for peer in self.peers if peer.name == name)


@contextmanager
def lab(
    folder: Path,
    names: Sequence[str],
    *,
    model: str,
    sidecar_flags: Sequence[str] = (),
    monitoring: dict[str, object] | None = None,
) -> Iterator[Lab]:
    """`model`: `nginx`, answering from its configuration, or `python`, that of `model.py`. Direct is always there.

    `monitoring`: of the sidecar's routing file.
    """
    proxy_core, other_core = cores()
    with ExitStack() as stack:
        (upstream,) = free_ports(1)
        log = folder / f"model-{model}.out"
        stack.enter_context(running(_model(model, folder, upstream), other_core, log))
        wait_for(upstream, log)
        peers = [Peer(DIRECT, upstream, None)]
        for name in names:
            if name == DIRECT:
                continue
            port, admin, local = free_ports(3)
            command, environment = _COMMANDS[name](folder, port, upstream)
            if name == COALMINE:
                command += [f"--admin=127.0.0.1:{admin}", f"--local=127.0.0.1:{local}", *sidecar_flags]
                if monitoring is not None:
                    document = configs.routing(upstream) | {"monitoring": monitoring}
                    (folder / ROUTING).write_text(json.dumps(document))
            log = folder / f"{name}.out"
            process = stack.enter_context(running(command, proxy_core, log, environment))
            wait_for(port, log)
            usage = Usage(process)
            peers.append(Peer(name, port, usage, usage.rss_mb(), admin))
        yield Lab(folder, peers)


def _model(kind: str, folder: Path, port: int) -> list[str | Path]:
    if kind == "python":
        return [sys.executable, "-m", "tests.benchmarks.relay.model", str(port)]
    (folder / "tensor.json").write_bytes(tensor("outputs"))
    body = configs.NGINX_MODEL.format(
        port=port,
        answer=ANSWER.decode(),
        folder=folder,
        monitored=MONITORED_ANSWER.decode(),
        monitored_path=MONITORED_PATH,
    )
    return _nginx_command(folder, "model", body)


def _nginx_command(folder: Path, name: str, body: str) -> list[str | Path]:
    file = folder / f"{name}.conf"
    file.write_text(configs.NGINX.format(folder=folder, name=name, body=body))
    return [tool("nginx") or "nginx", "-c", file]


_Command = tuple[list[str | Path], dict[str, str]]


def _nginx(folder: Path, port: int, upstream: int) -> _Command:
    return _nginx_command(folder, "proxy", configs.NGINX_PROXY.format(port=port, upstream=upstream)), {}


def _haproxy(folder: Path, port: int, upstream: int) -> _Command:
    file = folder / "haproxy.cfg"
    file.write_text(configs.HAPROXY.format(port=port, upstream=upstream))
    return [tool("haproxy") or "haproxy", "-f", file], {}


def _queue_proxy(folder: Path, port: int, upstream: int) -> _Command:
    return [queue_proxy.build()], queue_proxy.environment(port, upstream)


def _plain(folder: Path, port: int, upstream: int) -> _Command:
    return [PYTHON, "-m", "tests.benchmarks.relay.plain", str(port), str(upstream)], python_path()


def _coalmine(folder: Path, port: int, upstream: int) -> _Command:
    file = folder / ROUTING
    file.write_text(json.dumps(configs.routing(upstream)))
    command = [PYTHON, "-m", "coalmine_sidecar", f"--routing={file}", "--revision=a", "--pod=p"]
    # As in its image.
    environment = {"MALLOC_ARENA_MAX": "2", **python_path(sidecar())}
    return [*command, f"--model=127.0.0.1:{upstream}", f"--ingress=127.0.0.1:{port}"], environment


def sidecar() -> Path:
    """The folder that its package is in; two minutes the first time. Raises BenchError where it can't be compiled."""
    if os.environ.get("BENCH_INTERPRETED"):
        compileall.compile_dir(ROOT / "sidecar", quiet=1)
        return ROOT / "sidecar"
    try:
        return compiled()
    except LabError as error:
        raise BenchError(f"{error}; BENCH_INTERPRETED=1 does without a compiler") from error


_COMMANDS: dict[str, Callable[[Path, int, int], _Command]] = {
    NGINX: _nginx, HAPROXY: _haproxy, QUEUE_PROXY: _queue_proxy, PLAIN: _plain, COALMINE: _coalmine,
}  # fmt: skip
