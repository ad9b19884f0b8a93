"""What the tests of faults share: a model deployment under load, its processes on this machine, and how they die."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.lab import cgroups
from tests.cluster.lab.cluster import Cluster, NodeCluster
from tests.cluster.operating import manifest, namespaces
from tests.cluster.traffic import Traffic

SIDECAR = "coalmine-sidecar"


def guarded(
    image: str, version: str = "v1", *, name: str = "fraud", stands_by: str = "", **spec: Any
) -> dict[str, Any]:
    """A model deployment as people run it: Kubernetes' own grace; `stands_by` is the version of its fallback."""
    document = manifest(name, image, version, **spec)
    template = document["spec"]["template"]
    del template["spec"]["terminationGracePeriodSeconds"]
    if stands_by:
        (container,) = template["spec"]["containers"]
        other = container | {"env": [{"name": "MODEL_VERSION", "value": stands_by}]}
        document["spec"]["fallback"] = {
            "version": f"{stands_by}-stands-by",
            "template": {"spec": template["spec"] | {"containers": [other]}},
        }
    return document


class Victim:
    """A process of a container. Its death is known to the millisecond: the kernel tells it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)

    def kill(self) -> tuple[float, float]:
        """SIGKILL; Unix seconds just before it and just after the kernel closed all its connections."""
        before = time.time()
        signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        return before, self.death()

    def death(self, timeout: float = 60.0) -> float:
        """Unix seconds; waits for it. Raises TimeoutError."""
        watch = select.poll()
        watch.register(self._handle, select.POLLIN)
        if not watch.poll(timeout * 1000):
            raise TimeoutError(f"process {self.pid} lives on")
        at = time.time()
        os.close(self._handle)
        return at


class Deaths:
    """Watches processes that others will end."""

    def __init__(self, victims: Sequence[Victim]) -> None:
        self._moments: list[tuple[float, float]] = []
        self._watching = [threading.Thread(target=self._watch, args=(one,), daemon=True) for one in victims]
        for thread in self._watching:
            thread.start()

    def _watch(self, one: Victim) -> None:
        end = one.death()
        # A process closes its connections one after the other while it dies.
        self._moments.append((end - 0.05, end))

    def moments(self, timeout: float = 60.0) -> list[tuple[float, float]]:
        """Begin and end of each death, once all are dead."""
        for thread in self._watching:
            thread.join(timeout)
        assert len(self._moments) == len(self._watching), "not all of them died"
        return self._moments


def victim(node: NodeCluster, pod: dict[str, Any], container: str) -> Victim:
    """The process of a running container of a pod. Raises LookupError where none runs."""
    status = pod["status"]
    known = [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]
    ids = [one["containerID"].partition("//")[2] for one in known if one["name"] == container and "containerID" in one]
    # Its first process: what that starts comes later.
    for pid in sorted(cgroups.members(node.layout.cgroup)):
        try:
            groups = Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            continue
        if any(one in groups for one in ids):
            return Victim(pid)
    raise LookupError(f"{container} of {pod['metadata']['name']} does not run")


def lost(seen: Traffic, deaths: Iterable[tuple[float, float]]) -> tuple[int, int]:
    """How many requests were under way in the moments of `deaths`, and how many failed. Fails where others did.

    A client may write to a connection whose end it has not read yet, so what it sent a moment later counts as well: for
    as long as it may leave an answer unread.
    """
    records = seen.records()
    reading = max(0.1, sorted(record.seconds for record in records)[len(records) * 99 // 100])
    moments = list(deaths)
    under_way = [
        record
        for record in records
        if any(record.sent <= end + reading and record.done >= begin for begin, end in moments)
    ]
    errors = seen.errors()
    known = {id(record) for record in under_way}
    strangers = [record for record in errors if id(record) not in known]
    assert not strangers, f"{len(strangers)} not under way in a killed process: {strangers[:3]}; {seen.summary()}"
    return len(under_way), len(errors)


@contextlib.contextmanager
def own_namespace(cluster: Cluster) -> Iterator[str]:
    """Like the fixture `namespace`, for what several tests share or one test needs two of."""
    with namespaces(cluster, f"test-{secrets.token_hex(4)}") as (name,):
        yield name
