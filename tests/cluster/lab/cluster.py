"""A cluster as tests see it: a node of our own, or the cluster that a kubeconfig of the user's names."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import urllib3

from . import cgroups
from .build import programs
from .cache import PROJECT
from .config import GARBAGE
from .containers import image_names, import_image, name_again
from .gate import gate_command
from .layout import Layout
from .run import LabError, run

T = TypeVar("T")

#: A command that puts its arguments into the pods' network, where a kubeconfig names the cluster, such as
#: `nsenter --target PID --net` of a kind node.
NET_COMMAND = "COALMINE_CLUSTER_NET"


class Cluster:
    """What any cluster can do. Every method that fails raises LabError with what the program said."""

    def __init__(self, api: Path, tools: Mapping[str, str]) -> None:
        #: The kubeconfig, for use on this machine.
        self.api = api
        self._tools = tools

    @property
    def environment(self) -> dict[str, str]:
        """In which a shell finds kubectl, helm and the cluster."""
        folders = dict.fromkeys(str(Path(program).parent) for program in self._tools.values())
        path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])
        return {**os.environ, "KUBECONFIG": str(self.api), "PATH": path}

    def kubectl(self, *words: str | Path, input: str | None = None, timeout: float = 60) -> str:
        return run(self._tools["kubectl"], *words, input=input, timeout=timeout, environment=self.environment)

    def helm(self, *words: str | Path, input: str | None = None, timeout: float = 120) -> str:
        return run(self._tools["helm"], *words, input=input, timeout=timeout, environment=self.environment)

    def apply(self, manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], namespace: str = "") -> str:
        """Server-side apply of YAML, of one object or of several."""
        if not isinstance(manifest, str):
            objects = [manifest] if isinstance(manifest, Mapping) else list(manifest)
            manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        where = ("--namespace", namespace) if namespace else ()
        return self.kubectl("apply", "--server-side", *where, "--filename", "-", input=manifest)

    def get(self, *words: str) -> Any:
        """`kubectl get WORDS` as decoded JSON."""
        return json.loads(self.kubectl("get", *words, "--output", "json"))

    def read(self, path: str) -> Any:
        """What the API server answers to a GET of `path`, decoded. For what is asked again and again.

        kubectl takes a fifth of a second of a core each time, which a test's clients and models miss.
        """
        return json.loads(self.kubectl("get", "--raw", path))

    def put(self, path: str, document: Mapping[str, Any]) -> None:
        """Server-side apply of the object at `path`, as kubectl sends it: for what tests apply again and again."""
        self.apply(document, re.findall("/namespaces/([^/]+)/", path)[0])

    def wait(self, check: Callable[[], T | None], what: str, timeout: float = 30, every: float = 0.1) -> T:
        """The first true answer of `check`. Raises LabError that says `what` did not happen within `timeout` seconds.

        A LabError of `check` is an answer that is not true yet; the last one is told.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                answer, last = check(), ""
            except LabError as error:
                answer, last = None, f": {error}"
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise LabError(f"{what}: not within {timeout:g} s{last}")
            time.sleep(every)

    def ready(self, namespace: str, *pods: str, timeout: float = 60) -> None:
        """Wait until the pods are Ready. Raises LabError with what happened in the namespace instead."""
        names = [f"pod/{pod}" for pod in pods]
        try:
            how = ("--for=condition=Ready", f"--timeout={timeout:g}s", "--namespace", namespace)
            self.kubectl("wait", *names, *how, timeout=timeout + 10)
        except LabError as error:
            raise LabError(f"{error}\n{self.happenings(namespace)}") from None

    def output(self, namespace: str, pod: str, timeout: float = 60) -> str:
        """What a pod that runs once has written. Raises LabError with that if it failed."""

        def phase() -> str | None:
            now: str = self.get(f"pod/{pod}", "--namespace", namespace)["status"]["phase"]
            return now if now in ("Succeeded", "Failed") else None

        ended = self.wait(phase, f"pod {pod} to end", timeout)
        said = self.kubectl("logs", pod, "--namespace", namespace)
        if ended == "Failed":
            raise LabError(f"pod {pod} failed: {said}")
        return said

    def happenings(self, namespace: str) -> str:
        """Pods and the last events of a namespace, for the message of a test that fails."""
        pods = self.kubectl("get", "pods", "--namespace", namespace, "--output", "wide")
        events = self.kubectl("events", "--namespace", namespace)
        return "\n".join([pods, *events.splitlines()[-20:]])

    def load(self, archive: Path) -> None:
        """Make the image in `archive` known to the cluster."""
        raise NotImplementedError

    def into_net(self, argv: Sequence[str | Path]) -> list[str]:
        """`argv` as it must be started to run among the pods: it reaches pod and Service addresses and names."""
        raise NotImplementedError

    def run_in_net(self, argv: Sequence[str | Path], input: str | None = None, timeout: float = 60) -> str:
        """What a program says that runs in the pods' network."""
        return run(*self.into_net(argv), input=input, timeout=timeout, folder=PROJECT)

    @contextlib.contextmanager
    def process_in_net(self, argv: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A program in the pods' network, such as a load generator; told to end on leaving. `options` are Popen's."""
        process = subprocess.Popen(self.into_net(argv), cwd=PROJECT, **options)
        with process:
            try:
                yield process
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()

    @contextlib.contextmanager
    def door(self, host: str, port: int) -> Iterator[int]:
        """A port of this machine's loopback that leads to `host:port` among the pods. For requests, not for load."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            command = gate_command(listening.fileno(), host, port)
            with self.process_in_net(command, pass_fds=(listening.fileno(),)):
                yield listening.getsockname()[1]


class ExternalCluster(Cluster):
    """The user's. Its images are loaded by the user, or can be pulled."""

    def __init__(self, kubeconfig: Path) -> None:
        names = ("kubectl", "helm")
        super().__init__(kubeconfig, {name: shutil.which(name) or str(programs() / name) for name in names})
        self._net = shlex.split(os.environ.get(NET_COMMAND, ""))

    def load(self, archive: Path) -> None:
        """Nothing: the user has done it."""

    def into_net(self, argv: Sequence[str | Path]) -> list[str]:
        if not self._net:
            raise LabError(f"set {NET_COMMAND} to a command that runs its arguments in the pods' network")
        return [*self._net, *map(str, argv)]


class NodeCluster(Cluster):
    """One node of our own."""

    def __init__(self, layout: Layout, seconds: float, warden: subprocess.Popen[str]) -> None:
        super().__init__(layout.kubeconfig, {name: str(layout.programs / name) for name in ("kubectl", "helm")})
        self.layout = layout
        #: From the start of its processes to Ready.
        self.seconds_to_ready = seconds
        self.warden = warden
        kubeconfig = json.loads(layout.kubeconfig.read_text())
        (server,) = (entry["cluster"] for entry in kubeconfig["clusters"])
        (user,) = (entry["user"] for entry in kubeconfig["users"])
        self._server = server["server"]
        tls = ssl.create_default_context(cafile=server["certificate-authority"])
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
        self._http = urllib3.PoolManager(ssl_context=tls, timeout=30, retries=False, maxsize=8)

    @property
    def environment(self) -> dict[str, str]:
        """What kubectl and helm remember of the node goes with it."""
        places = ("KUBECACHEDIR", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        return super().environment | GARBAGE | {place: f"{self.layout.data}/{place.lower()}" for place in places}

    def read(self, path: str) -> Any:
        return self._call("GET", path)

    def put(self, path: str, document: Mapping[str, Any]) -> None:
        how = "fieldManager=kubectl&fieldValidation=Strict"
        self._call("PATCH", f"{path}?{how}", json.dumps(document), {"Content-Type": "application/apply-patch+yaml"})

    def _call(self, method: str, path: str, body: str | None = None, head: Mapping[str, str] | None = None) -> Any:
        try:
            answer = self._http.request(method, f"{self._server}{path}", body=body, headers=head)
            found = answer.json()
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise LabError(f"{method} {path}: {error}") from error
        if answer.status not in (HTTPStatus.OK, HTTPStatus.CREATED):
            raise LabError(f"{method} {path}: {found.get('message', answer.reason)}")
        return found

    def load(self, archive: Path) -> None:
        import_image(self.layout, archive)

    def name_again(self, image: str, name: str) -> None:
        """Make an image known by another name as well."""
        name_again(self.layout, image, name)

    def images(self) -> list[str]:
        return image_names(self.layout)

    def into_net(self, argv: Sequence[str | Path]) -> list[str]:
        """The program dies with the thread that starts it; names are resolved by the cluster's DNS."""
        enter = ("nsenter", f"--net=/proc/{self.process('kubelet')}/ns/net")
        names = ("sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', self.layout.resolv_conf)
        words = ("setpriv", "--pdeathsig", "KILL", *enter, "unshare", "--mount", *names, *argv)
        return [str(word) for word in words]

    def process(self, component: str) -> int:
        """The component's process id, as seen on this machine."""
        inner = (self.layout.pids / component).read_text()
        for pid in cgroups.members(self.layout.cgroup):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if status.partition("\nNSpid:")[2].partition("\n")[0].split()[1:] == [inner]:
                    return pid
        raise LabError(f"{component} does not run: see {self.layout.log(component)}")

    @contextlib.contextmanager
    def without(self, component: str) -> Iterator[None]:
        """The component is killed, and started again on leaving."""
        hold = self.layout.held / component
        hold.touch()
        try:
            os.kill(self.process(component), signal.SIGKILL)
            yield
        finally:
            hold.unlink()


@contextlib.contextmanager
def node_cluster() -> Iterator[NodeCluster]:
    """A node from its first process to its last. Raises LabError if it does not become ready."""
    programs()
    warden = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.lab.warden"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        start_new_session=True,  # Ctrl-C is for the owner, who then closes the pipe
    )
    assert warden.stdin is not None
    assert warden.stdout is not None
    with warden:  # on leaving: closes the pipe, waits
        word, _, rest = warden.stdout.readline().partition(" ")
        if word != "ready":
            raise LabError(f"the node did not start: {rest.strip() or 'its warden ended'}")
        seconds, _, folder = rest.strip().partition(" ")
        yield NodeCluster(Layout(Path(folder)), float(seconds), warden)
