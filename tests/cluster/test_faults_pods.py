"""Pods that go one after the other, as when nodes are drained: no client notices."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.faults import guarded
from tests.cluster.figures import Figure
from tests.cluster.lab.cluster import Cluster
from tests.cluster.operating import Watched, operator_for
from tests.cluster.traffic import traffic

pytestmark = pytest.mark.timeout(400, func_only=True)

#: Seconds of the whole, and between two pods.
LASTS = 120.0
EVERY = 5.0


@pytest.fixture
def fraud(cluster: Cluster, namespace: str, sidecar_image: str, tmp_path: Path) -> Iterator[Watched]:
    with operator_for(cluster, [namespace], sidecar_image, tmp_path / "operator.log"):
        watched = Watched(cluster, namespace)
        yield watched
        # Pods that drain for the whole of their grace would keep the namespace.
        watched.kubectl("delete", "md", "--all")


def ready(fraud: Watched) -> list[str]:
    """Pods that take requests."""

    def is_ready(pod: dict[str, Any]) -> bool:
        return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))

    return [name for name, pod in fraud.pods().items() if is_ready(pod)]


def test_random_pods_deleted_for_two_minutes(
    cluster: Cluster, fraud: Watched, model_image: str, tmp_path: Path, figure: Figure
) -> None:
    fraud.apply(guarded(model_image, replicas=3))
    fraud.healthy("v1")
    cluster.wait(lambda: fraud.status["stable"]["ready"] == 3, "all pods", 90)
    chance, deleted = random.Random(5), []
    with traffic(cluster, f"http://fraud.{fraud.namespace}", tmp_path) as seen:
        began = time.monotonic()
        while time.monotonic() < began + LASTS:
            name = chance.choice(sorted(fraud.pods()))
            fraud.kubectl("delete", f"pod/{name}", "--wait=false")
            deleted.append(name)
            time.sleep(EVERY)
            # A machine that starts pods more slowly than they are deleted would soon have none.
            cluster.wait(lambda: len(ready(fraud)) > 1, "two pods to be ready", 90)
    figure(f"{len(deleted)} pods deleted; {seen.summary()}; {seen.rate():.0f}/s")
    assert not seen.errors(), seen.summary()
    assert len(deleted) >= LASTS / EVERY / 2
    cluster.wait(lambda: fraud.status["stable"]["ready"] == 3, "all pods again", 90)
    assert fraud.status["phase"] == "Healthy"
