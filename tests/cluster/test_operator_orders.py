"""Orders by annotation and what becomes of them, the Events that tell of it, and a refresh of the sidecars."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.lab.cluster import Cluster
from tests.cluster.operating import WEATHER, Operator, Served, Watched, manifest, namespaces, operator_for
from tests.cluster.traffic import traffic

pytestmark = pytest.mark.timeout(300, func_only=True)

WAITS = {"canary": {"steps": [{"setWeight": 10}, {"pause": {}}], "scaleDownDelay": "1s"}}
BAKES = {"alerts": [{"name": "ModelLatencyHigh"}], "bakeTime": "4s"}
#: Model deployments that begin to serve together, each for a test of its own.
SERVED = ("held", "baked", "refreshed")


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[str]:
    with namespaces(cluster, f"orders-{secrets.token_hex(4)}") as (name,):
        yield name


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, space: str, sidecar_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    log = tmp_path_factory.mktemp("orders") / "operator.log"
    with operator_for(cluster, [space], sidecar_image, log) as running:
        yield running


@pytest.fixture(scope="module")
def all_served(cluster: Cluster, space: str, operator: Operator, model_image: str) -> Served:
    return Served({Watched(cluster, space, name): manifest(name, model_image) for name in SERVED})


def paused(one: Watched) -> dict[str, Any]:
    return one.until("the pause", lambda s: s["phase"] == "Paused" and s["canary"]["weight"] == 10)


def refused(one: Watched, order: str, value: str, why: str) -> None:
    """It has no effect, says why, and does not stand there for ever."""
    phase = one.status["phase"]
    one.annotate(order, value)
    one.cluster.wait(lambda: f"coalmine.dev/{order}" not in one.annotations(), "the annotation to go")
    one.cluster.wait(lambda: any(why in message for message in one.messages("OrderRefused")), f"refusal: {why}")
    assert one.status["phase"] == phase


def test_orders_by_annotation(served: Served, model_image: str) -> None:
    held = served["held"]
    refused(held, "resume", "", "no rollout is under way")
    held.apply(manifest("held", model_image, "v2", strategy=WAITS))
    paused(held)
    refused(held, "promote", "no-such-revision", "the order names no-such-revision, but now it is about v2")
    refused(held, "retry", "", "v2 is not quarantined")
    refused(held, "refresh", "no-such-revision", "refresh by kubectl-annotate: no-such-revision does not run")
    held.annotate("explode")
    held.cluster.wait(
        lambda: any("coalmine.dev/explode: no such order" in message for message in held.messages("OrderRefused")),
        "the refusal of what is no order",
    )
    held.kubectl("annotate", "md/held", "coalmine.dev/explode-")

    held.annotate("pause", held.status["canary"]["revision"])
    held.cluster.wait(lambda: held.messages("Paused"), "the pause that was ordered")
    held.annotate("rollback", "v2")
    status = held.until("the rollback", lambda s: s["phase"] == "Degraded" and s["stable"]["version"] == "v1")
    assert status["lastRollback"]["reason"] == "RolledBackByOrder"
    assert status["history"][-1]["actor"] == "kubectl-annotate"
    held.condition("RolledBack", "True", "RolledBackByOrder", "ordered by kubectl-annotate")
    held.cluster.wait(lambda: "coalmine.dev/rollback" not in held.annotations(), "the annotation to go")

    held.annotate("retry", "v2")
    paused(held)
    held.annotate("resume")
    held.healthy("v2")
    held.answered_by("v2")
    assert held.reasons() == [
        "RolloutStarted", "Promoted", "OrderRefused",
        "RolloutStarted", "WeightSet", "OrderRefused", "OrderRefused", "OrderRefused", "OrderRefused",
        "Paused", "RolledBack", "RollbackDone",
        "RetryOrdered", "RolloutStarted", "WeightSet", "Resumed", "Promoting", "Promoted",
    ]  # fmt: skip


def test_a_bake_and_a_fallback_under_way_are_told(served: Served, operator: Operator, model_image: str) -> None:
    """The operator is killed on the way: no Event is lost, none comes twice."""
    baked = served["baked"]
    more: dict[str, Any] = {"fallback": {"version": "previous"}, "autoRollback": BAKES}
    baked.apply(manifest("baked", model_image, "v2", strategy=WAITS, **more))
    paused(baked)
    operator.kill()
    operator.start()
    baked.annotate("promote", "v2")
    baked.until("the bake", lambda s: s["phase"] == "Baking")
    baked.condition("Progressing", "True", "Baking")
    operator.kill()
    operator.start()
    baked.healthy("v2")

    (pod,) = (name for name, pod in baked.pods().items() if baked.status["stable"]["revision"] in name)
    # Whoever waits for the end of the old pod may come too late for what happens until the new one is ready.
    baked.kubectl("delete", f"pod/{pod}", "--grace-period=1", "--wait=false")
    baked.condition("Available", "True", "ServedByFallback", "v1 answers for stable")
    assert baked.ask() in ("v1", "v2")
    baked.condition("Available", "True", "MinimumReplicasAvailable")
    baked.healthy("v2")
    baked.annotate("rollback")
    baked.until("the rollback", lambda s: s["phase"] == "Degraded" and s["stable"]["version"] == "v1")
    baked.cluster.wait(lambda: "RollbackDone" in baked.reasons(), "the end of the rollback")
    assert baked.ask() == "v1"
    assert set(WEATHER) & {event["reason"] for event in baked.events()}, "that stable answers again is told"
    assert baked.reasons() == [
        "RolloutStarted", "Promoted", "RolloutStarted", "WeightSet", "PromoteOrdered", "Promoting", "Promoted",
        "BakeTimeOver", "ServedByFallback", "RolledBack", "RollbackDone",
    ]  # fmt: skip


def test_an_upgrade_restarts_no_model_and_a_refresh_brings_the_sidecar(
    cluster: Cluster, served: Served, operator: Operator, space: str, sidecar_image: str, tmp_path: Path
) -> None:
    one = served["refreshed"]
    before = set(one.pods())
    operator.stop()
    newer = Operator(cluster, [space], sidecar_image, tmp_path / "newer.log", "--sidecar-cpu-request=6m")
    newer.start()
    try:
        with traffic(cluster, f"http://{one.name}.{space}", tmp_path) as load:
            label = "app.kubernetes.io/managed-by"
            one.kubectl("label", "--overwrite", "service/refreshed", f"{label}=somebody")
            cluster.wait(
                lambda: one.get("service/refreshed")["metadata"]["labels"][label] == "coalmine",
                "the new operator to work",
                60,
            )
            assert set(one.pods()) == before, "an upgrade restarted a model"
            one.annotate("refresh", "v1")
            cluster.wait(lambda: one.pods() and not before & set(one.pods()), "the pods to be replaced", 90)
            cluster.wait(lambda: "coalmine.dev/refresh" not in one.annotations(), "the annotation to go")
            one.healthy("v1")
        (pod,) = one.pods().values()
        assert pod["spec"]["initContainers"][0]["resources"]["requests"]["cpu"] == "6m"
        assert "by kubectl-annotate" in one.messages("Refreshed")[0]
        assert not load.errors(), load.summary()
    finally:
        newer.stop()
        operator.start()
