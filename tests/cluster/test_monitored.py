"""Monitoring in a cluster: a baseline from a ConfigMap, feedback through the Service, and a canary that is held."""

from __future__ import annotations

import json
import secrets
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.lab.cluster import Cluster
from tests.cluster.operating import Operator, Served, Watched, manifest, namespaces, operator_for

from coalmine_operator.api.baseline import Baseline, Numeric, digest_of, encode_baseline

pytestmark = pytest.mark.timeout(300, func_only=True)

RADIUS = "features[0]"
FILE = encode_baseline(
    Baseline(
        schema=1,
        model="fraud",
        version="v1",
        task="binary",
        rows=6000,
        features={RADIUS: Numeric(edges=(0.5, 2.0), counts=(0, 6000, 0), mean=1.0, stddev=0.1, min=0.6, max=1.9)},
    )
)
ROW = {"inputs": [{"name": "features", "shape": [1, 30], "datatype": "FP64", "data": [1.0] * 30}]}


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[str]:
    with namespaces(cluster, f"monitored-{secrets.token_hex(4)}") as (name,):
        yield name


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, space: str, sidecar_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    log = tmp_path_factory.mktemp("monitored") / "operator.log"
    with operator_for(cluster, [space], sidecar_image, log) as running:
        yield running


def document(model_image: str, version: str = "v1", digest: str = digest_of(FILE)) -> dict[str, Any]:
    monitoring = {
        "features": [{"name": RADIUS}],
        "prediction": {"score": "probability"},
        "baseline": {"configMap": "fraud-v1", "digest": digest},
        "feedback": {},
    }
    return manifest("fraud", model_image, version, monitoring=monitoring)


@pytest.fixture(scope="module")
def all_served(cluster: Cluster, space: str, operator: Operator, model_image: str) -> Served:
    return Served({Watched(cluster, space): document(model_image)})


def post(port: int, path: str, body: object, **headers: str) -> tuple[int, dict[str, str], Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, dict(answer.headers), json.load(answer)


def test_a_baseline_in_a_configmap_feedback_and_the_gate(served: Served, model_image: str) -> None:
    one = served["fraud"]
    cluster = one.cluster
    # Not there yet: it serves all the same. Then it is, and the sidecars count in its bins.
    assert one.routing()["monitoring"].get("baselines", {}) == {}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fraud-v1"}}
    one.apply({**config, "data": {"baseline.json": FILE.decode()}})
    revision = one.status["stable"]["revision"]

    def counted_in() -> str:
        return str(one.routing()["monitoring"].get("baselines", {}).get(revision, {}).get("digest", ""))

    cluster.wait(lambda: counted_in() == digest_of(FILE), "the baseline in the routing file", 60)
    assert one.ask() == "v1"

    (pod,) = one.pods().values()
    address = pod["status"]["podIP"]
    with cluster.door(address, 8008) as ingress, cluster.door(address, 8010) as admin:

        def metrics() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
                return str(answer.read().decode())

        cluster.wait(lambda: "coalmine_feature_bin_total" in metrics(), "the sidecar to count", 30)
        name = f"row-{secrets.token_hex(4)}"
        status, headers, _ = post(ingress, "/v2/models/fraud/infer", ROW, **{"X-Prediction-Id": name})
        assert (status, headers["x-prediction-id"]) == (200, name)
        status, _, told = post(ingress, "/feedback", {"predictionId": name, "label": 1})
        assert status == 202, told
        cluster.wait(lambda: 'coalmine_feedback_total{model="fraud",outcome="joined"} 1.0' in metrics(), "the join", 30)
        row = f'coalmine_feature_bin_total{{bin="[0.5,2.0)",feature="{RADIUS}",model="fraud"'
        assert row in metrics()

    # v1's baseline is not v2's: the canary gets its share, and is held there.
    one.apply(document(model_image, "v2"))
    status = one.until("the verdict", lambda s: any(v["metric"] == "baseline" for v in s.get("verdicts", ())))
    (verdict,) = (v for v in status["verdicts"] if v["metric"] == "baseline")
    assert (verdict["verdict"], verdict["reason"]) == ("Unknown", "BaselineMismatch")
    assert status["stable"]["version"] == "v1"
    # Without a baseline nothing holds it.
    free = document(model_image, "v2")
    del free["spec"]["monitoring"]["baseline"]
    one.apply(free)
    one.healthy("v2")
