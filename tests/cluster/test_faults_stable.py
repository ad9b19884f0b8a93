"""Stable goes as a whole: the fallback answers, and stable takes over again when it is back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.faults import SIDECAR, Deaths, guarded, lost, own_namespace, victim
from tests.cluster.figures import Figure
from tests.cluster.lab.cluster import Cluster, NodeCluster
from tests.cluster.operating import Watched, operator_for
from tests.cluster.traffic import Traffic, traffic

pytestmark = pytest.mark.timeout(300, func_only=True)

REPLICAS = 2


@pytest.fixture(scope="module")
def fraud(
    cluster: Cluster, sidecar_image: str, model_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    if not isinstance(cluster, NodeCluster):
        pytest.skip("needs a node of our own (COALMINE_CLUSTER=own)")
    folder = tmp_path_factory.mktemp("stable")
    with (
        own_namespace(cluster) as namespace,
        operator_for(cluster, [namespace], sidecar_image, folder / "operator.log"),
    ):
        watched = Watched(cluster, namespace)
        watched.apply(guarded(model_image, "v2", stands_by="v1", replicas=REPLICAS))
        watched.healthy("v2")
        yield watched
        watched.kubectl("delete", "md", "--all")


@pytest.fixture
def seen(node: NodeCluster, fraud: Watched, tmp_path: Any, figure: Figure) -> Iterator[Traffic]:
    whole(fraud)
    with traffic(node, f"http://fraud.{fraud.namespace}", tmp_path) as seen:
        yield seen
    figure(f"{seen.summary()}; {seen.rate():.0f}/s")


def whole(fraud: Watched) -> None:
    def all_there(status: dict[str, Any]) -> bool:
        tracks = status["stable"], status["fallback"]
        return [track["ready"] for track in tracks] == [REPLICAS, 1]

    fraud.until("all pods", all_there, 120)


def stable_pods(fraud: Watched) -> list[dict[str, Any]]:
    revision = fraud.status["stable"]["revision"]
    return [pod for pod in fraud.pods().values() if pod["metadata"]["labels"]["coalmine.dev/revision"] == revision]


def answered_by(seen: Traffic, version: str, since: float) -> float:
    """When the first of them was sent; 0 without one."""
    return next((r.sent for r in seen.records(since) if r.version == version), 0.0)


def until_only(fraud: Watched, seen: Traffic, version: str, timeout: float = 120) -> None:
    """Wait for a second in which nobody else answered."""

    def only() -> bool:
        lately = seen.records(time.time() - 1)
        return len(lately) > 100 and {record.version for record in lately} == {version}

    fraud.cluster.wait(only, f"{version} to answer everything: {seen.summary()}", timeout)


@pytest.mark.parametrize("how", [(), ("--force", "--grace-period=0")], ids=["gracefully", "by force"])
def test_all_stable_pods_deleted_at_once(
    node: NodeCluster, fraud: Watched, seen: Traffic, how: tuple[str, ...], figure: Figure
) -> None:
    pods = stable_pods(fraud)
    deaths = Deaths([victim(node, pod, container) for pod in pods for container in ("model", SIDECAR)])
    began = time.time()
    selector = f"--selector=coalmine.dev/revision={fraud.status['stable']['revision']}"
    fraud.kubectl("delete", "pods", selector, "--wait=false", *how)
    moments = deaths.moments()
    whole(fraud)
    until_only(fraud, seen, "v2")
    assert answered_by(seen, "v1", began), "the fallback was not needed"
    if how:
        under_way, failed = lost(seen, moments)
        figure(f"stable deleted by force: {failed} failed, {under_way} were under way when processes died")
    else:
        assert not seen.errors(), seen.summary()


def test_a_stable_model_that_crash_loops(node: NodeCluster, fraud: Watched, seen: Traffic) -> None:
    """Its requests under way are answered as well: none of them has had a byte of an answer."""

    def crash() -> bool:
        waiting = 0
        for pod in stable_pods(fraud):
            (model,) = pod["status"]["containerStatuses"]
            if "waiting" in model["state"]:
                waiting += model["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            elif "running" in model["state"]:
                with contextlib.suppress(LookupError, ProcessLookupError):
                    victim(node, pod, "model").kill()
        return waiting == REPLICAS

    node.wait(crash, "models to crash again and again", 60, every=0.5)
    until_only(fraud, seen, "v1")
    fraud.until("the condition", lambda s: "ServedByFallback" in {c["reason"] for c in s["conditions"]})
    whole(fraud)
    until_only(fraud, seen, "v2")
    assert not seen.errors(), seen.summary()
