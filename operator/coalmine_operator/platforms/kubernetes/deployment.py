"""One model deployment of the cluster: what is wanted, what is seen of it, and how a plan becomes true."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from coalmine_sidecar.contract import Routing

from ...api import conditions
from ...api.problems import Invalid
from ...api.status import Condition, Status
from ...api.wire import from_wire, to_wire
from ...engine.model import Event, Observed, Plan, RevisionState
from ...render import labels
from ...render.injection import ADMIN_PORT
from ...render.manifests import Kept, OwnerRef, Patch, kept, manifests
from ...render.orders import ANNOTATIONS, REFRESH
from ...sources.snapshots import Snapshots, Traffic
from ..base import Desired
from .annotations import refresh_wanted, removal
from .client import ApiError
from .failures import Failures
from .held import Held
from .kinds import CHILDREN, CONTROLLER_REVISION, DEPLOYMENT, MODEL_DEPLOYMENT, POD, SECRET, Kind, kind_of
from .last_good import LastGood
from .pods import address, counts, ready
from .reading import Reading, generation_of, read
from .routing import RoutingFile
from .surroundings import Surroundings

logger = logging.getLogger("coalmine")


class ClusterDeployment:
    """Everything about one key, as long as the object of this `uid` lives."""

    def __init__(self, key: str, uid: str, around: Surroundings) -> None:
        self.key = key
        self.uid = uid
        self._namespace, self._name = key.split("/")
        self._around = around
        self._snapshots = Snapshots(around.session)
        self._routing = RoutingFile(key, around, self._snapshots, self.refresh)
        self._failures = Failures(around.client)
        self._last_good = LastGood(around.client, self._namespace, self._name, uid)
        self._reading: Reading | None = None
        self._status: tuple[Any, Status] = (None, Status())
        self._kept: dict[str, tuple[int, Kept]] = {}
        self._told = ""
        #: When somebody last looked at it, by the platform's clock.
        self.looked_at = -math.inf

    async def stop(self) -> None:
        await self._routing.stop()

    # What is wanted

    def _object(self) -> Held | None:
        held = self._around.cache.get(MODEL_DEPLOYMENT, self._namespace, self._name)
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
        """Raises ApiError."""
        held = self._object()
        if held is None:
            return None
        reading = self._reading
        if reading is None or reading.generation != generation_of(held):
            reading = self._reading = read(held, self._around.settings.injection)
        spec = reading.spec or await self._last_good.recall()
        if spec is None:
            await self._say_invalid(reading)
            return None
        return Desired(metadata=reading.metadata, spec=spec, status=self.status(), problems=reading.problems)

    async def _say_invalid(self, reading: Reading) -> None:
        """There is no good spec to go on with: the engine has nothing to decide, so this is all there is to say."""
        message, generation = "; ".join(reading.problems)[:2000], reading.generation
        status = self.status()
        if (status.phase, status.message, status.observed_generation) == ("InvalidSpec", message, generation):
            return
        condition = Condition(
            type=conditions.PROGRESSING,
            status="False",
            reason=conditions.INVALID_SPEC,
            message=message[:1000],
            last_transition_time=time.time(),
            observed_generation=generation,
        )
        others = (known for known in status.conditions if known.type != condition.type)
        await self.save(
            replace(
                status,
                phase="InvalidSpec",
                message=message,
                observed_generation=generation,
                conditions=(*others, condition),
            )
        )
        self._warn_once(conditions.INVALID_SPEC, message)

    # What is seen

    async def observe(self) -> Observed:
        # Raw outputs are what bins are cut from when a rollout begins; while one is under way nobody needs them.
        await asyncio.gather(self._gather(values=self.status().rollout is None), self._failures.read_logs(self._pods()))
        return self.seen()

    async def refresh(self) -> None:
        """Ask the sidecars anew, so that `seen` and `traffic` are fresh."""
        await self._gather()

    async def _gather(self, *, values: bool = False) -> None:
        admins = {pod.name: _socket(at, ADMIN_PORT) for pod in self._pods() if (at := address(pod))}
        await self._snapshots.gather(admins, values=values)

    @property
    def moves(self) -> bool:
        """Whether something is under way that waits for what sidecars say."""
        status = self.status()
        last = status.last_rollback
        return status.rollout is not None or (last is not None and not last.done_at)

    def seen(self) -> Observed:
        stable = self.status().stable
        pods: dict[str, list[Held]] = {}
        for pod in self._pods():
            pods.setdefault(pod.revision, []).append(pod)
        return Observed(
            revisions={name: self._state(one, pods.get(name, [])) for name, one in self._revisions().items()},
            weights=self._snapshots.weights(),
            epochs=self._snapshots.epochs(),
            values=self._snapshots.values(stable.revision if stable else ""),
        )

    def _state(self, one: Kept, pods: list[Held]) -> RevisionState:
        name = one.record.name
        deployment = self._around.cache.get(DEPLOYMENT, self._namespace, name)
        return RevisionState(
            record=one.record,
            pods=len(pods),
            ready=sum(map(ready, pods)),
            failure=self._failures.text(name, deployment, pods),
        )

    def traffic(self) -> Mapping[str, Traffic]:
        return self._snapshots.traffic()

    def _pods(self) -> list[Held]:
        return [pod for pod in self._around.cache.owned(POD, self.key) if pod.revision and counts(pod)]

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

    def _mine(self, kind: Kind) -> list[Held]:
        owned = self._around.cache.owned(kind, self.key)
        return [held for held in owned if held.owner_uid == self.uid and not held.ending]

    # What is done

    async def save(self, status: Status) -> None:
        """Raises ApiError."""
        if self._object() is None:
            return
        if status.stable:
            # For the scale subresource: who measures pods to scale by means those that carry the traffic.
            selector = f"{labels.pods_of(self._name)},{labels.REVISION}={status.stable.revision}"
            status = replace(status, selector=selector)
        body = {
            "apiVersion": MODEL_DEPLOYMENT.api_version,
            "kind": MODEL_DEPLOYMENT.name,
            "metadata": {"name": self._name, "namespace": self._namespace, "uid": self.uid},
            # The phase is a printer's column: it stands there even at its default.
            "status": {"phase": status.phase, **to_wire(status)},
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
        routing = self._routing.wanted(desired, plan)
        refresh = refresh_wanted(held.annotations)
        wanted = manifests(
            owner=OwnerRef(name=self._name, uid=self.uid),
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
            self._warn_once("ApplyRefused", str(rejected[0]))
            raise rejected[0]
        if refresh is not None:
            self._tell("Refreshed", "running revisions have the sidecar of this operator: pods follow one by one")
            await self.take_away(ANNOTATIONS[REFRESH], refresh)

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
                await self._routing.spread(routing, self._pods(), written=True in results)
        if refused != self._failures.refused:
            self._failures.refused = refused
            self._around.notify(self.key)
        return rejected

    async def _sweep(self, wanted: Iterable[Mapping[str, Any]]) -> None:
        """Delete the children that are not wanted; pods first, so that nothing they need goes before them."""
        places = {(kind_of(obj), obj["metadata"]["name"]) for obj in wanted}
        for kind in reversed(CHILDREN):
            for held in self._mine(kind):
                if (kind, held.name) not in places and held.name != labels.routing_secret(self._name):
                    await self._around.applier.remove(held)

    def _injected(self, plan: Plan, refresh: str | None) -> dict[str, Patch]:
        """What revisions were given; a refresh forgets it for those that run, or for the one it names."""
        known = {name: one.injected for name, one in self._revisions().items()}
        if refresh is None:
            return known
        meant = {refresh.strip()} if refresh.strip() in plan.replicas else set(plan.replicas)
        return {name: patch for name, patch in known.items() if name not in meant}

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

    # What is told

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        held = self._object()
        if held is not None:
            logger.log(logging.WARNING if warning else logging.INFO, "%s: %s", self.key, message)
            self._around.poster.tell(held, Event(reason=reason, message=message, warning=warning))

    def _warn_once(self, reason: str, message: str) -> None:
        if message != self._told:
            self._told = message
            self._tell(reason, message, warning=True)


def _socket(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
