"""The stage in a cluster: the chart, `kubectl apply`, and everything that is known asked of the API server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp

from coalmine_operator.api.status import Status
from coalmine_operator.api.wire import from_wire
from coalmine_operator.render.labels import REVISION, pods_of
from coalmine_operator.sources.snapshots import Snapshots
from coalmine_operator.web.bridge import ERRORS
from coalmine_operator.web.view import DeploymentView, RevisionView

from .senders import Senders
from .shell import Shell
from .stage import NAME, Pod
from .timeline import NotTrueError

SYSTEM = "coalmine-system"
NAMESPACE = "coalmine-demo"
MANIFEST = "examples/breast-cancer-cluster.yaml"
CRD = "modeldeployments.coalmine.dev"
ADMIN_PORT = 8010
#: Seconds until a server in the background says where it listens.
LISTENS = 30.0

INSTALL = (
    f"helm install coalmine helm/coalmine --namespace {SYSTEM} --create-namespace"
    " --set image.tag=dev --set sidecar.image.tag=dev --wait --timeout 3m"
)


class OnCluster:
    """`end`: ends a cluster of our own and tells what is left of it; None: the cluster stays, and we clean up."""

    namespace = NAMESPACE
    killing = "v2's pods are deleted"
    revived = "v2's pods are made anew"

    def __init__(self, shell: Shell, senders: Senders, end: Callable[[], Awaitable[list[str]]] | None) -> None:
        self.shell = shell
        self.senders = senders
        self._end = end
        self._undo: list[str] = []
        self._session: aiohttp.ClientSession | None = None
        self._snapshots: Snapshots | None = None
        self._pods: list[Pod] = []
        self._api = self._alerts = self._token = ""

    async def start(self) -> None:
        await self._install()
        await self.senders.start()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        self._snapshots = Snapshots(self._session)
        self._api = await self._serving("kubectl proxy --port=0")
        self._alerts = await self._serving(f"kubectl port-forward --namespace {SYSTEM} service/coalmine-operator :80")
        self._token = await self.shell.run(
            f"kubectl get secret coalmine-alerts --namespace {SYSTEM} --output jsonpath='{{.data.token}}' | base64 -d"
        )
        await self.edit("v1")

    async def _install(self) -> None:
        there = await self.shell.run(f"kubectl get namespace {SYSTEM} {NAMESPACE} --ignore-not-found --output name")
        if there.strip():
            raise NotTrueError(
                f"{' and '.join(there.split())} is in the cluster already: the demo wants one without Coalmine"
            )
        definition = await self.shell.run(f"kubectl get crd {CRD} --ignore-not-found --output name")
        if not definition:
            self._undo.append(f"kubectl delete crd {CRD}")
        self._undo += [
            f"kubectl delete namespace {SYSTEM} --ignore-not-found",
            f"helm uninstall coalmine --namespace {SYSTEM} --ignore-not-found --wait",
            f"kubectl delete namespace {NAMESPACE} --ignore-not-found",
            f"kubectl delete pod clients --namespace {NAMESPACE} --ignore-not-found --now",
        ]
        await self.shell.run(INSTALL + (" --set crds.enabled=false" if definition else ""), timeout=200.0)
        await self.shell.run(f"kubectl create namespace {NAMESPACE}")

    async def _serving(self, command: str) -> str:
        """Start a server on this machine; its address, once it has said it."""
        process = await self.shell.keep(command)
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), LISTENS)
        except TimeoutError:
            line = b""
        if found := re.search(rb"127\.0\.0\.1:\d+", line):
            return found[0].decode()
        raise NotTrueError(f"{command}: did not say where it listens")

    async def edit(self, version: str) -> None:
        apply = f"kubectl apply --namespace {NAMESPACE} --filename"
        edited = f"sed 's/version v1/version {version}/' {MANIFEST} | {apply} -"
        await self.shell.run(f"{apply} {MANIFEST}" if version == "v1" else edited)

    def broken(self) -> str:
        return self.shell.broken()

    async def view(self) -> DeploymentView | None:
        where = f"namespaces/{NAMESPACE}"
        found = await asyncio.gather(
            self._get(f"apis/coalmine.dev/v1alpha1/{where}/modeldeployments/{NAME}"),
            self._get(f"api/v1/{where}/pods?labelSelector={pods_of(NAME)}"),
        )
        deployment, pods = found
        if not deployment or not pods or self._snapshots is None:
            return None
        there = [item for item in pods["items"] if item["status"].get("phase") not in ("Succeeded", "Failed")]
        self._pods = [self._pod(item) for item in there]
        await self._snapshots.gather({pod.name: pod.admin for pod in self._pods if pod.admin})
        status = from_wire(deployment.get("status"))
        return DeploymentView(
            namespace=NAMESPACE,
            name=NAME,
            at=time.time(),
            status=status,
            revisions=tuple(revisions(status, there, self._snapshots)),
            ingress=f"http://{NAME}.{NAMESPACE}",
        )

    def pods(self) -> list[Pod]:
        return self._pods

    async def metrics(self, pod: Pod) -> str:
        if self._session is None:
            return ""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(f"http://{pod.admin}/metrics") as answer:
                return await answer.text() if answer.status == 200 else ""
        return ""

    async def alert(self, webhook: dict[str, Any]) -> tuple[int, str]:
        if self._session is None:
            return 0, "not started"
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with self._session.post(f"http://{self._alerts}/alerts", json=webhook, headers=headers) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, f"{type(error).__name__}: {error}"

    async def kill(self, pods: Sequence[Pod]) -> None:
        names = " ".join(pod.name for pod in pods)
        await self.shell.run(f"kubectl delete pod --namespace {NAMESPACE} --wait=false {names}")

    async def stop(self) -> list[str]:
        """What we brought into a cluster that stays is taken away again."""
        await self.shell.stop()
        if self._session is not None:
            await self._session.close()
        if self._end is not None:
            return await self._end()
        left = []
        for command in reversed(self._undo):
            try:
                await self.shell.run(command, timeout=120.0)
            except NotTrueError as error:
                left.append(str(error))
        return left

    def _pod(self, item: dict[str, Any]) -> Pod:
        name, labels = item["metadata"]["name"], item["metadata"]["labels"]
        restarts = [one["restartCount"] for one in item["status"].get("containerStatuses") or ()]
        path = f"api/v1/namespaces/{NAMESPACE}/pods/{name}:{ADMIN_PORT}/proxy"
        return Pod(
            name,
            labels.get(REVISION, ""),
            f"{item['metadata']['uid']}/{sum(restarts)}",
            f"{self._api}/{path}" if item["status"].get("podIP") else "",
            "deletionTimestamp" in item["metadata"],
        )

    async def _get(self, path: str) -> dict[str, Any] | None:
        """What the API server says, or None while it does not."""
        if self._session is None:
            return None
        try:
            async with self._session.get(f"http://{self._api}/{path}") as answer:
                found: dict[str, Any] | None = await answer.json() if answer.status == 200 else None
                return found
        except (aiohttp.ClientError, TimeoutError):
            return None


def revisions(status: Status, pods: Sequence[dict[str, Any]], snapshots: Snapshots) -> list[RevisionView]:
    """Those with a role, then others that still have pods; `pods` as the API server tells of them."""
    tracks = {"stable": status.stable, "canary": status.canary, "fallback": status.fallback}
    roles = {track.revision: (role, track) for role, track in reversed(tracks.items()) if track}
    names = [track.revision for track in tracks.values() if track]
    versions: dict[str, str] = {}
    counted: dict[str, list[bool]] = {}
    for pod in pods:
        labels = pod["metadata"]["labels"]
        name = labels.get(REVISION, "")
        versions[name] = labels.get("app.kubernetes.io/version", "")
        counted.setdefault(name, []).append(
            any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or ())
        )
    weights, traffic = snapshots.weights(), snapshots.traffic()
    found = []
    for name in dict.fromkeys([*names, *counted]):
        role, track = roles.get(name, ("", None))
        answered = traffic.get(name)
        found.append(
            RevisionView(
                revision=name,
                version=track.version if track else versions[name],
                track=role,
                weight=track.weight if track else 0,
                in_force=weights.get(name, 0),
                pods=len(counted.get(name, ())),
                ready=sum(counted.get(name, ())),
                requests=answered.requests if answered else 0,
                errors=sum(answered.outcomes.get(outcome, 0) for outcome in ERRORS) if answered else 0,
                rps=answered.rps if answered else 0.0,
            )
        )
    return found
