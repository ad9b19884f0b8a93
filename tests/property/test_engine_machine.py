"""The design's invariants as a state machine: specs, orders, alerts, dying pods and a dying operator, in any order."""

from __future__ import annotations

import contextlib
import copy
from typing import Literal

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace
from tests.property.world import METADATA, CrashError, World, alert, make_spec, mirroring, monitored

from coalmine_operator.api.monitoring import Monitoring
from coalmine_operator.engine import BaselineState, Order, step
from coalmine_operator.engine.alerts import action_of
from coalmine_operator.engine.traffic import share_out

VERSIONS = ("v1", "v2", "v3")
#: Names and actions.
ALERTS = (
    ("ModelLatencyHigh", ""),
    ("RecallDrop", "rollback"),
    ("DisparateImpact", "hold"),
    ("ModelUnavailable", "fallback"),
)
WRITES = ("step", "save", "routing", "pods")
Problem = Literal["", "missing", "mismatch", "unreadable"]


class RolloutMachine(RuleBasedStateMachine):
    """`reconcile` may die after any write; pods die and come up; sidecars read the file when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.orders = 0
        self.traffic = False

    @initialize(**dict.fromkeys(("traffic", "fallback", "mirror", "baseline", "actions", "second"), st.booleans()))
    def begin(self, traffic: bool, fallback: bool, mirror: bool, baseline: bool, actions: bool, second: bool) -> None:
        self.traffic = traffic
        if actions:
            self.world.spec = replace(self.world.spec, monitoring=Monitoring())
        if baseline:
            self.world.spec = monitored(self.world.spec)
        if mirror:
            self.world.spec = mirroring(self.world.spec)
        if not fallback:
            self.world.spec = replace(self.world.spec, fallback=None)
        self.world.settle(3, traffic=0)
        if second:  # so that v1 is there to fall back to
            self.edit_the_spec("v2")
            self.give_an_order("promote")
            self.world.reconcile()
            self.give_an_order("promote")
            self.world.settle(40, traffic=0)

    @rule(version=st.sampled_from(VERSIONS))
    def edit_the_spec(self, version: str) -> None:
        fresh = make_spec(version)
        self.world.spec = replace(self.world.spec, template=fresh.template, model=fresh.model)

    @rule(verb=st.sampled_from(("promote", "rollback", "pause", "resume", "retry")))
    def give_an_order(self, verb: str) -> None:
        self.orders += 1
        self.world.orders.append(Order(id=str(self.orders), verb=verb))

    @rule(firing=st.booleans(), version=st.sampled_from(("", *VERSIONS)), what=st.sampled_from(ALERTS))
    def hear_of_an_alert(self, firing: bool, version: str, what: tuple[str, str]) -> None:
        name, action = what
        labels = {"action": action} if action else {}
        if version:
            labels["version"] = version
        spec, now = self.world.spec, self.world.now
        if action_of(spec.auto_rollback, spec.monitoring, name, labels) != "none":
            self.world.alert_events.append(alert(name, at=now, resolved_at=0.0 if firing else now, **labels))

    @rule(version=st.sampled_from(VERSIONS))
    def break_or_mend(self, version: str) -> None:
        self.world.broken ^= {version}

    @rule(version=st.sampled_from(VERSIONS), problem=st.sampled_from(("", "missing", "mismatch", "unreadable")))
    def a_baseline_changes(self, version: str, problem: Problem) -> None:
        self.world.baselines[version] = BaselineState(problem=problem, message=problem and f"it is {problem}")

    @precondition(lambda self: self.world.status.stable is not None)
    @rule()
    def the_record_of_stable_is_deleted(self) -> None:
        stable = self.world.status.stable
        if stable is not None and self.world.pods.get(stable.revision):
            self.world.lose_record(stable.revision)

    @rule()
    def pods_start(self) -> None:
        self.world.start_pods()

    @rule(index=st.integers(0, 3))
    def pods_of_a_revision_die(self, index: int) -> None:
        names = sorted(self.world.pods)
        if names:
            self.world.kill_pods(names[index % len(names)])

    @rule()
    def sidecars_read(self) -> None:
        self.world.sync_sidecars()

    @precondition(lambda self: self.traffic)
    @rule(errors=st.dictionaries(st.sampled_from(VERSIONS), st.sampled_from((0.0, 0.3)), max_size=2))
    def requests_come(self, errors: dict[str, float]) -> None:
        if self.world.file_weights:
            self.world.serve(300, errors)

    @rule(seconds=st.sampled_from((1, 10, 70)))
    def time_passes(self, seconds: int) -> None:
        self.world.now += seconds

    @rule(turns=st.integers(1, 25), bad=st.sampled_from((None, None, None, *VERSIONS)))
    def a_while_goes_by(self, turns: int, bad: str | None) -> None:
        for _ in range(turns):
            self.reconcile("pods")
            self.world.start_pods()
            self.world.sync_sidecars()
            if self.traffic and self.world.file_weights:
                self.world.serve(300, {bad: 0.5} if bad else {})
            self.world.now += 1

    @rule(last_write=st.sampled_from(WRITES))
    def reconcile(self, last_write: str) -> None:
        world = self.world
        orders, alerts = list(world.orders), list(world.alert_events)
        stable_before = world.status.stable.revision if world.status.stable else ""
        uids_before = {pod.uid for pod in world.pods.get(stable_before, [])}
        world.removed.clear()
        try:
            world.reconcile(crash_after=last_write)
        except CrashError:
            if last_write == "step":  # nothing was written: orders and alerts come again
                world.orders, world.alert_events = orders, alerts
                return
        self.check_plan()
        self.check_removed(stable_before, uids_before)

    def check_plan(self) -> None:
        world, plan, status = self.world, self.world.plan, self.world.status
        observed = world.observed
        if plan.routing is None:
            return
        weights = {route.revision: route.weight for route in plan.routing.routes}
        # 1: the sum, and nobody without a pod while another has one
        assert sum(weights.values()) == 100
        serving = {route.revision for route in plan.routing.routes if route.track in ("stable", "canary", "fallback")}
        ready = {name for name, state in observed.revisions.items() if state.ready}
        if serving & ready:
            assert all(name in ready for name, weight in weights.items() if weight)
        # 3: a quarantined revision serves nobody, unless it still holds the traffic until stable is at full scale
        last = status.last_rollback
        for entry in status.quarantined:
            waits = last is not None and last.source == entry.revision and not last.shifted_at
            assert waits or not weights.get(entry.revision)
        # 2: a target that was scaled down gets traffic back at full scale only
        if last is not None and last.promoted and not last.shifted_at and weights.get(last.target):
            raise AssertionError("traffic moved without being noted")
        # 6: a rollback that needs nobody to scale up takes effect in the plan that decided it (once out of quarantine,
        # by `retry`, its source may stand in for a stable without pods)
        out = {entry.revision for entry in status.quarantined}
        if last is not None and last.shifted_at and status.rollout is None and status.stable and last.source in out:
            assert not weights.get(last.source) or last.source == status.stable.revision
        # 7: whoever may fail has somebody behind it
        if status.canary is not None and weights.get(status.canary.revision) and status.stable:
            assert status.stable.revision in plan.routing.chain
        if status.fallback is not None and status.stable is not None:
            assert status.fallback.revision in plan.routing.chain
        # the fallback takes from a stable that is ready only what an alert asks of it
        fallback = next((route for route in plan.routing.routes if route.track == "fallback" and route.weight), None)
        if fallback is not None and status.stable is not None and status.stable.revision in ready:
            assert fallback.weight == 100
            assert any(known.labels.get("action") == "fallback" for known in status.alerts)
            assert status.phase != "Healthy"
        # a rollout that an alert holds takes no step
        if any(condition.reason == "HeldByAlert" for condition in status.conditions):
            rollout, before = status.rollout, world.before.rollout
            assert rollout is not None
            if before is not None and before.id == rollout.id:
                assert (before.step, before.weight, before.mirror) == (rollout.step, rollout.weight, rollout.mirror)
        # copies go where they harm nobody: of a stable that serves, to a ready canary without users
        if plan.routing.mirror:
            assert status.canary is not None
            assert status.stable is not None
            assert not weights.get(status.canary.revision)
            assert {status.canary.revision, status.stable.revision} <= ready
        # a canary with another version's baseline never gets all traffic, nor becomes stable by it
        before, now = world.before.rollout, status.rollout
        if before is not None and before.previous and not before.promoted_at and before.weight < 100:
            state = observed.baselines.get(before.revision)
            if state is not None and state.problem == "mismatch":
                assert status.stable is None or status.stable.revision != before.revision
                assert now is None or now.revision != before.revision or now.weight < 100
        # 4: deciding again from what was just decided decides nothing new
        again = replace(observed, orders=(), alert_events=())
        status_again, plan_again = step(world.spec, status, again, world.now, metadata=METADATA)
        third, plan_third = step(world.spec, status_again, again, world.now, metadata=METADATA)
        assert third == status_again
        assert replace(plan_third, events=()) == replace(plan_again, events=())

    def check_removed(self, stable_before: str, uids_before: set[int]) -> None:
        world = self.world
        for revision, _, in_force in world.removed:
            # 2: no sidecar in sight gives weight to what is scaled to nothing
            if not world.plan.replicas.get(revision):
                assert in_force == 0, f"pods of {world.version_of(revision)} went with weight {in_force} in force"
        stable = world.status.stable.revision if world.status.stable else ""
        if stable and stable == stable_before:
            # 3: while a revision stays stable, none of its pods is taken away
            assert not {uid for name, uid, _ in world.removed if name == stable} & uids_before

    @invariant()
    def no_rollback_without_a_reason(self) -> None:
        # 5: without traffic there is neither a Fail nor a promotion by steps
        if not self.traffic:
            assert all(entry.reason != "AnalysisFailed" for entry in self.world.status.history)
            assert all(entry.reason != "PromotedBySteps" for entry in self.world.status.history)
            assert all(v.verdict == "Unknown" for v in self.world.status.verdicts if v.metric != "baseline")

    @invariant()
    def lists_stay_bounded(self) -> None:
        status = self.world.status
        assert len(status.history) <= 20
        assert len(status.quarantined) <= 20
        assert len(status.alerts) <= 50
        assert len(self.world.records) <= len(VERSIONS)

    def teardown(self) -> None:
        """Left in peace, every story ends at rest: no deadlock, and a second settling changes nothing."""
        world = self.world
        world.broken.clear()
        world.baselines.clear()
        world.orders.clear()
        for known in (*world.status.alerts, *world.alert_events):
            world.alert_events.append(replace(known, resolved_at=world.now))
        world.settle(60, turns_of=5, traffic=300)
        if world.status.rollout is not None and world.status.rollout.held:
            world.orders.append(Order(id="end", verb="resume"))
            world.settle(60, turns_of=5, traffic=300)
        assert world.status.phase in ("Healthy", "Degraded"), (world.status.phase, world.status.message)
        if world.status.phase == "Degraded":
            assert world.status.quarantined
        writes = world.writes
        world.settle(10, traffic=300)
        assert world.writes == writes


RolloutMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRollouts = RolloutMachine.TestCase


@settings(max_examples=25, deadline=None)
@given(
    kills=st.lists(st.tuples(st.integers(0, 70), st.sampled_from(WRITES[:3])), max_size=8),
    bad=st.booleans(),
    mirror=st.booleans(),
)
def test_killing_the_operator_anywhere_leads_to_the_same_end(
    kills: list[tuple[int, str]], bad: bool, mirror: bool
) -> None:
    """Invariant 4 as whole stories: v1 is stable, v2 comes, good or bad; the operator dies here and there."""
    ends = []
    for crashes in ({}, dict(kills)):
        world = World()
        world.settle(4)
        world.spec = mirroring(make_spec("v2")) if mirror else make_spec("v2")
        for turn in range(100):
            with contextlib.suppress(CrashError):
                world.reconcile(crash_after=crashes.get(turn, ""))
            world.start_pods()
            world.sync_sidecars()
            world.serve(300, {"v2": 0.4} if bad else {})
            world.now += 1
        if bad and mirror:
            assert world.served["v2"] == 0
        status = world.status
        ends.append(
            (
                status.phase,
                status.stable.version if status.stable else "",
                sorted(q.version for q in status.quarantined),
                [(entry.version, entry.result) for entry in status.history],
                world.file_weights,
                {world.version_of(name): len(pods) for name, pods in world.pods.items()},
            )
        )
    assert ends[0] == ends[1]


PROBLEMS = ("", "missing", "mismatch", "unreadable")


@settings(max_examples=60, deadline=None)
@given(
    first=st.sampled_from(PROBLEMS),
    changes=st.dictionaries(st.integers(0, 60), st.sampled_from(PROBLEMS), max_size=6),
    orders=st.dictionaries(st.integers(0, 60), st.sampled_from(("promote", "pause", "resume")), max_size=6),
    kills=st.dictionaries(st.integers(0, 60), st.sampled_from(WRITES[:3]), max_size=4),
    policy=st.sampled_from(("Wait", "Pause")),
)
def test_no_order_and_no_crash_promotes_a_canary_with_another_versions_baseline(
    first: Problem,
    changes: dict[int, Problem],
    orders: dict[int, Literal["promote", "pause", "resume"]],
    kills: dict[int, str],
    policy: Literal["Wait", "Pause"],
) -> None:
    """And once it is its own, and somebody resumes what an order holds, it becomes stable."""
    world = World(monitored(make_spec("v1")))
    world.settle(4)
    spec = monitored(make_spec("v2"))
    world.spec = replace(spec, analysis=replace(spec.analysis, on_inconclusive=policy))
    problem = first
    for turn in range(70):
        problem = changes.get(turn, problem)
        world.baselines["v2"] = BaselineState(problem=problem, message=problem and f"it is {problem}")
        if turn in orders:
            world.orders.append(Order(id=str(turn), verb=orders[turn]))
        before = world.status.rollout
        with contextlib.suppress(CrashError):
            world.reconcile(crash_after=kills.get(turn, ""))
        after = world.status.rollout
        if problem == "mismatch" and before is not None and before.previous and before.weight < 100:
            assert after is not None
            assert after.weight < 100
        world.start_pods()
        world.sync_sidecars()
        world.serve(300, {})
        world.now += 1
    world.baselines.clear()
    for number in range(3):
        world.settle(40)
        if world.status.rollout is not None and world.status.rollout.held:
            world.orders.append(Order(id=f"end {number}", verb="resume"))
    world.settle(40)
    assert world.status.stable is not None
    assert world.status.stable.version == "v2"


@given(
    shares=st.dictionaries(st.sampled_from("abc"), st.integers(1, 100), min_size=1, max_size=3),
    ready=st.sets(st.sampled_from("abcd")),
)
@example(shares={"a": 100, "b": 1}, ready={"b"})
def test_share_out(shares: dict[str, int], ready: set[str]) -> None:
    total = sum(shares.values())
    names = list(shares)
    wanted = {name: share * 100 // total for name, share in shares.items()}
    wanted[names[0]] += 100 - sum(wanted.values())
    weights = share_out(wanted, ["d"], ready.__contains__)
    assert sum(weights.values()) == 100
    if ready & {*(name for name in names if wanted[name]), "d"}:
        assert set(weights) <= ready
    else:
        assert weights == {name: weight for name, weight in wanted.items() if weight}
    for name in ready & set(names):
        assert weights.get(name, 0) >= wanted[name]


def test_step_does_not_change_what_it_is_given() -> None:
    world = World()
    world.settle(5)
    world.spec = make_spec("v2")
    world.settle(3)
    observed = world.observe()
    kept = copy.deepcopy((world.spec, world.status, observed))
    step(world.spec, world.status, observed, world.now, metadata=METADATA)
    assert kept == (world.spec, world.status, observed)
