"""A small world for the engine: pods, sidecars that read their routing file late, an operator that may die anywhere.

Not a mock of our own parts: the engine is the real one, everything around it is reduced to what the engine can see.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from coalmine_operator.api.duration import Duration
from coalmine_operator.api.monitoring import BaselineRef, Monitoring
from coalmine_operator.api.spec import (
    AlertMatch,
    Analysis,
    AutoRollback,
    Canary,
    Fallback,
    Metadata,
    Metric,
    Model,
    ModelDeploymentSpec,
    Pause,
    Step,
    Strategy,
)
from coalmine_operator.api.status import AlertStatus, Status
from coalmine_operator.engine import BaselineState, Observed, Order, Plan, RevisionRecord, RevisionState, step
from coalmine_operator.engine.revisions import target_of
from coalmine_sidecar.contract import EpochCounts

METADATA = Metadata(name="fraud", generation=1)
STEPS = (
    Step(set_weight=10),
    Step(pause=Pause(duration=Duration(10))),
    Step(set_weight=50),
    Step(pause=Pause(requests=50)),
)


MIRROR_STEPS = (Step(set_mirror=20), Step(pause=Pause(requests=40)), *STEPS)
SHADOW = Metric(name="shadow", preset="shadowDisagreement")


def template(version: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "model", "command": ["serve", version]}]}}


def make_spec(version: str = "v1", **changes: Any) -> ModelDeploymentSpec:
    """A deployment with every feature of the engine in use; `changes` replace fields of the spec."""
    spec = ModelDeploymentSpec(
        template=template(version),
        model=Model(version=version),
        replicas=2,
        fallback=Fallback(),
        strategy=Strategy(canary=Canary(steps=STEPS, scale_down_delay=Duration(5))),
        analysis=Analysis(interval=Duration(1), min_requests=20, metrics=(Metric(name="errors", preset="errorRate"),)),
        auto_rollback=AutoRollback(alerts=(AlertMatch(name="ModelLatencyHigh"),), bake_time=Duration(30)),
        progress_deadline_seconds=60,
    )
    return replace(spec, **changes)


def mirroring(spec: ModelDeploymentSpec) -> ModelDeploymentSpec:
    """The same, but tried on copies of requests before it gets users."""
    canary, analysis = spec.strategy.canary, spec.analysis
    return replace(
        spec,
        strategy=Strategy(canary=replace(canary, steps=MIRROR_STEPS)),
        analysis=replace(analysis, metrics=(*analysis.metrics, SHADOW)),
    )


def monitored(spec: ModelDeploymentSpec) -> ModelDeploymentSpec:
    """The same, but a canary is promoted only with a baseline of its own."""
    return replace(spec, monitoring=Monitoring(baseline=BaselineRef(config_map="fraud-baseline")))


def alert(name: str = "ModelLatencyHigh", *, at: float, resolved_at: float = 0.0, **labels: str) -> AlertStatus:
    return AlertStatus(
        fingerprint=f"{name}:{sorted(labels.items())}",
        name=name,
        labels=labels,
        starts_at=at,
        received_at=at,
        resolved_at=resolved_at,
    )


@dataclass
class Pod:
    uid: int
    ready: bool = False
    weights: dict[str, int] = field(default_factory=dict)  # in force in its sidecar
    mirrors: dict[str, int] = field(default_factory=dict)
    epoch: str = ""


class CrashError(Exception):
    """The operator dies here."""


class World:
    """Pods by revision, the routing file, the saved status. `broken` versions never get ready."""

    def __init__(self, spec: ModelDeploymentSpec | None = None) -> None:
        self.spec = spec or make_spec()
        self.now = 1000.0
        self.status = Status()
        self.records: dict[str, RevisionRecord] = {}
        self.pods: dict[str, list[Pod]] = {}
        self.file_weights: dict[str, int] = {}
        self.file_mirrors: dict[str, int] = {}
        self.file_epoch = ""
        self.epochs: dict[str, dict[str, EpochCounts]] = {}
        self.served: Counter[str] = Counter()  # requests of users, by version
        self.values: dict[str, tuple[float, ...]] = {}
        self.broken: set[str] = set()
        self.baselines: dict[str, BaselineState] = {}  # by version; those that are not here are good ones
        self.problems: tuple[str, ...] = ()
        self.refused_by_cluster = ""
        self.behind: tuple[str, ...] = ()
        self.uids = 0
        self.orders: list[Order] = []
        self.alert_events: list[AlertStatus] = []
        self.events: list[str] = []
        self.refused: dict[str, str] = {}
        self.plan = Plan()
        self.writes = 0
        self.removed: list[tuple[str, int, int]] = []  # revision, uid, weight in force when it was removed

    def version_of(self, revision: str) -> str:
        return self.records[revision].version

    def revision_of(self, version: str) -> str:
        return next(name for name, record in self.records.items() if record.version == version)

    def ready(self, revision: str) -> int:
        return sum(pod.ready for pod in self.pods.get(revision, []))

    def in_force(self) -> dict[str, int]:
        weights: dict[str, int] = {}
        for pods in self.pods.values():
            for pod in pods:
                for name, weight in pod.weights.items():
                    weights[name] = max(weight, weights.get(name, 0))
        return {name: weight for name, weight in weights.items() if weight}

    def mirrors(self) -> dict[str, int]:
        return {name: share for pods in self.pods.values() for pod in pods for name, share in pod.mirrors.items()}

    def observe(self) -> Observed:
        return Observed(
            revisions={
                name: RevisionState(
                    record=record,
                    pods=len(self.pods.get(name, [])),
                    ready=self.ready(name),
                    failure="exit code 1: no such file" if record.version in self.broken else "",
                )
                for name, record in self.records.items()
            },
            weights=self.in_force(),
            mirrors=self.mirrors(),
            epochs=self.epochs,
            values=self.values,
            alert_events=tuple(self.alert_events),
            orders=tuple(self.orders),
            problems=self.problems,
            refused=self.refused_by_cluster,
            behind=self.behind,
            baselines=self.baselines_seen(),
        )

    def baselines_seen(self) -> dict[str, BaselineState]:
        if self.spec.monitoring is None:
            return {}
        records = [*self.records.values(), target_of(METADATA, self.spec, self.now)]
        return {record.name: self.baselines.get(record.version, BaselineState(digest="sha256:0")) for record in records}

    def reconcile(self, crash_after: str = "") -> Plan:
        """observe -> step -> save -> routing file -> pods; the operator dies after the write named."""
        observed = self.observe()
        status, plan = step(self.spec, self.status, observed, self.now, metadata=METADATA)
        self.observed, self.plan, self.before = observed, plan, self.status
        if crash_after == "step":
            raise CrashError
        if status != self.status:
            self.status = status
            self.writes += 1
        self.events += [event.reason for event in plan.events]
        self.refused |= plan.refused
        self.orders.clear()
        self.alert_events.clear()
        if crash_after == "save":
            raise CrashError
        self.apply_routing(plan)
        if crash_after == "routing":
            raise CrashError
        self.apply_pods(plan)
        return plan

    def apply_routing(self, plan: Plan) -> None:
        self.records |= {record.name: record for record in plan.records}
        if plan.routing is not None:
            weights = {route.revision: route.weight for route in plan.routing.routes if route.weight}
            canary = next((route.revision for route in plan.routing.routes if route.track == "canary"), "")
            mirrors = {canary: plan.routing.mirror} if plan.routing.mirror else {}
            if (weights, mirrors, plan.routing.epoch) != (self.file_weights, self.file_mirrors, self.file_epoch):
                self.writes += 1
            self.file_weights, self.file_mirrors, self.file_epoch = weights, mirrors, plan.routing.epoch

    def apply_pods(self, plan: Plan) -> None:
        for name in [*self.pods, *plan.replicas]:
            pods, wanted = self.pods.setdefault(name, []), plan.replicas.get(name, 0)
            while len(pods) < wanted:
                self.uids += 1
                pods.append(Pod(uid=self.uids))
                self.writes += 1
            while len(pods) > wanted:
                # As a ReplicaSet does: those that are not ready go first.
                pods.sort(key=lambda pod: not pod.ready)
                pod = pods.pop()
                self.removed.append((name, pod.uid, self.in_force().get(name, 0)))
                self.writes += 1
        kept = {record.name for record in plan.records}
        for name in [name for name in self.records if name not in kept]:
            assert not self.pods.get(name), f"the record of {name} went before its pods"
            del self.records[name]
        self.pods = {name: pods for name, pods in self.pods.items() if pods or name in self.records}

    def start_pods(self) -> None:
        for name, pods in self.pods.items():
            for pod in pods:
                pod.ready = self.version_of(name) not in self.broken

    def sync_sidecars(self) -> None:
        for pods in self.pods.values():
            for pod in pods:
                pod.weights, pod.epoch = dict(self.file_weights), self.file_epoch
                pod.mirrors = dict(self.file_mirrors)

    def serve(self, requests: int, error_rate: dict[str, float] | None = None) -> None:
        """Requests split as the sidecars do it, with a share of errors by version; in copies they are disagreements."""
        counts = self.epochs.setdefault(self.file_epoch, {})
        for name, weight in self.file_weights.items():
            cell = counts.setdefault(name, EpochCounts())
            share = requests * weight // 100
            errors = round(share * (error_rate or {}).get(self.version_of(name), 0.0))
            cell.requests += share
            cell.errors += errors
            cell.answered += share - errors
            self.served[self.version_of(name)] += share
        for name, percent in self.file_mirrors.items():
            cell = counts.setdefault(name, EpochCounts())
            copies = requests * percent // 100
            cell.compared += copies
            cell.disagreed += round(copies * (error_rate or {}).get(self.version_of(name), 0.0))

    def lose_record(self, revision: str) -> None:
        """Somebody deleted it while no operator was there to put it back; its pods run on."""
        record = self.records[revision]
        self.records[revision] = RevisionRecord(name=revision, version=record.version, template={}, model=record.model)

    def kill_pods(self, revision: str) -> None:
        for pod in self.pods.get(revision, []):
            pod.ready = False

    def settle(
        self, turns: int = 60, *, turns_of: float = 1.0, traffic: int = 200, errors: dict[str, float] | None = None
    ) -> None:
        """Let everything work for a while: so many turns of so many seconds."""
        for _ in range(turns):
            self.reconcile()
            self.start_pods()
            self.sync_sidecars()
            if traffic:
                self.serve(traffic, errors)
            self.now += turns_of
        self.reconcile()
