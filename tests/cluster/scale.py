"""Many model deployments that have nothing to do: what the operator needs for them, printed.

    python -m tests.cluster.scale [--count 300] [--rest 60]

They ask for no pods, as in the comparison with Flagger (see tests/benchmarks/README.md). The operator is a process
among the pods, so that what it takes is read from /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.crd import install
from tests.cluster.lab.cluster import NET_COMMAND, Cluster, ExternalCluster, node_cluster
from tests.cluster.lab.need import missing
from tests.cluster.lab.run import LabError
from tests.cluster.operating import Operator, manifest

#: Of the operator's web, in the node's network.
PORT = 18080
#: Children of a model deployment without pods: two Services, two Secrets, a ControllerRevision, a Deployment.
CHILDREN = {"services": 2, "secrets": 2, "controllerrevisions": 1, "deployments": 1}
#: Seconds until calls of the start are over: Events are posted one after the other.
SETTLE = 60.0
MEGABYTE = 1e6
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Usage:
    """Of a process: CPU in seconds since its start, memory in bytes."""

    cpu: float
    rss: int
    peak: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        kilobytes = [int(status[name].split()[0]) for name in ("VmRSS", "VmHWM")]
        return cls(sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), kilobytes[0] * 1024, kilobytes[1] * 1024)


@dataclass
class Scale:
    """What was measured with `count` model deployments. `calls`: of the API server, by method and status."""

    count: int
    empty: Usage
    reconciled_within: float = 0.0
    cpu_to_reconcile: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    calls_at_rest: Counter[str] = field(default_factory=Counter)
    rest: float = 0.0
    cpu_at_rest: float = 0.0
    usage: Usage | None = None
    again: Usage | None = None
    log: str = ""

    @property
    def per_deployment(self) -> float:
        """Bytes of memory."""
        assert self.usage is not None
        return (self.usage.rss - self.empty.rss) / self.count

    def table(self) -> str:
        assert self.usage is not None
        assert self.again is not None
        rows = [
            ("reconciled all within, from the operator's start", f"{self.reconciled_within:.1f} s"),
            ("CPU time of the operator until then", f"{self.cpu_to_reconcile:.1f} s"),
            ("calls of the API server until rest", _told(self.calls)),
            ("CPU at rest", f"{100 * self.cpu_at_rest / self.rest:.2f} % of a core over {self.rest:.0f} s"),
            ("calls of the API server at rest", _told(self.calls_at_rest) or "none"),
            ("RSS with none", f"{self.empty.rss / MEGABYTE:.0f} MB"),
            ("RSS at rest, after reconciling all", f"{self.usage.rss / MEGABYTE:.0f} MB"),
            ("RSS peak", f"{self.usage.peak / MEGABYTE:.0f} MB"),
            ("RSS a model deployment", f"{self.per_deployment / 1e3:.0f} kB"),
            ("RSS at rest, operator started anew", f"{self.again.rss / MEGABYTE:.0f} MB"),
            ("RSS peak, operator started anew", f"{self.again.peak / MEGABYTE:.0f} MB"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join([f"{self.count} model deployments", *(f"  {name:{width}}  {value}" for name, value in rows)])


def _told(calls: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(calls.items()))


class Bench:
    """A namespace for it on a cluster. Names and image of the model are never used: no pods are asked for."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._folder = folder

    def measure(self, count: int, rest: float, patience: float = 600) -> Scale:
        """Raises LabError where they are not all reconciled within `patience` seconds."""
        with self._operator("empty") as (operator, _):
            time.sleep(4)
            scale = Scale(count, Usage.of(operator.process.pid))
        documents = [manifest(f"model-{number:04}", "no/such/image:1", replicas=0) for number in range(count)]
        self._cluster.apply(documents, self._namespace)
        with self._operator("first") as (operator, web):
            started = time.monotonic()
            self._reconciled(count, patience)
            scale.reconciled_within = time.monotonic() - started
            scale.cpu_to_reconcile = Usage.of(operator.process.pid).cpu
            scale.calls = self._settled(web)
            before = Usage.of(operator.process.pid)
            time.sleep(rest)
            scale.usage = Usage.of(operator.process.pid)
            scale.rest, scale.cpu_at_rest = rest, scale.usage.cpu - before.cpu
            scale.calls_at_rest = calls(web) - scale.calls
            scale.log = operator.log()
        with self._operator("again") as (operator, web):
            self._settled(web)
            scale.again = Usage.of(operator.process.pid)
        return scale

    def _reconciled(self, count: int, patience: float) -> None:
        try:
            self._cluster.wait(lambda: self._left(count) == 0, "all to be reconciled", patience, every=0.5)
        except LabError as error:
            raise LabError(f"{error}: {self._left(count)} statuses or children are missing") from error

    def _left(self, count: int) -> int:
        """How much is still missing of statuses and children."""
        where = ("--namespace", self._namespace)
        answer = self._cluster.kubectl("get", "md", *where, "--output=jsonpath={.items[*].status.observedGeneration}")
        left = count - answer.split().count("1")
        for kind, each in {} if left else CHILDREN.items():
            label = "app.kubernetes.io/managed-by=coalmine"
            names = self._cluster.kubectl("get", kind, *where, "--selector", label, "--output=name")
            left += each * count - len(names.split())
        return left

    def _settled(self, web: str) -> Counter[str]:
        """The calls, once there are no more of them for some seconds."""
        deadline = time.monotonic() + SETTLE
        last, since = calls(web), time.monotonic()
        while time.monotonic() < min(deadline, since + 5):
            time.sleep(1)
            now = calls(web)
            if now != last:
                last, since = now, time.monotonic()
        return last

    @contextlib.contextmanager
    def _operator(self, name: str) -> Iterator[tuple[Operator, str]]:
        """It answers; and the URL of its metrics."""
        flags = (f"--listen=127.0.0.1:{PORT}", "--log-level=info")
        operator = Operator(self._cluster, [self._namespace], "no/such/image:1", self._folder / f"{name}.log", *flags)
        with self._cluster.door("127.0.0.1", PORT) as port:
            operator.start()
            try:
                web = f"http://127.0.0.1:{port}/metrics"
                self._answering(operator, web)
                yield operator, web
            finally:
                operator.stop()

    def _answering(self, operator: Operator, web: str) -> None:
        try:
            self._cluster.wait(lambda: calls(web), "the operator to answer", 90)
        except LabError as error:
            raise LabError(f"{error}\n{operator.log()[-2000:]}") from error


