"""The API server goes for a minute: requests do not notice, and afterwards everything catches up by itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.faults import guarded, own_namespace, victim
from tests.cluster.figures import Figure
from tests.cluster.lab.cluster import NodeCluster
from tests.cluster.lab.run import LabError
from tests.cluster.operating import Operator, Watched, operator_for
from tests.cluster.traffic import Traffic, traffic

pytestmark = pytest.mark.timeout(500, func_only=True)

#: Seconds that the API server is away.
AWAY = 60.0


def strategy(pause: str) -> dict[str, Any]:
    steps = [{"setWeight": 20}, {"pause": {"duration": pause}}, {"setWeight": 50}]
    return {"canary": {"steps": steps, "scaleDownDelay": "1s"}}


#: In the middle of whose rollout it goes, and who is told of a version just before.
UNDER_WAY, TOLD = strategy("20s"), strategy("2s")


def test_a_minute_without_api_server(
    node: NodeCluster, sidecar_image: str, model_image: str, tmp_path: Path, figure: Figure
) -> None:
    log = tmp_path / "operator.log"
    with (
        own_namespace(node) as namespace,
        operator_for(node, [namespace], sidecar_image, log, "--log-level=info") as operator,
    ):
        fraud, edited, drifted = (Watched(node, namespace, name) for name in ("fraud", "edited", "drifted"))
        for one in (fraud, edited, drifted):
            stands_by = "v3" if one is fraud else ""
            one.apply(guarded(model_image, "v1", name=one.name, stands_by=stands_by, strategy=UNDER_WAY))
        for one in (fraud, edited, drifted):
            one.healthy("v1", 150)
        fraud.until("the fallback", lambda s: s["fallback"]["ready"])
        first = fraud.status["stable"]["revision"]
        with traffic(node, f"http://fraud.{namespace}", tmp_path) as seen:
            fraud.apply(guarded(model_image, "v2", stands_by="v3", strategy=UNDER_WAY))
            canary = fraud.until("the canary", lambda s: s.get("canary", {}).get("weight") == 20 and s["message"])
            fraud.until("its weight to be in force", lambda s: s["step"] == "1/3")
            stable = next(pod for pod in fraud.pods().values() if first in pod["metadata"]["name"])
            process = operator.process.pid
            drifted.kubectl("delete", "service/drifted")
            edited.apply(guarded(model_image, "v2", name="edited", strategy=TOLD))
            gone = time.time()
            with node.without("kube-apiserver"):
                away(node, seen, gone, victim(node, stable, "model").kill)
            back = time.time()
            figure(f"API server away: {seen.summary()}")
            assert not seen.errors(), seen.summary()
            share = seen.share(canary["canary"]["revision"], gone, back)
            assert 19 <= share <= 21, f"the canary's weight is 20, and it had {share:.1f} %"
            fraud.healthy("v2", 150)
            edited.healthy("v2", 150)
            node.wait(lambda: "Service/drifted" in drifted.children(), "the Service to be back", 90)
            figure(f"all caught up {time.time() - back:.0f} s after the API server came back; {seen.summary()}")
        assert not seen.errors(), seen.summary()
        assert operator.process.pid == process
        assert operator.process.poll() is None
        figure(clear(operator))


def away(node: NodeCluster, seen: Traffic, gone: float, crash: Any) -> None:
    """A minute in which the stable model ends as well."""
    with pytest.raises(LabError):
        node.read("/version")
    time.sleep(AWAY / 4)
    begin, _ = crash()
    node.wait(lambda: any(r.version == "v3" for r in seen.records(begin)), "the fallback to answer", 20)
    node.wait(lambda: any(r.version == "v1" for r in seen.records(begin + 1)), "kubelet to start the model anew", 30)
    time.sleep(max(0.0, gone + AWAY - time.time()))


def clear(operator: Operator) -> str:
    """It says what happened, in lines a person can read, and does not flood anybody."""
    lines = operator.log().splitlines()
    troubles = [line for line in lines if "API server" in line or "watch" in line.lower()]
    assert troubles
    assert len(lines) < 300
    assert max(map(len, lines)) < 1000
    return f"{len(lines)} lines of log, {len(troubles)} about the API server, such as: {troubles[-1][:150]}"
