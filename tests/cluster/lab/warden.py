"""Starts a node and cleans up behind it; the one process of a node that is outside its namespaces.

    python -m tests.cluster.lab.warden

It holds the other end of its owner's pipe (standard input): when the owner is gone, however it went, the pipe closes
and the node ends. Should the warden itself be killed, the kernel kills the node with it; folders and empty control
groups that are left then are removed by the next start (`sweep`). Says one line on standard output:
`ready SECONDS FOLDER`, or `failed: WHY`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import cgroups
from .build import programs
from .cache import CACHE, PROJECT, locked
from .config import write_config
from .layout import Layout
from .pki import write_certificates

NODES = CACHE / "nodes"
#: The logs of the last node that ended, for a look after a failure.
LAST_LOGS = CACHE / "last-node-logs"
STARTING = 120.0  # seconds until a node that is not ready is given up
NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts")


@contextlib.contextmanager
def own_folder() -> Iterator[Layout]:
    """A folder for a node, locked and removed with its control groups on leaving.

    What dead wardens left is removed first.
    """
    NODES.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with locked("nodes"):
            sweep()
            layout = Layout(Path(tempfile.mkdtemp(dir=NODES, prefix="node-")))
            fcntl.flock(stack.enter_context(layout.lock.open("w")), fcntl.LOCK_EX)
        stack.callback(leave, layout)
        for folder in layout.folders():
            folder.mkdir()
        yield layout


def sweep() -> None:
    """Remove folders and control groups of nodes whose warden is dead. The caller holds the lock `nodes`."""
    for folder in NODES.iterdir():
        layout = Layout(folder)
        with contextlib.suppress(BlockingIOError), layout.lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            forget(layout)


def leave(layout: Layout) -> None:
    with locked("nodes"):  # a sweep that met a half-removed folder would take it for a dead warden's
        forget(layout)


def forget(layout: Layout) -> None:
    """Remove what is left of a node whose processes are dead; only its logs stay. The caller holds the lock `nodes`."""
    cgroups.remove(layout.cgroup)
    if layout.logs.is_dir():
        shutil.rmtree(LAST_LOGS, ignore_errors=True)
        layout.logs.rename(LAST_LOGS)
    shutil.rmtree(layout.root)


def prepare(layout: Layout, gate_port: int) -> None:
    layout.programs.symlink_to(programs())
    write_certificates(layout.pki)
    write_config(layout, gate_port)
    cgroups.create(layout.cgroup)


def start(layout: Layout, gate: int) -> subprocess.Popen[bytes]:
    """The node's `unshare`; its only child is process 1 of the node. The kernel kills each with its parent."""
    node = [sys.executable, "-m", "tests.cluster.lab.node", str(layout.root), str(gate)]
    with layout.log("node").open("ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--fork", "--kill-child", "--mount-proc", *node],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=PROJECT,
            pass_fds=(gate,),
        )


def stop(node: subprocess.Popen[bytes]) -> None:
    """Kill process 1 of the node and wait for `unshare`: then the kernel has ended all the others too."""
    for child in Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split() if node.poll() is None else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        node.wait(10)
    node.kill()
    node.wait()


def owner_is_gone(patience: float) -> bool:
    """True as soon as the pipe closes or SIGTERM comes; False after `patience` seconds."""
    readable, _, _ = select.select([sys.stdin], [], [], patience)
    return bool(readable)


def watch(layout: Layout, node: subprocess.Popen[bytes]) -> None:
    """Say when the node is ready; return when it has ended or nobody wants it any more."""
    began = time.monotonic()
    said = False
    while node.poll() is None and not owner_is_gone(0.5 if said else 0.05):
        if not said and layout.ready.exists():
            print(f"ready {time.monotonic() - began:.1f} {layout.root}", flush=True)
            said = True
        if not said and time.monotonic() - began > STARTING:
            break
    if not said:
        last = layout.log("node").read_text(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        print(f"failed: {last[0]}; logs: {LAST_LOGS}", flush=True)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with own_folder() as layout, socket.create_server(("127.0.0.1", 0)) as door:
        prepare(layout, door.getsockname()[1])
        node = start(layout, door.fileno())
        try:
            watch(layout, node)
        finally:
            stop(node)


if __name__ == "__main__":
    main()
