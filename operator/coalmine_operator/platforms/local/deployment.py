"""One model deployment on this machine: its pods, its routing file, what is seen of them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp
from msgspec import Struct
from msgspec.structs import replace

from coalmine_sidecar.monitoring import Monitored

from ...api.decode import decode
from ...api.spec import Metadata, ModelDeploymentSpec
from ...api.status import Status
from ...engine.baselines import wanted_baselines
from ...engine.guard import wants_values
from ...engine.model import Observed, Plan, RevisionRecord, RevisionState
from ...render.container import local_container
from ...render.monitoring import ignored
from ...render.routing import render_routing
from ...sources.snapshots import Snapshots, Traffic
from ..base import Desired
from .baselines import Baselines
from .launch import Launch, launch_of
from .manifest import Wanted
from .pod import Pod, Surroundings
from .ports import Ingress
from .routing_file import RoutingFile
from .state import DeploymentFiles, LastGood, PodRecord

logger = logging.getLogger("coalmine")

#: How long, and how often, sidecars are asked whether they have read a new routing file.
CONFIRM_WITHIN: Final = 5.0
CONFIRM_EVERY: Final = 0.1


class PodView(Struct, frozen=True, kw_only=True):
    """One pod, for people and for the demo. `pid`: of the model, None while it is down."""

    name: str
    revision: str
    pid: int | None
    ready: bool
    ending: bool
    restarts: int
    failure: str
    log: Path


class LocalDeployment:
    """Everything about one key. Not started until `adopt`."""

    def __init__(
        self,
        key: str,
        files: DeploymentFiles,
        manifest: LastGood,
        *,
        folder: Path,
        ingress: Ingress,
        session: aiohttp.ClientSession,
        notify: Callable[[str], None],
        drain_timeout: float,
        grace_cap: float,
    ) -> None:
        self.key = key
        self.files = files
        self.ingress = ingress
        self.problems: tuple[str, ...] = ()
        self.manifest = manifest
        self.spec, self.metadata = _decoded(manifest)
        self.status = files.read_status()
        self._folder = folder
        self._notify = notify
        self._records = files.revisions()
        self._routing = RoutingFile(files.routing)
        self._baselines = Baselines(folder)
        self._snapshots = Snapshots(session)
        self._pods: dict[str, Pod] = {}
        self._confirming: asyncio.Task[None] | None = None
        self._around = Surroundings(
            files=files,
            ingress=ingress,
            session=session,
            changed=self._changed,
            gone=self._forget,
            ports_taken=lambda: {pod.record.port for pod in self._pods.values()},
            not_ready=self._snapshots.not_ready,
            drain_timeout=drain_timeout,
            grace_cap=grace_cap,
        )

    # The manifest

    @property
    def gone(self) -> bool:
        return self.manifest.gone

    def accept(self, wanted: Wanted) -> None:
        """A good manifest came in."""
        changed = wanted.document.get("spec") != self.manifest.document.get("spec")
        generation = self.manifest.generation + changed
        manifest = replace(self.manifest, document=wanted.document, generation=generation, gone=False)
        self.files.write_manifest(manifest)
        self.manifest = manifest
        self.spec, self.metadata = _decoded(manifest)
        self.problems = ()
        if changed and self.spec.tls is not None:
            logger.warning("%s: spec.tls: ignored: sidecars of this machine talk over its loopback address", self.key)
        for line in ignored(self.spec.monitoring) if changed else ():
            logger.warning("%s: %s", self.key, line)
        for line in local_container(self.spec.template, model=self.spec.model).ignored if changed else ():
            logger.warning("%s: %s", self.key, line)

    def place(self, slot: int, port: int) -> None:
        """Give it another ingress port: while it was gone somebody else got its own."""
        self.manifest = replace(self.manifest, slot=slot)
        self.ingress.close()
        self.ingress.port = port

    def remove(self) -> None:
        """It was taken out of the file: its pods end, its directory stays for whoever puts it back."""
        manifest = replace(self.manifest, gone=True)
        self.files.write_manifest(manifest)
        self.manifest = manifest
        logger.warning("%s: taken out of the manifest: its pods end", self.key)
        for pod in self._pods.values():
            pod.end()

    def desired(self) -> Desired | None:
        if self.gone:
            return None
        return Desired(metadata=self.metadata, spec=self.spec, status=self.status, problems=self.problems)

    # Pods

    async def adopt(self) -> None:
        """Take up the pods that an earlier `coalmine run` left; those that are ending or not wanted end."""
        left = self.files.pods()
        unwanted = {record.name for record in left if self.gone or record.revision not in self._records}
        await asyncio.gather(*(self._start(replace(r, ending=r.ending or r.name in unwanted)) for r in left))

    def pods(self) -> list[PodView]:
        return [
            PodView(
                name=pod.name,
                revision=pod.revision,
                pid=pod.model_pid,
                ready=pod.ready,
                ending=pod.ending,
                restarts=pod.restarts,
                failure=pod.failure,
                log=pod.model_log,
            )
            for pod in self._pods.values()
        ]

    async def _start(self, record: PodRecord) -> None:
        revision = self._records.get(record.revision)

        def launch(port: int) -> Launch:
            if revision is None:
                raise OSError(errno.ENOENT, f"revision {record.revision} is not kept")
            return launch_of(revision, self._folder, port)

        pod = self._pods[record.name] = Pod(record, launch, self._around)
        try:
            await pod.start()
        except OSError:
            del self._pods[record.name]
            raise

    def _changed(self) -> None:
        self._notify(self.key)

    def _forget(self, name: str) -> None:
        self._pods.pop(name, None)
        self._notify(self.key)

    # What the runtime asks

    async def observe(self) -> Observed:
        await self._gather(values=wants_values(self.status))
        self._baselines.look(wanted_baselines(self.metadata, self.spec, self._records.values()))
        return self.seen()

    async def _gather(self, *, values: bool = False) -> None:
        await self._snapshots.gather(self.admins(), values=values)

    async def refresh(self) -> None:
        """Ask the sidecars anew, so that `seen` and `traffic` are fresh."""
        await self._gather()

    def seen(self) -> Observed:
        """The world as last heard of: pods as they are now, counters as last gathered."""
        stable = self.status.stable.revision if self.status.stable else ""
        return Observed(
            revisions={name: self._state(record) for name, record in self._records.items()},
            weights=self._snapshots.weights(),
            mirrors=self._snapshots.mirrors(),
            epochs=self._snapshots.epochs(),
            values=self._snapshots.values(stable),
            baselines=self._baselines.states,
        )

    def _state(self, record: RevisionRecord) -> RevisionState:
        pods = [pod for pod in self._pods.values() if pod.revision == record.name]
        return RevisionState(
            record=record,
            pods=len(pods),
            ready=sum(pod.ready for pod in pods),
            failure=next((pod.failure for pod in pods if pod.failure), ""),
        )

    def traffic(self) -> Mapping[str, Traffic]:
        return self._snapshots.traffic()

    def admins(self) -> dict[str, str]:
        """Where the sidecars' metrics are: `host:port` by pod."""
        return {pod.name: pod.admin for pod in self._pods.values() if pod.admin}

    def monitored(self) -> Mapping[str, Monitored]:
        return self._snapshots.monitored()

    def save(self, status: Status) -> None:
        self.files.write_status(status)
        self.status = status

    async def apply(self, desired: Desired, plan: Plan) -> None:
        """Records of new revisions, routing, pods, records of old revisions: in this order, each of them idempotent."""
        wanted = {record.name: record for record in plan.records}
        for name, record in wanted.items():
            if self._records.get(name) != record:
                self.files.write_revision(record)
                self._records[name] = record
        leaving, missing = self._difference(plan.replicas)
        self._route(desired, plan, leaving)
        for pod in leaving:
            pod.end()
        for revision, count in missing.items():
            for _ in range(count):
                name = f"{revision}-{secrets.token_hex(3)}"
                logger.info("%s: starts", name)
                await self._start(PodRecord(name=name, revision=revision, created_at=time.time()))
        for name in self._records.keys() - wanted.keys():
            self.files.remove_revision(name)
            del self._records[name]

    def _difference(self, replicas: Mapping[str, int]) -> tuple[list[Pod], dict[str, int]]:
        """Pods to end, and how many to start by revision. Those that are not ready go first, then the youngest."""
        leaving = [pod for pod in self._pods.values() if pod.revision not in replicas and not pod.ending]
        present = {name: [p for p in self._pods.values() if p.revision == name and not p.ending] for name in replicas}
        for name, pods in present.items():
            pods.sort(key=lambda pod: (not pod.ready, pod.record.created_at), reverse=True)
            leaving += pods[: max(0, len(pods) - replicas[name])]
        return leaving, {name: count - len(present[name]) for name, count in replicas.items()}

    # Files

    def guard_files(self) -> None:
        """Ask for a reconcile where somebody else changed the routing file, which mends it, or a baseline."""
        if not self.gone and (self._routing.touched or self._baselines.touched):
            self._notify(self.key)

    def _route(self, desired: Desired, plan: Plan, leaving: list[Pod]) -> None:
        if plan.routing is None:
            return
        endpoints = {
            route.revision: tuple(
                sorted(
                    p.endpoint
                    for p in self._pods.values()
                    if p.revision == route.revision and p.ready and p not in leaving
                )
            )
            for route in plan.routing.routes
        }
        routing = render_routing(
            metadata=desired.metadata,
            spec=desired.spec,
            plan=plan.routing,
            records=self._records,
            endpoints=endpoints,
            generation=self._routing.generation + 1,
            baselines=self._baselines.states,
            folder=str(self._folder),
        )
        if not self._routing.put(routing):
            return
        if self._confirming:
            self._confirming.cancel()
        self._confirming = asyncio.create_task(self._confirm(routing.generation))

    async def _confirm(self, generation: int) -> None:
        """Tell the runtime when every sidecar in sight has read the routing: nobody else would."""
        deadline = time.monotonic() + CONFIRM_WITHIN
        while time.monotonic() < deadline:
            await asyncio.sleep(CONFIRM_EVERY)
            await self._gather()
            if (self._snapshots.generation() or 0) >= generation:
                break
        self._notify(self.key)

    # The end

    def look_after_logs(self) -> None:
        for pod in self._pods.values():
            pod.tell_payload_log()
            pod.trim_logs()

    async def stop(self, *, leave: bool) -> None:
        if self._confirming:
            self._confirming.cancel()
            await asyncio.gather(self._confirming, return_exceptions=True)
        pods = list(self._pods.values())
        if leave:
            await asyncio.gather(*(pod.detach() for pod in pods))
        else:
            for pod in pods:
                with contextlib.suppress(OSError):  # a full disk must not keep processes
                    pod.end(settle=False)
            await asyncio.gather(*(pod.ended() for pod in pods))
        self.ingress.close()


def _decoded(manifest: LastGood) -> tuple[ModelDeploymentSpec, Metadata]:
    deployment = decode(manifest.document)
    return deployment.spec, replace(deployment.metadata, generation=manifest.generation)
