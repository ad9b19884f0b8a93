"""The engine's phases, one story each. Phases and orders that interleave freely are in tests/property."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.property.world import World, alert, make_spec, template

from coalmine_operator.api.duration import Duration
from coalmine_operator.api.spec import Analysis, AutoRollback, Baseline, Canary, Fallback, Metric, Pause, Step, Strategy
from coalmine_operator.api.status import MAX_EVENTS
from coalmine_operator.engine import Order


def order(verb: str, revision: str = "") -> Order:
    return Order(id=f"order-{verb}", verb=verb, revision=revision, actor="ada@laptop")


def with_steps(*steps: Step, **changes: object) -> World:
    """A world where v1 is stable and the strategy has these steps."""
    spec = make_spec()
    world = World(replace(spec, strategy=Strategy(canary=replace(spec.strategy.canary, steps=steps)), **changes))
    world.settle(5)
    assert world.status.phase == "Healthy"
    return world


def edit(world: World, version: str, **changes: object) -> None:
    fresh = make_spec(version)
    world.spec = replace(world.spec, template=fresh.template, model=fresh.model, **changes)


def condition(world: World, kind: str) -> tuple[str, str, str]:
    (found,) = (c for c in world.status.conditions if c.type == kind)
    return found.status, found.reason, found.message


def test_first_revision_becomes_stable_without_a_canary() -> None:
    world = World()
    world.reconcile()
    assert world.status.phase == "Pending"
    assert world.status.canary is None
    assert world.status.stable is not None
    assert (world.status.stable.version, world.status.stable.ready, world.status.stable.desired) == ("v1", 0, 2)
    world.orders.append(order("promote"))
    world.reconcile()
    assert "needs no promotion" in world.refused["order-promote"]
    world.settle(3)
    assert world.status.phase == "Healthy"
    assert world.status.stable is not None
    assert (world.status.stable.version, world.status.stable.weight, world.status.stable.ready) == ("v1", 100, 2)
    assert world.events == ["RolloutStarted", "OrderRefused", "Promoted"]


def test_a_first_revision_changed_before_it_was_ready_is_replaced() -> None:
    world = World()
    world.broken.add("v1")
    world.settle(5, traffic=0)
    edit(world, "v2")
    world.settle(10, traffic=0)
    assert world.status.phase == "Healthy"
    assert world.status.stable is not None
    assert world.status.stable.version == "v2"
    assert [(h.version, h.result) for h in world.status.history] == [("v1", "Withdrawn"), ("v2", "Promoted")]
    assert not world.pods.get(world.revision_of("v1"))


def test_a_canary_goes_through_its_steps_and_bakes() -> None:
    world = World()
    world.settle(5)
    world.events.clear()
    edit(world, "v2")
    seen = []
    for _ in range(120):
        world.settle(1)
        now = (world.status.phase, world.status.canary.weight if world.status.canary else None)
        if not seen or seen[-1] != now:
            seen.append(now)
    assert seen == [
        ("Progressing", 10),
        ("Progressing", 50),
        ("Promoting", 50),
        ("Promoting", 100),
        ("Baking", None),
        ("Healthy", None),
    ]
    assert world.events == [
        "RolloutStarted", "WeightSet", "WeightSet", "Promoting", "Promoted", "BakeTimeOver",
    ]  # fmt: skip
    assert [(h.version, h.result) for h in world.status.history] == [("v1", "Promoted"), ("v2", "Promoted")]


def test_why_a_canary_has_no_pods_is_told() -> None:
    world = with_steps(Step(set_weight=10))
    world.broken.add("v2")
    edit(world, "v2")
    world.settle(3)
    message = "0 of 1 pods of v2 ready: exit code 1: no such file"
    assert world.status.message == message
    assert condition(world, "Progressing") == ("True", "WaitingForPods", message)
    world.broken.clear()
    world.settle(3)
    assert condition(world, "Progressing")[:2] == ("True", "RolloutInProgress")


def test_sidecars_that_do_not_take_up_a_weight_are_named_after_a_while() -> None:
    world = with_steps(Step(set_weight=10))
    edit(world, "v2")
    world.behind = tuple(f"p{number} routes by generation 3, not 4" for number in range(5))
    world.reconcile()
    world.start_pods()
    for _ in range(29):
        world.reconcile()
        assert "p0" not in world.status.message
        world.now += 1
    assert world.status.message == "sidecars take up weight 10"
    world.now += 2
    world.reconcile()
    assert world.status.message.startswith(
        "sidecars take up weight 10: p0 routes by generation 3, not 4, p1 routes by generation 3, not 4, "
        "p2 routes by generation 3, not 4 and 2 more; delete a pod"
    )
    world.sync_sidecars()
    world.reconcile()
    assert "take up weight 10" not in world.status.message


def test_weight_waits_for_pods_and_pods_for_the_step() -> None:
    world = with_steps(Step(set_weight=10), Step(pause=Pause(duration=Duration(3))), Step(set_weight=100))
    edit(world, "v2")
    plan = world.reconcile()
    canary = world.revision_of("v2")
    assert plan.replicas[canary] == 1  # 10 % of two pods
    assert world.file_weights == {world.revision_of("v1"): 100}
    for _ in range(5):
        plan = world.reconcile()
        world.now += 1
    assert "0 of 1 pods of v2 ready" in world.status.message
    assert canary not in world.file_weights
    world.start_pods()
    world.reconcile()
    assert world.file_weights[canary] == 10


def test_a_failing_verdict_rolls_back_and_quarantines() -> None:
    world = World()
    world.settle(5)
    stable_pods = {pod.uid for pod in world.pods[world.revision_of("v1")]}
    edit(world, "v2")
    world.settle(60, errors={"v2": 0.5})
    assert world.status.phase == "Degraded"
    last = world.status.last_rollback
    assert last is not None
    assert (last.source_version, last.target_version, last.reason) == ("v2", "v1", "AnalysisFailed")
    assert last.done_at >= last.at
    assert last.evidence[0].verdict == "Fail"
    assert last.evidence[0].statistic >= last.evidence[0].threshold
    assert [q.version for q in world.status.quarantined] == ["v2"]
    assert {pod.uid for pod in world.pods[world.revision_of("v1")]} == stable_pods
    assert not world.pods.get(world.revision_of("v2"))
    assert world.spec.model.version == "v2"
    history = world.status.history[-1]
    assert (history.result, history.reason, history.verdicts[0].verdict) == ("RolledBack", "AnalysisFailed", "Fail")


def test_retry_and_a_changed_template_end_a_quarantine() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(60, errors={"v2": 0.5})
    world.settle(30)
    assert world.status.phase == "Degraded"
    world.orders.append(order("retry"))
    world.settle(120)
    assert world.status.phase == "Healthy"
    assert world.status.stable is not None
    assert world.status.stable.version == "v2"

    edit(world, "v3")
    world.settle(60, errors={"v3": 0.5})
    edit(world, "v4")
    world.settle(120)
    assert world.status.stable.version == "v4"


@pytest.mark.parametrize("phase", ["Progressing", "Baking"])
def test_an_alert_that_begins_to_fire_rolls_back(phase: str) -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    while world.status.phase != phase or (phase == "Progressing" and not world.status.rollout.weight):
        world.settle(1)
    world.alert_events.append(alert(at=world.now))
    before = world.now
    world.reconcile()
    v1, v2 = world.revision_of("v1"), world.revision_of("v2")
    assert world.file_weights == {v1: 100}  # in the very same step
    assert world.status.last_rollback is not None
    assert world.status.last_rollback.reason == "AlertFiring"
    assert world.status.last_rollback.at == before
    assert world.status.phase == "RollingBack"
    world.settle(20)
    assert world.status.phase == "Degraded"
    assert v2 not in world.pods or not world.pods[v2]


def test_an_alert_from_before_the_rollout_blocks_promotion_and_does_not_roll_back() -> None:
    world = World()
    world.settle(5)
    world.alert_events.append(alert(at=world.now))
    world.settle(2)
    edit(world, "v2")
    world.settle(60)
    assert world.status.phase == "Progressing"
    assert "PreexistingAlert" in world.status.message
    world.alert_events.append(alert(at=world.now - 60, resolved_at=world.now))
    world.settle(10)
    assert world.status.phase == "Baking"
    assert world.status.last_rollback is None


def test_a_flapping_alert_does_not_oscillate() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(5)
    for _ in range(10):
        world.alert_events.append(alert(at=world.now))
        world.settle(3)
        world.alert_events.append(alert(at=world.now - 3, resolved_at=world.now))
        world.settle(3)
    assert world.events.count("RolledBack") == 1
    assert world.events.count("RolloutStarted") == 2
    assert world.status.phase == "Degraded"


def test_an_alert_about_stable_is_not_the_canarys_fault() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(8)
    world.alert_events.append(alert(at=world.now, version="v1"))
    world.settle(5)
    assert world.status.phase == "Progressing"


def test_no_traffic_is_unknown_and_holds() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(300, traffic=0)
    assert world.status.phase == "Progressing"
    assert world.status.verdicts[0].verdict == "Unknown"
    assert world.status.canary is not None
    assert world.status.canary.weight == 10


@pytest.mark.parametrize(("choice", "phase"), [("Wait", "Progressing"), ("Pause", "Paused"), ("Rollback", "Degraded")])
def test_on_inconclusive(choice: str, phase: str) -> None:
    world = World()
    world.settle(5)
    edit(world, "v2", analysis=replace(world.spec.analysis, on_inconclusive=choice))
    world.settle(60, traffic=0)
    assert world.status.phase == phase
    if choice == "Pause":
        world.orders.append(order("resume"))
        world.settle(5, traffic=0)
        assert world.status.canary is not None
        assert world.status.canary.weight == 50


def test_a_canary_that_is_never_ready_fails_on_its_deadline_with_its_log() -> None:
    world = World()
    world.settle(5)
    world.broken.add("v2")
    edit(world, "v2")
    world.settle(59)
    assert world.status.phase == "Progressing"
    world.settle(20)
    assert world.status.phase == "Degraded"
    assert world.status.last_rollback is not None
    assert world.status.last_rollback.reason == "ProgressDeadlineExceeded"
    assert "no such file" in world.status.last_rollback.message
    assert not any(route.weight for route in world.plan.routing.routes if route.track != "stable")


def test_a_first_revision_that_is_never_ready_says_why_and_goes_on_trying() -> None:
    world = World()
    world.broken.add("v1")
    world.settle(70, traffic=0)
    assert world.status.phase == "Degraded"
    assert "no such file" in world.status.message
    world.broken.clear()
    world.settle(5)
    assert world.status.phase == "Healthy"


def test_pause_until_told() -> None:
    world = with_steps(Step(set_weight=10), Step(pause=Pause()), Step(set_weight=50))
    edit(world, "v2")
    world.settle(30)
    assert world.status.phase == "Paused"
    assert world.status.canary is not None
    assert world.status.canary.weight == 10
    world.orders.append(order("resume"))
    world.settle(10)
    assert world.status.phase == "Baking"


def test_pause_by_requests_counts_over_epochs() -> None:
    late = Metric(name="late", preset="errorRate", initial_delay=Duration(2))
    world = with_steps(
        Step(set_weight=10),
        Step(pause=Pause(requests=100)),
        Step(set_weight=20),
        Step(pause=Pause(requests=1000)),
        analysis=Analysis(interval=Duration(1), metrics=(late,), min_requests=1),
    )
    edit(world, "v2")
    world.settle(4)  # 20 canary requests a second, in two epochs: a warm-up ends on the way
    assert world.status.canary is not None
    assert world.status.canary.weight == 10
    assert world.status.message.endswith("of 100 canary requests")
    rollout = world.status.rollout
    assert rollout is not None
    assert rollout.step_requests > 0
    world.settle(3)
    assert world.status.canary is not None
    assert world.status.canary.weight > 10


@pytest.mark.parametrize("how", ["order", "spec"])
def test_paused_holds_weights_and_still_rolls_back(how: str) -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(5)
    if how == "order":
        world.orders.append(order("pause"))
    else:
        world.spec = replace(world.spec, paused=True)
    world.settle(100)
    assert world.status.phase == "Paused"
    assert world.status.canary is not None
    assert world.status.canary.weight == 10
    world.settle(60, errors={"v2": 0.5})
    assert world.status.phase == "Degraded"


def test_promote_skips_the_rest_and_names_who_told_it() -> None:
    world = with_steps(Step(set_weight=10), Step(pause=Pause()), Step(set_weight=50))
    edit(world, "v2")
    world.settle(5, traffic=0)
    world.orders.append(order("promote", "v2"))
    world.settle(6, traffic=0)
    assert world.status.stable is not None
    assert world.status.stable.version == "v2"
    assert world.status.history[-1].reason == "PromotedByOrder"


def test_orders_that_mean_nothing_are_refused_with_the_reason() -> None:
    world = World()
    world.settle(5)
    for verb in ("promote", "pause", "resume", "retry", "rollback"):
        world.orders.append(order(verb))
    world.reconcile()
    assert world.refused == {
        "order-promote": "no rollout is under way",
        "order-pause": "no rollout is under way",
        "order-resume": "no rollout is under way",
        "order-retry": "v1 is not quarantined",
        "order-rollback": "no previous revision is kept",
    }
    edit(world, "v2")
    world.settle(3)
    world.orders.append(order("promote", "v7"))
    world.reconcile()
    assert "the order names v7, but now it is about v2" in world.refused["order-promote"]
    assert world.status.phase == "Progressing"


def test_an_order_that_comes_again_after_a_crash_is_obeyed_only_once() -> None:
    """Taken twice, a rollback would take out the canary and then stable itself."""
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(60)
    assert world.status.phase == "Healthy"
    edit(world, "v3")
    world.settle(1)
    written = Order(id="rollback=@10:00:00", verb="rollback", repeats=True)
    for _ in range(3):
        world.orders.append(written)
        world.settle(2)
    assert world.status.stable is not None
    assert world.status.stable.version == "v2"
    assert world.events.count("RolledBack") == 1
    world.orders.append(replace(written, id="rollback=@10:05:00"))
    world.settle(2)
    assert world.status.stable.version == "v1"


def test_rollback_by_order_long_after_promotion_waits_for_full_scale() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(120)
    assert world.status.phase == "Healthy"
    v1, v2 = world.revision_of("v1"), world.revision_of("v2")
    assert len(world.pods[v1]) == 1  # one warm pod as the fallback
    edit(world, "v3")
    world.reconcile()
    edit(world, "v2")
    world.settle(40)
    world.orders.append(order("rollback"))
    world.reconcile()
    assert world.file_weights == {v2: 100}
    assert world.plan.replicas[v1] == 2
    world.settle(3)
    assert world.file_weights == {v1: 100}
    world.settle(20)
    assert not world.pods.get(v2)
    without = "v2 was rolled back: the next promotion leaves a fallback"
    assert condition(world, "FallbackReady") == ("False", "NoFallback", without)
    assert world.status.history[-1].actor == "ada@laptop"
    assert [(h.id, h.version, h.result) for h in world.status.history] == [
        (1, "v1", "Promoted"),
        (2, "v2", "Promoted"),
        (3, "v3", "Withdrawn"),
        (2, "v2", "RolledBack"),
    ]


def test_a_spec_changed_on_the_way_withdraws_and_starts_anew() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(8)
    assert world.status.canary is not None
    edit(world, "v3")
    world.reconcile()
    assert world.file_weights == {world.revision_of("v1"): 100}
    assert [(h.version, h.result) for h in world.status.history] == [("v1", "Promoted"), ("v2", "Withdrawn")]
    world.settle(120)
    assert world.status.stable is not None
    assert world.status.stable.version == "v3"
    assert not world.pods.get(world.revision_of("v2"))
    assert not world.status.quarantined


def test_two_changes_in_a_row_only_the_last_counts() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.reconcile()
    edit(world, "v3")
    world.reconcile()
    edit(world, "v4")
    world.settle(120)
    assert [h.version for h in world.status.history if h.result == "Promoted"] == ["v1", "v4"]


def test_back_to_the_stables_own_template_is_a_withdrawal() -> None:
    world = World()
    world.settle(5)
    pods = {pod.uid for pod in world.pods[world.revision_of("v1")]}
    edit(world, "v2")
    world.settle(8)
    edit(world, "v1")
    world.settle(20)
    assert world.status.phase == "Healthy"
    assert not world.status.quarantined
    assert {pod.uid for pod in world.pods[world.revision_of("v1")]} == pods
    edit(world, "v2")  # and it may come back without `retry`
    world.settle(120)
    assert world.status.stable is not None
    assert world.status.stable.version == "v2"


def test_a_change_during_the_bake_starts_from_the_new_stable() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    while world.status.phase != "Baking":
        world.settle(1)
    edit(world, "v3")
    world.settle(3)
    assert world.status.rollout is not None
    assert world.status.rollout.previous == world.revision_of("v2")


def test_an_invalid_spec_holds_and_still_guards() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(6)
    world.problems = ("spec.replicas: -1 is under 0",)
    world.settle(60)
    assert world.status.phase == "InvalidSpec"
    assert world.status.message == "spec.replicas: -1 is under 0"
    assert world.file_weights[world.revision_of("v2")] == 10
    world.settle(60, errors={"v2": 0.5})
    assert world.file_weights == {world.revision_of("v1"): 100}
    assert world.status.phase == "InvalidSpec"


def test_a_refused_manifest_is_not_promoted() -> None:
    """`kubectl apply`, then `kubectl wait --for=condition=Promoted`: what was promoted is an older one."""
    world = World()
    world.settle(5)
    assert condition(world, "Promoted") == ("True", "RolloutComplete", "")
    world.problems = ("spec.replicas: -1 is under 0",)
    world.settle(1)
    assert condition(world, "Promoted") == ("False", "InvalidSpec", "spec.replicas: -1 is under 0")
    assert condition(world, "Available")[0] == "True"
    world.problems = ()
    world.settle(1)
    assert condition(world, "Promoted") == ("True", "RolloutComplete", "")


def test_a_version_names_one_template_for_ever() -> None:
    world = World()
    world.settle(5)
    world.spec = replace(world.spec, template=template("other"))
    world.settle(5)
    assert world.status.phase == "InvalidSpec"
    assert world.status.message.startswith('spec.model.version: "v1" already names revision fraud-')
    assert len(world.records) == 1


def test_stable_dies_and_the_fallback_gets_its_weight() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(120)
    v1, v2 = world.revision_of("v1"), world.revision_of("v2")
    world.kill_pods(v2)
    world.reconcile()
    assert world.file_weights == {v1: 100}
    assert world.status.phase == "Degraded"
    assert {c.type: (c.status, c.reason) for c in world.status.conditions}["Available"] == ("True", "ServedByFallback")
    world.settle(3)
    assert world.file_weights == {v2: 100}
    assert world.status.phase == "Healthy"


def test_who_answers_is_told_when_it_changes() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(120)
    v1, v2 = world.revision_of("v1"), world.revision_of("v2")
    world.events.clear()
    world.kill_pods(v2)
    world.reconcile()
    world.kill_pods(v1)
    world.reconcile()
    world.reconcile()
    world.settle(3)
    assert world.events == ["ServedByFallback", "NoReadyPods", "MinimumReplicasAvailable"]


def test_events_are_saved_with_the_decision_each_at_its_own_time() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    for _ in range(120):
        before = world.status.events
        plan = world.reconcile()
        kept = world.status.events
        new = kept[len(kept) - len(plan.events) :]
        assert [(e.reason, e.message) for e in new] == [(e.reason, e.message) for e in plan.events]
        assert all(event.at >= world.now for event in new)
        assert plan.events or kept is before
        world.start_pods()
        world.now += 1
    times = [event.at for event in world.status.events]
    assert times == sorted(set(times))
    assert len(times) <= MAX_EVENTS


def test_a_fallback_with_a_template_of_its_own_is_warm_from_the_start() -> None:
    world = World(make_spec(fallback=Fallback(version="simple", template=template("simple"), replicas=1)))
    world.settle(5)
    simple = world.revision_of("simple")
    assert world.plan.replicas[simple] == 1
    assert world.plan.routing is not None
    assert world.plan.routing.chain == (world.revision_of("v1"), simple)
    world.kill_pods(world.revision_of("v1"))
    world.reconcile()
    assert world.file_weights == {simple: 100}


def test_why_there_is_no_fallback_is_told() -> None:
    world = World(make_spec(fallback=None))
    world.settle(5)
    assert condition(world, "FallbackReady") == ("False", "NoFallback", "")
    world.spec = replace(world.spec, fallback=Fallback())
    world.settle(1)
    assert condition(world, "FallbackReady") == ("False", "NoFallback", "no version was stable before this one")
    edit(world, "v2")
    world.settle(120)
    assert condition(world, "FallbackReady") == ("True", "FallbackReady", "v1")
    v1 = world.revision_of("v1")
    world.kill_pods(v1)
    del world.records[v1]
    world.settle(1)
    assert condition(world, "FallbackReady")[1] == "FallbackMissing"
    assert "is not kept any more" in condition(world, "FallbackReady")[2]
    assert condition(world, "Available")[0] == "True"
    edit(world, "v3")
    world.settle(120)
    assert condition(world, "FallbackReady") == ("True", "FallbackReady", "v2")


def test_what_the_platform_cannot_do_is_told_until_it_can() -> None:
    world = World()
    world.refused_by_cluster = "Service refused: taken"
    world.reconcile()
    assert condition(world, "Available") == ("False", "ApplyRefused", "Service refused: taken")
    world.settle(5)
    assert (world.status.phase, world.status.message) == ("Degraded", "Service refused: taken")
    assert condition(world, "Progressing") == ("False", "ApplyRefused", "Service refused: taken")
    assert condition(world, "Available") == ("True", "MinimumReplicasAvailable", "Service refused: taken")
    edit(world, "v2")
    world.settle(4)
    assert (world.status.phase, world.status.message) == ("Progressing", "Service refused: taken; pause of 10s")
    assert condition(world, "Available")[0] == "True", "stable answers"
    world.kill_pods(world.revision_of("v1"))
    world.reconcile()
    assert condition(world, "Available") == ("False", "ApplyRefused", "Service refused: taken")
    world.spec = make_spec()
    world.settle(20)
    world.refused_by_cluster = ""
    world.settle(1)
    assert world.status.phase == "Healthy"
    assert condition(world, "Available")[:2] == ("True", "MinimumReplicasAvailable")


@pytest.mark.parametrize("errors", [{}, {"v2": 0.5}])
def test_a_stable_whose_record_was_deleted_serves_on_until_there_is_a_verdict(errors: dict[str, float]) -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(4)
    v1 = world.revision_of("v1")
    world.lose_record(v1)
    world.settle(2, traffic=0)
    status = world.status
    assert (status.stable and status.stable.version, status.canary and status.canary.version) == ("v1", "v2")
    assert "apply the manifest of v1 once more" in status.message
    assert world.file_weights[v1] == 90
    assert "StableLost" not in world.events
    world.settle(80, errors=errors)
    ends = [(entry.version, entry.result, entry.reason) for entry in world.status.history]
    if errors:
        assert ends[-1] == ("v2", "RolledBack", "AnalysisFailed")
        assert world.file_weights == {v1: 100}
        assert "apply the manifest of v1 once more" in world.status.message
    else:
        assert ends[-1] == ("v2", "Promoted", "PromotedBySteps")


def test_a_lost_record_is_made_again_from_the_same_spec() -> None:
    world = World()
    world.settle(5)
    v1 = world.revision_of("v1")
    world.lose_record(v1)
    world.settle(2)
    assert world.records[v1].template == template("v1")
    assert (world.status.phase, world.status.message) == ("Healthy", "")


def test_history_limit_keeps_the_newest_and_those_in_use() -> None:
    world = World(make_spec(revision_history_limit=2))
    world.settle(5)
    for number in range(2, 9):
        edit(world, f"v{number}")
        world.settle(10)
        edit(world, "v1")
        world.settle(12)
    kept = sorted(record.version for record in world.records.values())
    assert kept == ["v1", "v7", "v8"]


def test_at_rest_nothing_is_written() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    world.settle(120)
    before = world.writes
    world.settle(60)
    assert world.writes == before


def test_shares_of_an_epoch_never_change() -> None:
    world = World()
    world.settle(5)
    edit(world, "v2")
    shares: dict[str, set[tuple[tuple[str, int], ...]]] = {}
    for _ in range(60):
        world.settle(1)
        shares.setdefault(world.file_epoch, set()).add(tuple(sorted(world.file_weights.items())))
    assert all(len(weights) == 1 for epoch, weights in shares.items() if not epoch.endswith("idle"))


def test_warm_up_is_an_epoch_of_its_own() -> None:
    metrics = (Metric(name="slow", preset="latency", threshold="100ms", initial_delay=Duration(20)),)
    world = with_steps(
        Step(set_weight=20),
        Step(pause=Pause(duration=Duration(60))),
        analysis=Analysis(interval=Duration(1), metrics=metrics),
    )
    edit(world, "v2")
    epochs = []
    for _ in range(40):
        world.settle(1)
        rollout = world.status.rollout
        if rollout and rollout.weight and (not epochs or epochs[-1][0] != rollout.epoch):
            epochs.append((rollout.epoch, rollout.epoch_at - rollout.ready_at))
    assert len(epochs) == 2
    assert epochs[1][1] >= 20


def test_bins_are_frozen_when_a_rollout_begins_and_those_of_a_baseline_win() -> None:
    baseline = Baseline(output="risk", edges=(0.0, 1.0), counts=(10, 2000, 10))
    drift = Metric(name="drift", preset="outputDrift", output="risk", against="baseline", baseline=(baseline,))
    world = World(make_spec(analysis=Analysis(interval=Duration(1), metrics=(drift,))))
    world.settle(5)
    world.values = {"score": tuple(i / 500 for i in range(500)), "risk": tuple(i / 500 for i in range(500))}
    edit(world, "v2")
    world.settle(2)
    assert world.plan.routing is not None
    bins = world.plan.routing.bins
    assert bins["risk"] == (0.0, 1.0)
    assert len(bins["score"]) == 11
    world.values = {"score": tuple(i / 1000 for i in range(500)), "risk": (7e9,) * 500}
    world.settle(5)
    assert world.plan.routing.bins == bins


def test_without_auto_rollback_there_is_no_bake_and_no_alert() -> None:
    world = World(make_spec(auto_rollback=None))
    world.settle(5)
    edit(world, "v2")
    world.settle(40)
    assert world.status.phase == "Healthy"
    assert world.status.stable is not None
    assert world.status.stable.version == "v2"


def test_a_new_stable_that_dies_while_baking_goes_back_after_its_deadline() -> None:
    world = World(make_spec(auto_rollback=AutoRollback(bake_time=Duration(600))))
    world.settle(5)
    edit(world, "v2")
    while world.status.phase != "Baking":
        world.settle(1)
    world.broken.add("v2")
    world.kill_pods(world.revision_of("v2"))
    world.reconcile()
    assert world.file_weights == {world.revision_of("v1"): 100}
    world.settle(70)
    assert world.status.phase == "Degraded"
    assert world.status.stable is not None
    assert world.status.stable.version == "v1"


def test_a_canary_strategy_without_steps_promotes_when_ready() -> None:
    world = World(make_spec(strategy=Strategy(canary=Canary())))
    world.settle(5)
    edit(world, "v2")
    world.settle(5)
    assert world.status.stable is not None
    assert world.status.stable.version == "v2"
