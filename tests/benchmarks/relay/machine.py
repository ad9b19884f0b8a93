"""The bench's machine: two cores kept awake, programs that run on one of them, what they take."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

#: Programs that Debian has; the first ones are in packages of their names.
TOOLS = ("nginx", "haproxy", "wrk", "taskset")
ROOT = Path(__file__).resolve().parents[3]
#: Seconds a program may take to listen.
PATIENCE = 20.0


def _interpreter() -> str:
    """Debian's Python, where it is of our version: optimised as images have it, and builds differ by a fifth."""
    debian = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    return os.environ.get("BENCH_PYTHON") or (debian if Path(debian).exists() else sys.executable)


#: Who runs the sidecar and the plain proxy.
PYTHON = _interpreter()


class BenchError(Exception):
    """The bench can't go on; the message is one line that says why."""


def tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def missing() -> str:
    """What keeps the bench from running here; "" if nothing does."""
    absent = [name for name in TOOLS if tool(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (make tools)"
    if len(os.sched_getaffinity(0)) < 2:
        return "it takes two cores, one of them for the proxy under test alone"
    return ""


def python_path(*first: Path) -> dict[str, str]:
    """For another interpreter of the same version: `first`, our packages, and not our standard library."""
    folders = [folder for folder in sys.path if "site-packages" in folder or str(ROOT) in folder]
    return {"PYTHONPATH": os.pathsep.join([*map(str, first), *folders])}


def cores() -> tuple[int, int]:
    """The proxy's core, and the one of its upstream and its load."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    return first, second


@contextmanager
def awake() -> Iterator[None]:
    """Keep both cores from sleeping, by processes that run only when nobody else would.

    A virtual core is put to sleep by its hypervisor, and waking it can take longer than any proxy takes.
    """
    with ExitStack() as stack:
        for core in cores():
            pin = f"os.sched_setaffinity(0, {{{core}}}); os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))"
            spin = f"import os; {pin}\nwhile os.getppid() == {os.getpid()}: pass"
            process = subprocess.Popen([sys.executable, "-c", spin])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]


@contextmanager
def running(
    command: Sequence[str | Path], core: int, output: Path, environment: Mapping[str, str] | None = None
) -> Iterator[psutil.Process]:
    """A program pinned to a core. Ended at once with its children: none of these has anything to save."""
    words = ["taskset", "-c", str(core), *map(str, command)]
    with output.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, cwd=ROOT, env={**os.environ, **(environment or {})})
    try:
        yield psutil.Process(process.pid)
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait(60)


def wait_for(port: int, output: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BenchError(f"nothing listens on port {port} ({output.stem}): {output.read_text()[-500:]}")


class Usage:
    """CPU and memory of a process and its children. The same number of processes must live from look to look."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process

    def cpu_seconds(self) -> float:
        """By the scheduler's own clock, in nanoseconds: /proc/PID/stat counts in hundredths of a second."""
        return sum(
            int(Path(f"/proc/{process.pid}/task/{thread.id}/schedstat").read_text().split()[0]) / 1e9
            for process in self._all()
            for thread in process.threads()
        )

    def rss_mb(self) -> float:
        return sum(process.memory_info().rss for process in self._all()) / 1e6

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]
