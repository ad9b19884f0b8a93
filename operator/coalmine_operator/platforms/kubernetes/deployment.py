"""One model deployment of the cluster: what is wanted, what is seen of it, and how a plan becomes true."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from coalmine_sidecar.contract import Routing
from coalmine_sidecar.monitoring import Monitored

from ...api import conditions
from ...api.problems import Invalid
from ...api.spec import Model, ModelDeploymentSpec
from ...api.status import Condition, Status
from ...api.wire import from_wire, to_wire
from ...engine.baselines import wanted_baselines
from ...engine.guard import wants_values
from ...engine.model import Observed, Plan, RevisionRecord, RevisionState
from ...render import labels
from ...render.injection import ADMIN_PORT
from ...render.manifests import OwnerRef, inject_revision, manifests
from ...render.orders import ANNOTATIONS, REFRESH, VERBS
from ...render.records import Kept, Patch
from ...sources.snapshots import Snapshots, Traffic
from ..base import Desired
from .annotations import Refresh, removal, unknown_orders
from .baselines import Baselines
from .client import ApiError
from .failures import Failures
from .held import Held
from .kinds import CHILDREN, CONTROLLER_REVISION, DEPLOYMENT, MODEL_DEPLOYMENT, POD, SECRET, Kind, kind_of
from .last_good import LastGood
from .pods import address, counts, long_unready, ready
from .reading import Reading, read
from .revisions import Revisions
from .routing import RoutingFile
from .surroundings import Surroundings
from .telling import Teller

logger = logging.getLogger("coalmine")


class ClusterDeployment:
    """Everything about one key, as long as the object of this `uid` lives."""

    def __init__(self, key: str, uid: str, around: Surroundings) -> None:
        self.key = key
        self.uid = uid
        self._namespace, self._name = key.split("/")
        self._around = around
        self._snapshots = Snapshots(around.session)
        self._baselines = Baselines(around.client, self._namespace)
        self._routing = RoutingFile(key, around, self._snapshots, self.refresh)
        self._failures = Failures(around.client)
        self._last_good = LastGood(around.client, around.applier, self._namespace, self._name, uid)
        self._reading: Reading | None = None
        self._status: tuple[bytes, Status] = (b"", Status())
        self._kept = Revisions()
        #: What the API server refused at the last try.
        self._refused: set[str] = set()
        self._tell = Teller(key, around.poster, self._object)
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
        if held is None:
            return Status()
        if self._status[0] is not held.raw:
            try:
                status = from_wire(held.body.get("status"))
            except Invalid as error:
                # Somebody wrote into it. What it says of rollouts is lost; revisions and routing still stand.
                logger.error("%s: %s: beginning anew", self.key, error)  # noqa: TRY400 - one clear line
                status = Status()
            self._status = (held.raw, status)
        return self._status[1]

    async def desired(self) -> Desired | None:
        """Raises ApiError."""
        held = self._object()
        if held is None:
            return None
        reading = self._reading
        if reading is None or reading.generation != held.generation:
            reading = self._reading = read(held, self._around.settings.injection)
        self._tell.saved(self.status())
        for annotation in unknown_orders(held.annotations):
            self._tell.once(conditions.ORDER_REFUSED, f"{annotation}: no such order: there are {', '.join(VERBS)}")
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
        # Conditions of others are theirs to keep: what we write, we own.
        ours = (known for known in status.conditions if known.type in conditions.TYPES and known.type != condition.type)
        await self.save(
            replace(
                status,
                phase="InvalidSpec",
                message=message,
                observed_generation=generation,
                conditions=(*ours, condition),
            )
        )
        self._tell.once(conditions.INVALID_SPEC, message)

    # What is seen

    async def observe(self) -> Observed:
        await asyncio.gather(
            self._gather(values=wants_values(self.status())),
            self._failures.read_logs(self._pods()),
            self._look_at_baselines(),
        )
        return self.seen()

    async def _look_at_baselines(self) -> None:
        spec = self._spec()
        if self._reading is None or spec is None:
            return
        records = (one.record for one in self._revisions().values())
        await self._baselines.look(wanted_baselines(self._reading.metadata, spec, records))

    def _spec(self) -> ModelDeploymentSpec | None:
        """The newest good one, as far as it is known."""
        return (self._reading.spec if self._reading else None) or self._last_good.spec

    async def refresh(self) -> None:
        """Ask the sidecars anew, so that `seen` and `traffic` are fresh."""
        before = self._hindrance(self._pods())
        await self._gather()
        if self._hindrance(self._pods()) != before:
            # No event of the API server tells of it.
            self._around.notify(self.key)

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
        records = {name: one.record for name, one in self._revisions().items()}
        records |= {name: one for name, one in self._lost().items() if name not in records}
        return Observed(
            revisions={name: self._state(one, pods.get(name, [])) for name, one in records.items()},
            weights=self._snapshots.weights(),
            mirrors=self._snapshots.mirrors(),
            epochs=self._snapshots.epochs(),
            values=self._snapshots.values(stable.revision if stable else ""),
            refused=self._failures.refused.get("", ""),
            behind=self._routing.behind(pod.name for some in pods.values() for pod in some if ready(pod)),
            baselines=self._baselines.states,
        )

    def _lost(self) -> dict[str, RevisionRecord]:
        """By name, what can be told of revisions that traffic rests on and that run though their record was deleted."""
        spec, status = self._spec(), self.status()
        versions = {entry.revision: entry.version for entry in status.history}
        relied_on = {status.rollout.previous} if status.rollout else set()
        if status.stable:
            relied_on.add(status.stable.revision)
            versions[status.stable.revision] = status.stable.version
        return {
            held.name: RevisionRecord(
                name=held.name,
                version=versions.get(held.name, held.name),
                template={},
                model=spec.model if spec else Model(),
                tls=spec.tls if spec else None,
            )
            for held in self._mine(DEPLOYMENT)
            if held.revision == held.name and held.name in relied_on
        }

    def _state(self, record: RevisionRecord, pods: list[Held]) -> RevisionState:
        name = record.name
        deployment = self._around.cache.get(DEPLOYMENT, self._namespace, name)
        return RevisionState(
            record=record,
            pods=len(pods),
            ready=sum(map(ready, pods)),
            failure=self._failures.text(name, deployment, pods) or self._not_ready(pods, record.model.port),
        )

    def _not_ready(self, pods: Sequence[Held], port: int) -> str:
        """What a sidecar says, or else what its pod's containers look like."""
        now = time.time()
        return self._hindrance(pods) or next((why for pod in pods if (why := long_unready(pod, port, now))), "")

    def _hindrance(self, pods: Iterable[Held]) -> str:
        return next((why for pod in pods if not ready(pod) and (why := self._snapshots.not_ready(pod.name))), "")

    def traffic(self) -> Mapping[str, Traffic]:
        return self._snapshots.traffic()

    def monitored(self) -> Mapping[str, Monitored]:
        return self._snapshots.monitored()

    def _pods(self) -> list[Held]:
        return [pod for pod in self._around.cache.owned(POD, self.key) if pod.revision and counts(pod)]

    def _revisions(self) -> dict[str, Kept]:
        """Also those that a model deployment of this name left behind: their data can never be written anew."""
        left = (held for held in self._around.cache.owned(CONTROLLER_REVISION, self.key) if _left_behind(held))
        return self._kept.read([*self._mine(CONTROLLER_REVISION), *left])

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
        self._around.cache.saved(MODEL_DEPLOYMENT, answer)
        self._tell.saved(status)

    async def apply(self, desired: Desired, plan: Plan) -> None:
        """Records, routing and Services, then pods, then what is no longer wanted. Raises ApiError.

        What the API server refuses of a revision becomes its failure; the others go on. Without the routing nothing
        does: pods come and go by what it says.
        """
        held = self._object()
        if held is None:
            return
        routing = self._routing.wanted(desired, plan, self._baselines.states)
        known = {name: one.injected for name, one in self._revisions().items()}
        lost = {record.name for record in plan.records if record.lost}
        # Nobody knows what their pods are made of: what is there stays as it is, as long as it is wanted.
        plan = replace(plan, records=tuple(record for record in plan.records if not record.lost))
        left_alone = {name for name in lost if plan.replicas.get(name)}
        refresh = held.refresh
        refreshed = _meant(refresh, plan) if refresh else set()
        wanted = manifests(
            owner=OwnerRef(name=self._name, uid=self.uid),
            metadata=desired.metadata,
            spec=desired.spec,
            plan=plan,
            routing=routing,
            settings=self._around.settings.injection,
            injected={name: patch for name, patch in known.items() if name not in refreshed},
        )
        if await self._bring(wanted, routing):
            await self._sweep(wanted, left_alone)
        if not desired.problems:
            await self._remember(desired, wanted[0]["metadata"])
        self._tell_notes(desired, plan, known)
        if refresh is not None:
            await self._tell_refreshed(refresh, refreshed)

    async def _remember(self, desired: Desired, sibling: Mapping[str, Any]) -> None:
        try:
            await self._last_good.remember(desired.spec, sibling)
        except ApiError as error:
            if not error.refused:
                raise
            # Everything runs; only a later spec that is wrong would find nothing to go on with.
            self._tell.once(conditions.APPLY_REFUSED, f"the last good spec is not kept: {error}")

    async def _bring(self, wanted: Iterable[Mapping[str, Any]], routing: Routing | None) -> bool:
        """Whether the routing is there, and so all that follows from it."""
        refused: dict[str, str] = {}
        marks: set[str] = set()
        first = ""
        routed = True
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
                revision = obj["metadata"]["labels"].get(labels.REVISION, "")
                refused.setdefault(revision, f"{kind.name} refused: {result}"[:1000])
                # By what was refused and how: words that differ from one try to the next are no news.
                mark = f"{kind.name} {obj['metadata']['name']} {result.status}"
                first = first or mark
                marks.add(mark)
            if kind is SECRET and refused.get(""):
                routed = False
                break
            if kind is SECRET and routing is not None:
                written = True in results and self._routing.changes
                await self._routing.spread(routing, self._pods(), written=written)
        self._failures.refused = refused
        if marks != self._refused:
            self._refused = marks
            self._around.notify(self.key)
        if refused:
            self._tell.once(conditions.APPLY_REFUSED, next(iter(refused.values())), mark=first)
        return routed

    async def _sweep(self, wanted: Iterable[Mapping[str, Any]], left_alone: Container[str]) -> None:
        """Delete the children that are not wanted; pods first, so that nothing they need goes before them.

        `left_alone`: revisions whose children stay, wanted or not.
        """
        places = {(kind_of(obj), obj["metadata"]["name"]) for obj in wanted}
        self._kept.forget_all_but(name for kind, name in places if kind is CONTROLLER_REVISION)
        for kind in reversed(CHILDREN):
            if kind is SECRET:
                continue  # the routing file, which stays: so nobody has to give us the right to delete Secrets
            for held in self._mine(kind):
                if (kind, held.name) not in places and held.revision not in left_alone:
                    await self._around.applier.remove(held)

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

    def _tell_notes(self, desired: Desired, plan: Plan, known: Mapping[str, Patch]) -> None:
        """What there is to say about the pods of revisions that are new."""
        owner, settings = OwnerRef(name=self._name, uid=self.uid), self._around.settings.injection
        for record in plan.records:
            if record.name not in known:
                for note in inject_revision(record, owner, desired.metadata, settings).notes:
                    self._tell.once("PodNote", f"{record.version}: {note}", warning=False)

    async def _tell_refreshed(self, refresh: Refresh, revisions: Iterable[str]) -> None:
        by = f" by {refresh.actor}" if refresh.actor else ""
        if revisions:
            names = ", ".join(sorted(revisions))
            self._tell.say("Refreshed", f"ordered{by}: {names} get the sidecar of this operator, pod by pod")
        else:
            message = f"refresh{by}: {refresh.revision or 'nothing'} does not run"
            self._tell.say(conditions.ORDER_REFUSED, message, warning=True)
        await self.take_away(ANNOTATIONS[REFRESH], refresh.value)


def _left_behind(held: Held) -> bool:
    """Ours, and nobody's now: by `kubectl delete --cascade=orphan`."""
    if held.owner_uid or held.ending or not held.owned:
        return False
    owners = held.body["metadata"].get("ownerReferences") or ()
    return not any(owner.get("controller") for owner in owners)


def _meant(refresh: Refresh, plan: Plan) -> set[str]:
    """Revisions that run and that an order is about: by name or version, or all."""
    running = {record.name: record.version for record in plan.records if plan.replicas.get(record.name)}
    return {name for name, version in running.items() if refresh.revision in ("", name, version)}


def _socket(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
