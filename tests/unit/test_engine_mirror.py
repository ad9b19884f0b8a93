"""A canary that is tried on copies of requests, one story each."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.property.world import SHADOW, World, alert, make_spec, mirroring

from coalmine_operator.api.duration import Duration
from coalmine_operator.api.spec import Canary, Pause, Step, Strategy
from coalmine_operator.engine import Order

MIRROR = Step(set_mirror=20)


def world_with(*steps: Step, **analysis: object) -> World:
    """v1 is stable and v2 was just asked for; with the usual steps of a mirror where none are given."""
    spec = mirroring(make_spec())
    canary = replace(spec.strategy.canary, steps=steps or spec.strategy.canary.steps)
    spec = replace(spec, strategy=Strategy(canary=canary), analysis=replace(spec.analysis, **analysis))
    world = World(spec)
    world.settle(5)
    fresh = make_spec("v2")
    world.spec = replace(spec, template=fresh.template, model=fresh.model)
    return world


def settle_until(world: World, phase: str, **how: object) -> None:
    for _ in range(60):
        if world.status.phase == phase:
            return
        world.settle(1, **how)
    raise AssertionError((phase, world.status.phase, world.status.message))


def verdict(world: World, metric: str = "shadow") -> tuple[str, str]:
    (found,) = (v for v in world.status.verdicts if v.metric == metric)
    return found.verdict, found.reason


def test_one_that_agrees_gets_weight_and_is_promoted() -> None:
    world = world_with()
    world.settle(4, traffic=20)
    assert world.file_mirrors == {world.revision_of("v2"): 20}
    assert world.served["v2"] == 0
    settle_until(world, "Baking")
    assert world.status.stable.version == "v2"
    assert [e for e in world.events if e.endswith("Set")] == ["MirrorSet", "WeightSet", "WeightSet"]
    assert world.file_mirrors == {}
    shadow = next(v for v in world.status.history[-1].verdicts if v.metric == "shadow")
    assert (shadow.verdict, shadow.evidence["disagreed"]) == ("Pass", 0)
    assert shadow.evidence["compared"] >= 40


def test_one_that_disagrees_is_out_before_it_had_a_user() -> None:
    world = world_with()
    settle_until(world, "Degraded", errors={"v2": 0.6})
    last = world.status.last_rollback
    assert (last.source_version, last.reason, last.message) == ("v2", "AnalysisFailed", "verdict Fail: shadow")
    assert last.evidence[0].evidence["rate"] == pytest.approx(0.6, abs=0.02)
    assert world.served["v2"] == 0
    assert world.file_mirrors == {}
    assert world.status.stable.version == "v1"


def test_without_requests_it_waits() -> None:
    world = world_with()
    world.settle(30, traffic=0)
    assert world.status.phase == "Progressing"
    assert world.status.message == "0 of 40 mirrored requests compared"
    assert verdict(world)[0] == "Unknown"
    world.settle(1, traffic=10)
    assert verdict(world) == ("Unknown", "TooFewRequests")
    assert verdict(world, "errors") == ("Unknown", "NoTraffic")


def test_a_mirror_waits_for_its_verdict_though_no_pause_follows() -> None:
    world = world_with(MIRROR, Step(set_weight=50), min_requests=100)
    world.settle(4, traffic=20)
    assert verdict(world) == ("Unknown", "TooFewRequests")
    assert world.status.message == "shadow: Unknown (TooFewRequests)"
    assert world.served["v2"] == 0
    settle_until(world, "Baking")


def test_a_mirror_without_the_question_only_warms_up() -> None:
    world = world_with(MIRROR, Step(pause=Pause(duration=Duration(5))), Step(set_weight=50), metrics=())
    world.settle(4)
    assert world.file_mirrors == {world.revision_of("v2"): 20}
    settle_until(world, "Baking")


def test_an_inconclusive_mirror_pauses_until_somebody_waives_it() -> None:
    world = world_with(MIRROR, Step(set_weight=50), on_inconclusive="Pause")
    settle_until(world, "Paused", traffic=0)
    assert world.status.message.startswith("inconclusive (shadow): ")
    world.orders.append(Order(id="1", verb="resume"))
    world.settle(3, traffic=0)
    assert world.file_weights[world.revision_of("v2")] == 50
    assert world.file_mirrors == {}


def test_an_order_to_promote_ends_it() -> None:
    world = world_with()
    world.settle(4, traffic=0)
    world.orders.append(Order(id="1", verb="promote"))
    settle_until(world, "Baking", traffic=0)
    assert world.file_mirrors == {}


def test_an_alert_during_it_rolls_back() -> None:
    world = world_with()
    world.settle(4)
    world.alert_events.append(alert(at=world.now))
    world.settle(2)
    assert world.status.last_rollback.reason == "AlertFiring"


def test_steps_with_shares_of_their_own_count_for_themselves() -> None:
    world = world_with(
        MIRROR,
        Step(pause=Pause(requests=40)),
        Step(set_mirror=100),
        Step(pause=Pause(requests=1000)),
        metrics=(SHADOW,),
    )
    world.settle(6)
    assert world.file_mirrors == {world.revision_of("v2"): 100}
    assert world.status.message.endswith(" of 1000 mirrored requests compared")
    assert int(world.status.message.split()[0]) < 1000
    assert world.plan.replicas[world.revision_of("v2")] == 2, "copies of all requests are all the work"
    settle_until(world, "Baking")


def test_copies_stop_while_stable_is_down() -> None:
    world = world_with()
    world.settle(4)
    world.kill_pods(world.revision_of("v1"))
    world.reconcile()
    assert world.file_mirrors == {}
    assert world.file_weights == {world.revision_of("v2"): 100}


def test_weight_0_does_not_end_it() -> None:
    world = world_with(MIRROR, Step(set_weight=0), Step(pause=Pause(requests=1000)))
    world.settle(6)
    assert world.file_mirrors == {world.revision_of("v2"): 20}
    assert Canary().steps == ()
