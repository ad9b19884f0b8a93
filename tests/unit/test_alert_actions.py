"""What alerts of `spec.monitoring` do: roll back, hold a rollout, or let the fallback answer for stable."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace
from tests.property.world import World, alert, make_spec
from tests.unit.test_engine import condition, edit, order, with_steps

from coalmine_operator.api.monitoring import AlertOverride, Alerts, Monitoring
from coalmine_operator.api.spec import AlertMatch, AutoRollback, ModelDeploymentSpec, Pause, Step
from coalmine_operator.api.status import AlertStatus
from coalmine_operator.engine.actions import SETTLE
from coalmine_operator.engine.alerts import action_of
from coalmine_operator.sources import alerts

DEFAULTS = Monitoring()
GUARD = AutoRollback(alerts=(AlertMatch(name="RecallDrop"), AlertMatch(match_labels={"severity": "critical"})))


def only(name: str, action: str | None = None) -> Monitoring:
    return Monitoring(alerts=Alerts(defaults=False, overrides=(AlertOverride(name=name, action=action),)))


@pytest.mark.parametrize(
    ("guard", "monitoring", "name", "labels", "action"),
    [
        (None, None, "RecallDrop", {"action": "rollback"}, "none"),  # nobody asked for it
        (GUARD, None, "RecallDrop", {"action": "hold"}, "rollback"),  # named: as ever, whatever its labels say
        (GUARD, None, "Other", {"action": "rollback"}, "none"),
        (None, DEFAULTS, "RecallDrop", {"action": "rollback"}, "rollback"),
        (None, DEFAULTS, "DisparateImpact", {"action": "hold"}, "hold"),
        (None, DEFAULTS, "ModelUnavailable", {"action": "fallback"}, "fallback"),
        (None, DEFAULTS, "FeatureDrift", {"action": "none"}, "none"),
        (None, DEFAULTS, "FeatureDrift", {}, "none"),
        (None, DEFAULTS, "FeatureDrift", {"action": "reboot"}, "none"),
        (None, DEFAULTS, "Theirs", {"action": "rollback"}, "none"),  # a rule of somebody else, by chance with the label
        (GUARD, DEFAULTS, "DisparateImpact", {"action": "hold", "severity": "critical"}, "rollback"),
        (GUARD, DEFAULTS, "ModelUnavailable", {"action": "fallback", "severity": "critical"}, "fallback"),
        (GUARD, DEFAULTS, "RecallDrop", {"action": "none"}, "rollback"),
        (None, only("RecallDrop"), "RecallDrop", {"action": "rollback"}, "rollback"),
        (None, only("RecallDrop"), "AucDrop", {"action": "rollback"}, "none"),  # its rule is not rendered
        (None, only("RecallDrop", "hold"), "RecallDrop", {"action": "rollback"}, "hold"),  # rules of before
        (None, only("RecallDrop", "none"), "RecallDrop", {"action": "rollback"}, "none"),
    ],
)
def test_what_an_alert_does(
    guard: AutoRollback | None, monitoring: Monitoring | None, name: str, labels: dict[str, str], action: str
) -> None:
    assert action_of(guard, monitoring, name, labels) == action


def fires(world: World, name: str, action: str, **labels: str) -> AlertStatus:
    found = alert(name, at=world.now, action=action, **labels)
    world.alert_events.append(found)
    return found


def resolves(world: World, known: AlertStatus) -> None:
    world.alert_events.append(replace(known, resolved_at=world.now))


def monitored(*steps: Step, **changes: object) -> World:
    """v1 is stable, and v0 its fallback; there is no `autoRollback`."""
    world = with_steps(*steps, auto_rollback=None, monitoring=DEFAULTS, **changes)
    edit(world, "v2")
    world.settle(60)
    assert world.status.phase == "Healthy"
    world.events.clear()
    return world


def serving(world: World) -> dict[str, int]:
    return {world.version_of(name): weight for name, weight in world.file_weights.items()}


CANARY = (Step(set_weight=10), Step(set_weight=50))


def test_a_webhook_takes_what_does_something_and_keeps_its_action() -> None:
    """Many labels or few: without its action an alert that only holds would be taken for another one."""
    labels = {f"a{number:02}": "x" for number in range(40)} | {"modeldeployment": "fraud"}
    raw = [
        {"status": "firing", "labels": labels | {"alertname": name, "action": action}}
        for name, action in (("DisparateImpact", "hold"), ("FeatureDrift", "none"), ("Theirs", "hold"))
    ]
    webhook = alerts.decode(json.dumps({"version": "4", "alerts": raw}).encode())
    target = alerts.Target(namespace="default", name="fraud", model="fraud", monitoring=DEFAULTS)
    found = alerts.sort_out(webhook, [target], 1000.0)
    (event,) = found.events["default/fraud"]
    assert (event.name, event.labels["action"]) == ("DisparateImpact", "hold")
    assert (found.received, found.matched, found.unattributed) == (3, 1, 0)
    assert not alerts.sort_out(webhook, [replace(target, monitoring=None)], 1000.0).events


# rollback


def test_rollback_needs_no_other_field_than_monitoring() -> None:
    world = monitored(*CANARY)
    edit(world, "v3")
    world.settle(1)
    assert serving(world) == {"v2": 90, "v3": 10}
    fires(world, "RecallDrop", "rollback")
    world.reconcile()
    assert serving(world) == {"v2": 100}
    assert world.status.last_rollback is not None
    assert world.status.last_rollback.reason == "AlertFiring"
    assert world.status.last_rollback.alert is not None
    assert world.status.last_rollback.alert.labels["action"] == "rollback"


def test_an_alert_about_stable_does_not_roll_a_canary_back() -> None:
    world = monitored(*CANARY)
    edit(world, "v3")
    world.settle(1)
    fires(world, "RecallDrop", "rollback", version="v2")
    world.settle(40)
    assert world.status.last_rollback is None
    assert serving(world) == {"v3": 100}  # nor does it keep it from being promoted: it may be the mend


def test_an_alert_of_the_status_does_nothing_once_monitoring_is_gone() -> None:
    """Held by it, and then the whole of spec.monitoring is taken out: nothing is rolled back for that."""
    world = monitored(*CANARY)
    edit(world, "v3")
    world.settle(1)
    fires(world, "DisparateImpact", "hold")
    world.settle(1)
    assert world.status.phase == "Paused"
    world.spec = replace(world.spec, monitoring=None, auto_rollback=AutoRollback())
    world.settle(3)
    assert world.status.last_rollback is None
    assert world.status.phase != "Paused"


# hold


def test_a_rollout_is_held_while_an_alert_fires_and_goes_on_after_it() -> None:
    world = monitored(*CANARY)
    edit(world, "v3")
    world.settle(1, traffic=0)
    world.events.clear()
    known = fires(world, "DisparateImpact", "hold")
    world.settle(20)
    assert serving(world) == {"v2": 90, "v3": 10}
    assert (world.status.phase, world.status.message) == ("Paused", "held by alert DisparateImpact")
    assert condition(world, "Progressing") == ("False", "HeldByAlert", "held by alert DisparateImpact")
    assert world.events == ["HeldByAlert"]  # told once
    assert world.status.last_rollback is None
    resolves(world, known)
    world.settle(40)
    assert world.status.phase == "Healthy"
    assert serving(world) == {"v3": 100}
    assert world.events[:2] == ["HeldByAlert", "HoldOver"]


def test_one_that_fired_before_the_rollout_holds_it_too_and_one_about_stable_does_not() -> None:
    world = monitored(*CANARY)
    general = fires(world, "FeedbackStalled", "hold")
    edit(world, "v3")
    world.settle(5)
    assert world.status.phase == "Paused"
    assert serving(world) == {"v2": 100}
    resolves(world, general)
    fires(world, "EstimatedPerformanceDrop", "hold", version="v2")
    world.settle(40)
    assert serving(world) == {"v3": 100}  # it may be the mend of just that


def test_a_verdict_still_rolls_a_held_canary_back() -> None:
    world = monitored(*CANARY)
    edit(world, "v3")
    world.settle(1)
    fires(world, "DisparateImpact", "hold")
    for _ in range(20):
        world.settle(1, errors={"v3": 0.5})
    assert world.status.last_rollback is not None
    assert world.status.last_rollback.reason == "AnalysisFailed"


def test_orders_to_a_held_rollout() -> None:
    world = monitored(*CANARY)
    edit(world, "v3")
    world.settle(1)
    fires(world, "DisparateImpact", "hold")
    world.settle(1)
    world.orders.append(order("resume"))
    world.reconcile()
    assert world.refused["order-resume"] == "alert DisparateImpact holds it: `promote` does not wait for that"
    world.orders.append(order("promote"))
    world.settle(5)
    assert serving(world) == {"v3": 100}


# fallback


def test_the_fallback_answers_while_an_alert_about_stable_fires() -> None:
    world = monitored(*CANARY)
    known = fires(world, "ModelUnavailable", "fallback")
    world.settle(3)
    assert serving(world) == {"v1": 100}
    assert len(world.pods[world.revision_of("v1")]) == 2  # as many as stable had to carry it
    assert len(world.pods[world.revision_of("v2")]) == 2
    text = "v1 answers for v2: alert ModelUnavailable"
    assert (world.status.phase, world.status.message) == ("Degraded", text)
    assert condition(world, "Available") == ("True", "ServedByFallback", text)
    assert world.events == ["ServedByFallback"]
    resolves(world, known)
    world.settle(int(SETTLE) - 5)
    assert serving(world) == {"v1": 100}  # it may come again as soon as requests do
    world.settle(10)
    assert serving(world) == {"v2": 100}
    assert world.status.phase == "Healthy"
    assert world.events == ["ServedByFallback", "MinimumReplicasAvailable"]
    assert len(world.pods[world.revision_of("v1")]) == 1
    assert world.status.last_rollback is None


def test_the_way_back_is_not_missed_when_nothing_else_happens() -> None:
    world = monitored(*CANARY)
    known = fires(world, "ModelUnavailable", "fallback")
    world.settle(3)
    resolves(world, known)
    world.reconcile()
    assert world.plan.wake_at == world.now + SETTLE


def test_without_a_fallback_or_without_its_pods_stable_goes_on() -> None:
    world = monitored(*CANARY, fallback=None)
    fires(world, "ModelUnavailable", "fallback")
    world.settle(3)
    assert serving(world) == {"v2": 100}
    world = monitored(*CANARY)
    world.broken.add("v1")
    fires(world, "ModelUnavailable", "fallback")
    world.settle(3)
    assert serving(world) == {"v2": 100}
    world.broken.clear()
    world.settle(3)
    assert serving(world) == {"v1": 100}


def test_a_canary_is_rolled_back_first_and_the_same_alert_asks_for_no_fallback() -> None:
    world = monitored(*CANARY)
    edit(world, "v3")
    world.settle(1)
    known = fires(world, "ModelUnavailable", "fallback")
    world.settle(20)
    assert serving(world) == {"v2": 100}
    assert world.status.last_rollback is not None
    assert world.status.last_rollback.source_version == "v3"
    # it resolved and began anew, and now there is no canary to blame
    resolves(world, known)
    world.settle(2)
    fires(world, "ModelUnavailable", "fallback")
    world.settle(3)
    assert serving(world) == {"v1": 100}


def test_a_rollout_waits_while_the_fallback_answers_and_an_order_does_not() -> None:
    world = monitored(*CANARY)
    fires(world, "ModelUnavailable", "fallback", track="stable", version="v2")
    world.settle(3)
    edit(world, "v3")
    world.settle(20)
    assert serving(world) == {"v1": 100}
    assert condition(world, "Progressing")[1] == "HeldByAlert"
    world.orders.append(order("promote"))
    world.settle(5)
    assert serving(world) == {"v3": 100}
    assert world.status.phase == "Healthy"  # it was about v2
    assert world.status.stable is not None
    assert world.status.stable.version == "v3"


def test_an_alert_about_the_fallback_does_not_send_clients_to_it() -> None:
    world = monitored(*CANARY)
    fires(world, "ModelUnavailable", "fallback", version="v1")
    fires(world, "ModelUnavailable", "fallback", track="fallback")
    world.settle(3)
    assert serving(world) == {"v2": 100}


def test_copies_of_requests_stop_while_stable_gets_none() -> None:
    world = monitored(Step(set_mirror=20), Step(pause=Pause(requests=50)), Step(set_weight=10))
    edit(world, "v3")
    world.settle(2, traffic=0)
    assert sum(world.file_mirrors.values()) == 20
    fires(world, "ModelUnavailable", "fallback", version="v2")
    world.settle(2, traffic=0)
    assert serving(world) == {"v1": 100}
    assert world.file_mirrors == {}


def test_to_go_back_to_the_fallback_for_good() -> None:
    """The spec asks for the version that stands in already: it stays where it is, and is promoted by order."""
    world = monitored(*CANARY)
    fires(world, "ModelUnavailable", "fallback")
    world.settle(3)
    edit(world, "v1")
    world.settle(5)
    assert serving(world) == {"v1": 100}
    world.orders.append(order("promote"))
    for _ in range(5):
        world.settle(1)
        assert serving(world) == {"v1": 100}
    assert world.status.stable is not None
    assert world.status.stable.version == "v1"


def test_specs_of_before_have_no_actions() -> None:
    spec: ModelDeploymentSpec = make_spec()
    assert spec.monitoring is None
    world = with_steps(*CANARY)
    edit(world, "v2")
    world.settle(1)
    world.alert_events.append(alert(at=world.now, action="hold"))  # ModelLatencyHigh, which autoRollback names
    world.reconcile()
    assert world.status.last_rollback is not None
