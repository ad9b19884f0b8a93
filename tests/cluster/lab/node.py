"""Process 1 of the node: sets up its namespaces, starts the components, starts those that end again.

    python -m tests.cluster.lab.node FOLDER GATE_FD

When this process dies, the kernel ends every process of the node, and with them its mounts and its network.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import cgroups
from .cache import PROJECT
from .config import GARBAGE, commands
from .containers import import_image
from .gate import gate_command
from .layout import API_PORT, NODE_ADDRESS, NODE_NAME, Layout
from .run import LabError, run

#: A component that ends more often than this, unasked, takes the node with it.
RESTARTS = 5
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
STARTING = 60.0  # seconds that a step of the start may take


def prepare_mounts(layout: Layout) -> None:
    """What the components write to /run and /var stays in the node; /etc/resolv.conf is the cluster's."""
    run("mount", "--make-rshared", "/")  # as on a real node: containers' mounts reach kubelet and back
    upper, work = layout.data / "var", layout.data / "var-work"
    upper.mkdir()
    work.mkdir()
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/var,upperdir={upper},workdir={work}", "/var")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    run("mount", "--bind", layout.resolv_conf, "/etc/resolv.conf")


def prepare_network() -> None:
    """One address of the node's own and a default route.

    Without a default route the kernel refuses a Service's address before kube-proxy's rules see the packet. An empty
    bridge serves as the link because kernels without dummy devices have bridges.
    """
    socket.sethostname(NODE_NAME)
    for words in (
        "ip link set lo up",
        "ip link add node0 type bridge",
        f"ip address add {NODE_ADDRESS}/32 dev node0",
        "ip link set node0 up",
        f"ip route add default dev node0 src {NODE_ADDRESS}",
        "sysctl -qw net.ipv4.ip_forward=1",
    ):
        run(*words.split())


class Components:
    """The node's processes, told from the orphans that process 1 inherits."""

    def __init__(self, layout: Layout, gate: int) -> None:
        self.layout = layout
        self.gate = gate
        self.commands = commands(layout) | {"gate": gate_command(gate, "127.0.0.1", API_PORT)}
        self.running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self.ended: list[str] = []
        self.restarts: dict[str, int] = {}

    def start(self, *names: str) -> None:
        for name in names:
            with self.layout.log(name).open("ab") as log:
                process = subprocess.Popen(
                    self.commands[name],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.layout.data,
                    env={**os.environ, **GARBAGE, "PATH": PATH, "PYTHONPATH": str(PROJECT)},
                    pass_fds=(self.gate,) if name == "gate" else (),
                )
            self.running[process.pid] = name, process
            (self.layout.pids / name).write_text(str(process.pid))

    def tend(self) -> None:
        """Collect what has ended; start components among it again, unless they are held.

        Raises LabError when one of them ends too often.
        """
        while self._collect():
            pass
        free = [name for name in self.ended if not (self.layout.held / name).exists()]
        for name in free:
            self.ended.remove(name)
            self.restarts[name] = self.restarts.get(name, 0) + 1
            if self.restarts[name] > RESTARTS:
                raise LabError(f"{name} ends again and again: see {self.layout.log(name)}")
            self.start(name)

    def _collect(self) -> bool:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid in self.running:
            name, process = self.running.pop(pid)
            process.returncode = os.waitstatus_to_exitcode(status)  # nothing is left for Popen to wait for
            print(f"{name} ended with {process.returncode}", file=sys.stderr, flush=True)
            self.ended.append(name)
        return pid != 0

    def until(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + STARTING
        while not done():
            self.tend()
            if time.monotonic() > deadline:
                raise LabError(f"{what}: not within {STARTING:g} s; see {self.layout.logs}")
            time.sleep(0.05)


class Api:
    """The API server, asked without the half second that a kubectl takes to start."""

    def __init__(self, layout: Layout) -> None:
        self.tls = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        self.tls.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")

    def get(self, path: str) -> bytes | None:
        """The answer's body, None while there is no good answer."""
        connection = http.client.HTTPSConnection(NODE_ADDRESS, API_PORT, context=self.tls, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except OSError:
            return None
        finally:
            connection.close()
        return body if answer.status == 200 else None

    def ready(self) -> bool:
        return self.get("/readyz") is not None

    def node_ready(self) -> bool:
        body = self.get(f"/api/v1/nodes/{NODE_NAME}")
        conditions = json.loads(body)["status"].get("conditions", []) if body else []
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def pods_allowed(self) -> bool:
        """A pod needs its namespace's default account, which the controllers make."""
        return self.get("/api/v1/namespaces/default/serviceaccounts/default") is not None


def start_node(components: Components) -> None:
    """Returns when the node is Ready and pods may come."""
    layout, api = components.layout, Api(components.layout)
    components.start("etcd", "containerd", "kube-apiserver", "gate")
    components.until("containerd", lambda: _containerd_answers(layout))
    import_image(layout, layout.programs / "pause.tar")
    components.until("the API server", api.ready)
    components.start("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns")
    components.until("the node", api.node_ready)
    components.until("the default account", api.pods_allowed)


def _containerd_answers(layout: Layout) -> bool:
    try:
        run("ctr", "--address", layout.socket, "version", timeout=10)
    except LabError:
        return False
    return True


def main() -> None:
    layout, gate = Layout(Path(sys.argv[1])), int(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # process 1 has no default reaction to signals
    cgroups.enter(layout.cgroup)
    prepare_mounts(layout)
    prepare_network()
    components = Components(layout, gate)
    start_node(components)
    layout.ready.touch()
    while True:
        components.tend()
        time.sleep(0.1)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(str(error))
