"""One model deployment of the cluster: what is wanted, what is seen of it, and how a plan becomes true."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import aiohttp
from msgspec import Struct
from msgspec.structs import replace

from coalmine_sidecar.contract import Routing

from ...api import conditions
from ...api.decode import decode
from ...api.problems import Invalid
from ...api.spec import Metadata, ModelDeploymentSpec
from ...api.status import Condition, Status
from ...api.wire import from_wire, to_wire
from ...engine.model import Event, Observed, Plan, RevisionState
from ...render import labels
from ...render.injection import ADMIN_PORT, LOCAL_PORT
from ...render.manifests import Kept, OwnerRef, Patch, kept, manifests, problems
from ...render.orders import ANNOTATIONS, REFRESH
from ...render.routing import render_routing
from ...sources.snapshots import Snapshots, Traffic
from ..base import Desired
from .annotations import refresh_wanted, removal
from .applying import Applier
from .cache import Cache
from .client import ApiError, Client
from .events import Poster
from .failures import Failures
from .held import Held
from .kinds import (
    CHILDREN,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    MODEL_DEPLOYMENT,
    POD,
    SECRET,
    kind_of,
)
from .last_good import LastGood
from .pods import address, counts, ready
from .routing_secret import next_generation, routing_of
from .settings import Settings

logger = logging.getLogger("coalmine")

#: How long, and how often, sidecars are asked whether they have read a new routing file. Kubelet takes a second.
CONFIRM_WITHIN: Final = 10.0
CONFIRM_EVERY: Final = 0.1


class Surroundings(Struct, frozen=True, kw_only=True):
    """What all model deployments of a platform share. `notify(key)`: something about one changed."""

    client: Client
    cache: Cache
    applier: Applier
    poster: Poster
    session: aiohttp.ClientSession
    settings: Settings
    notify: Callable[[str], None]


class _Reading(Struct, frozen=True):
    """A spec of one generation, decoded."""

    uid: str
    generation: int
    metadata: Metadata | None
    spec: ModelDeploymentSpec | None
    problems: tuple[str, ...]


class ClusterDeployment:
    """Everything about one key, as long as the object of this `uid` lives."""

    def __init__(self, key: str, uid: str, around: Surroundings) -> None:
        self.key = key
        self.uid = uid
        self.namespace, self.name = key.split("/")
        self._around = around
        self._snapshots = Snapshots(around.session)
        self._failures = Failures(around.client)
        self._last_good = LastGood(around.client, self.namespace, self.name, uid)
        self._reading: _Reading | None = None
        self._status: tuple[Any, Status] = (None, Status())
        self._kept: dict[str, tuple[int, Kept]] = {}
        self._generation = 0
        self._confirming: asyncio.Task[None] | None = None
        self._told = ""
        self.looked_at = -1e9

    # What is wanted

    def _object(self) -> Held | None:
        held = self._around.cache.get(MODEL_DEPLOYMENT, self.namespace, self.name)
        return held if held is not None and held.uid == self.uid and not held.ending else None

    def status(self) -> Status:
        """As last saved."""
        held = self._object()
        raw = held.body.get("status") if held else None
        if self._status[0] is not raw:
            try:
                status = from_wire(raw)
            except Invalid as error:
                # Somebody wrote into it. What it says of rollouts is lost; revisions and routing still stand.
                logger.error("%s: %s: beginning anew", self.key, error)  # noqa: TRY400 - one clear line
                status = Status()
            self._status = (raw, status)
        return self._status[1]

    async def desired(self) -> Desired | None:
        held = self._object()
        if held is None:
            return None
        reading = self._read(held)
        if not reading.problems and reading.spec is not None and reading.metadata is not None:
            return Desired(metadata=reading.metadata, spec=reading.spec, status=self.status())
        metadata, spec = _metadata(held), await self._last_good.recall()
        if spec is None:
            await self._say_invalid(metadata, reading.problems)
            return None
        return Desired(metadata=metadata, spec=spec, status=self.status(), problems=reading.problems)

    def _read(self, held: Held) -> _Reading:
        generation = held.body["metadata"].get("generation", 0)
        if self._reading is None or self._reading.generation != generation:
            self._reading = self._decoded(held, generation)
        return self._reading

    def _decoded(self, held: Held, generation: int) -> _Reading:
        try:
            deployment = decode({**held.body, "status": {}})
        except Invalid as error:
            return _Reading(self.uid, generation, None, None, tuple(map(str, error.problems)))
        found = problems(deployment.metadata, deployment.spec, self._around.settings.injection)
        return _Reading(self.uid, generation, deployment.metadata, deployment.spec, tuple(map(str, found)))

    async def _say_invalid(self, metadata: Metadata, lines: tuple[str, ...]) -> None:
        """There is no good spec to go on with: the engine has nothing to decide, so this is all there is to say."""
        message = "; ".join(lines)[:2000]
        status = self.status()
        if (status.phase, status.message, status.observed_generation) == ("InvalidSpec", message, metadata.generation):
            return
        condition = Condition(
            type=conditions.PROGRESSING,
            status="False",
            reason=conditions.INVALID_SPEC,
            message=message[:1000],
            last_transition_time=time.time(),
            observed_generation=metadata.generation,
        )
        await self.save(
            replace(
                status,
                phase="InvalidSpec",
                message=message,
                observed_generation=metadata.generation,
                conditions=(*(c for c in status.conditions if c.type != condition.type), condition),
            )
        )
        self._tell_once(conditions.INVALID_SPEC, message)

    def _tell_once(self, reason: str, message: str) -> None:
        held = self._object()
        if held is not None and message != self._told:
            self._told = message
            logger.warning("%s: %s: %s", self.key, reason, message)
            self._around.poster.tell(held, Event(reason=reason, message=message, warning=True))

    # What is seen

    async def observe(self) -> Observed:
        # Raw outputs are what bins are cut from when a rollout begins; while one is under way nobody needs them.
        await asyncio.gather(
            self._gather(values=self.status().rollout is None),
            self._failures.read_logs(self._pods()),
        )
        return self.seen()

    async def refresh(self) -> None:
        """Ask the sidecars anew, so that `seen` and `traffic` are fresh."""
        await self._gather()

    @property
    def moves(self) -> bool:
        """Whether somebody waits for what sidecars say."""
        status = self.status()
        last = status.last_rollback
        return status.rollout is not None or (last is not None and not last.done_at)

    async def _gather(self, *, values: bool = False) -> None:
        admins = {pod.name: _socket(at, ADMIN_PORT) for pod in self._pods() if (at := address(pod))}
        await self._snapshots.gather(admins, values=values)

    def _pods(self) -> list[Held]:
        return [pod for pod in self._around.cache.owned(POD, self.key) if pod.revision and counts(pod)]

    def seen(self) -> Observed:
        status = self.status()
        pods: dict[str, list[Held]] = {}
        for pod in self._pods():
            pods.setdefault(pod.revision, []).append(pod)
        return Observed(
            revisions={
                name: RevisionState(
                    record=one.record,
                    pods=len(pods.get(name, ())),
                    ready=sum(map(ready, pods.get(name, ()))),
                    failure=self._failures.text(
                        name,
                        self._around.cache.get(DEPLOYMENT, self.namespace, name),
                        pods.get(name, ()),
                    ),
                )
                for name, one in self._revisions().items()
            },
            weights=self._snapshots.weights(),
            epochs=self._snapshots.epochs(),
            values=self._snapshots.values(status.stable.revision if status.stable else ""),
        )

    def traffic(self) -> Mapping[str, Traffic]:
        return self._snapshots.traffic()

    def _revisions(self) -> dict[str, Kept]:
        """What the ControllerRevisions of this model deployment hold; those of others are left alone."""
        found: dict[str, tuple[int, Kept]] = {}
        for held in self._mine(CONTROLLER_REVISION):
            known = self._kept.get(held.name)
            if known is None or known[0] != held.version:
                try:
                    known = (held.version, kept(held.body))
                except Invalid as error:
                    logger.debug("%s: %s is left alone: %s", self.key, held.name, error)
                    continue
            found[held.name] = known
        self._kept = found
        return {name: one for name, (_, one) in found.items()}

    def _mine(self, kind: Any) -> list[Held]:
        return [
            held for held in self._around.cache.owned(kind, self.key) if held.owner_uid == self.uid and not held.ending
        ]

    # What is done

    async def save(self, status: Status) -> None:
        held = self._object()
        if held is None:
            return
        if status.stable:
            # The scale subresource's: whoever measures pods to scale by means those that carry the traffic.
            selector = f"{labels.pods_of(self.name)},{labels.REVISION}={status.stable.revision}"
            status = replace(status, selector=selector)
        body = {
            "apiVersion": MODEL_DEPLOYMENT.api_version,
            "kind": MODEL_DEPLOYMENT.name,
            "metadata": {"name": self.name, "namespace": self.namespace, "uid": self.uid},
            "status": to_wire(status),
        }
        try:
            answer = await self._around.client.apply(MODEL_DEPLOYMENT, body, "status")
        except ApiError as error:
            if error.gone:
                return  # deleted meanwhile: the watch will tell
            raise
        self._around.cache.take(MODEL_DEPLOYMENT, answer)

    async def apply(self, desired: Desired, plan: Plan) -> None:
        """Records, routing and Services, then pods, then what is no longer wanted. Raises ApiError.

        What the API server refuses of a revision becomes its failure; the others go on.
        """
        held = self._object()
        if held is None:
            return
        routing = self._routing(desired, plan)
        refresh = refresh_wanted(held.annotations)
        wanted = manifests(
            owner=OwnerRef(name=self.name, uid=self.uid),
            metadata=desired.metadata,
            spec=desired.spec,
            plan=plan,
            routing=routing,
            settings=self._around.settings.injection,
            injected=self._injected(plan, refresh),
        )
        rejected = await self._bring(wanted, routing)
        await self._sweep(wanted)
        if not desired.problems:
            await self._last_good.remember(desired.spec, wanted[0]["metadata"])
        if rejected:
            self._tell_once("ApplyRefused", str(rejected[0]))
            raise rejected[0]
        if refresh is not None:
            await self._refreshed(refresh)

    async def _bring(self, wanted: Iterable[Mapping[str, Any]], routing: Routing | None) -> list[ApiError]:
        """Answers what was refused that is no revision's own."""
        refused: dict[str, str] = {}
        rejected: list[ApiError] = []
        ordered = sorted(wanted, key=lambda obj: CHILDREN.index(kind_of(obj)))
        for kind, group in itertools.groupby(ordered, key=kind_of):
            objects = list(group)
            results = await asyncio.gather(
                *(self._around.applier.bring(obj, self.key) for obj in objects), return_exceptions=True
            )
            for obj, result in zip(objects, results, strict=True):
                if not isinstance(result, BaseException):
                    continue
                if not isinstance(result, ApiError) or not result.refused:
                    raise result
                revision = obj["metadata"]["labels"].get(labels.REVISION)
                if revision:
                    refused.setdefault(revision, f"{kind.name} refused: {result}"[:1000])
                else:
                    rejected.append(ApiError(result.status, f"{kind.name} {obj['metadata']['name']}: {result}"))
            if kind is SECRET and routing is not None:
                await self._spread(routing, written=any(result is True for result in results))
        if refused != self._failures.refused:
            self._failures.refused = refused
            self._around.notify(self.key)
        return rejected

    async def _sweep(self, wanted: Iterable[Mapping[str, Any]]) -> None:
        places = {(kind_of(obj), obj["metadata"]["name"]) for obj in wanted}
        for kind in reversed(CHILDREN):
            for held in self._mine(kind):
                if (kind, held.name) not in places and held.name != labels.routing_secret(self.name):
                    await self._around.applier.remove(held)

    # Refresh

    def _injected(self, plan: Plan, refresh: str | None) -> dict[str, Patch]:
        """What running revisions were given; a refresh forgets it for those that run, or for the one it names."""
        known = {name: one.injected for name, one in self._revisions().items()}
        if refresh is None:
            return known
        meant = set(plan.replicas)
        if refresh.strip() in meant:
            meant = {refresh.strip()}
        return {name: patch for name, patch in known.items() if name not in meant}

    async def _refreshed(self, value: str) -> None:
        """The order is carried out as far as anybody can: Deployments roll their pods by themselves."""
        self._tell("Refreshed", "running revisions have the sidecar of this operator: pods follow one by one")
        await self.take_away(ANNOTATIONS[REFRESH], value)

    def _tell(self, reason: str, message: str) -> None:
        held = self._object()
        if held is not None:
            logger.info("%s: %s", self.key, message)
            self._around.poster.tell(held, Event(reason=reason, message=message))

    async def take_away(self, annotation: str, value: str) -> None:
        """Remove an order that was taken, unless it was given anew. Raises ApiError."""
        held = self._object()
        if held is None or held.annotations.get(annotation) != value:
            return
        try:
            answer = await self._around.client.patch(held.path, removal(annotation, value, held.annotations), "json")
        except ApiError as error:
            if error.gone or error.refused:
                return  # deleted, or given anew meanwhile: the watch will tell
            raise
        self._around.cache.take(MODEL_DEPLOYMENT, answer)

    # Routing

    def _routing(self, desired: Desired, plan: Plan) -> Routing | None:
        if plan.routing is None:
            return None
        settings = self._around.settings
        routing = render_routing(
            metadata=desired.metadata,
            spec=desired.spec,
            plan=plan.routing,
            records={record.name: record for record in plan.records},
            # By name and not by pod: sidecars find pods that come and go while no operator is there to tell.
            endpoints={
                name: (labels.local_endpoint(name, self.namespace, LOCAL_PORT, settings.cluster_domain),)
                for name, count in plan.replicas.items()
                if count
            },
            generation=0,
        )
        present = routing_of(self._around.cache.get(SECRET, self.namespace, labels.routing_secret(self.name)))
        known = max([self._generation, *(snapshot.generation for snapshot in self._snapshots.in_sight())])
        self._generation = next_generation(routing, present, known)
        return replace(routing, generation=self._generation)

    async def _spread(self, routing: Routing, *, written: bool) -> None:
        """Touch the pods that have not read the routing yet, so that kubelet brings it to them at once."""
        behind = {s.pod for s in self._snapshots.in_sight() if s.generation < routing.generation}
        mark = str(routing.generation)
        touched = [
            pod
            for pod in self._pods()
            if (written or pod.name in behind)
            and not pod.ending
            and address(pod)
            and pod.annotations.get(labels.ROUTING_GENERATION) != mark
        ]
        await asyncio.gather(*(self._touch(pod, mark) for pod in touched))
        if written:
            self._stop_confirming()
            self._confirming = asyncio.create_task(self._confirm(routing.generation))

    async def _touch(self, pod: Held, mark: str) -> None:
        patch = {"metadata": {"annotations": {labels.ROUTING_GENERATION: mark}}}
        try:
            self._around.cache.take(POD, await self._around.client.patch(pod.path, patch))
        except ApiError as error:
            # It went, or it gets the file a little later, when kubelet looks by itself.
            logger.debug("%s: %s was not touched: %s", self.key, pod.name, error)

    async def _confirm(self, generation: int) -> None:
        """Tell the runtime when every sidecar in sight has read the routing: nobody else would."""
        deadline = time.monotonic() + CONFIRM_WITHIN
        while time.monotonic() < deadline:
            await asyncio.sleep(CONFIRM_EVERY)
            await self._gather()
            if (self._snapshots.generation() or 0) >= generation:
                break
        self._around.notify(self.key)

    def _stop_confirming(self) -> None:
        if self._confirming:
            self._confirming.cancel()

    async def stop(self) -> None:
        self._stop_confirming()
        if self._confirming:
            await asyncio.gather(self._confirming, return_exceptions=True)


def _metadata(held: Held) -> Metadata:
    metadata = held.body["metadata"]
    return Metadata(
        name=held.name,
        namespace=held.namespace,
        generation=metadata.get("generation", 0),
        uid=held.uid,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
    )


def _socket(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