def calls(web: str) -> Counter[str]:
    """Of the API server by the operator so far, as `PATCH 200`; none while it does not answer."""
    try:
        with _OPENER.open(web, timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return Counter()
    series = re.findall(r"^coalmine_operator_api_calls_total\{(.*)\} (\S+)$", text, re.MULTILINE)
    found = {}
    for labels, value in series:
        names = dict(re.findall(r'(\w+)="(.*?)"', labels))
        found[f"{names['method']} {names['code']}"] = int(float(value))
    return Counter(found)


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Returns the reason why it did not work, None after a good end."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.scale")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--rest", type=float, default=60, help="seconds of rest to measure")
    parser.add_argument("--kubeconfig", type=Path, help=f"another cluster than a node of its own; see {NET_COMMAND}")
    given = parser.parse_args(arguments)
    if not given.kubeconfig and (reason := missing()):
        return reason
    where = contextlib.nullcontext(ExternalCluster(given.kubeconfig)) if given.kubeconfig else node_cluster()
    with where as cluster, tempfile.TemporaryDirectory() as folder:
        install(cluster)
        namespace: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "scale"}}
        cluster.apply(namespace)
        scale = Bench(cluster, "scale", Path(folder)).measure(given.count, given.rest)
        cluster.kubectl("delete", "namespace", "scale", "--wait=false")
    print(scale.table(), flush=True)
    errors = [line for line in scale.log.splitlines() if " ERROR " in line or " WARNING " in line]
    print(f"  {len(errors)} warnings and errors told", *errors[:5], sep="\n    ")
    return None


if __name__ == "__main__":
    sys.exit(main())
