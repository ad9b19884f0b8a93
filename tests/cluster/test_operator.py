"""The operator on a real cluster: what it makes of a model deployment, and what is left when it is gone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.lab.cluster import Cluster
from tests.cluster.operating import Operator, Watched, manifest, operator_for

pytestmark = pytest.mark.timeout(300, func_only=True)


@pytest.fixture
def operator(cluster: Cluster, namespace: str, sidecar_image: str, tmp_path: Path) -> Iterator[Operator]:
    with operator_for(cluster, [namespace], sidecar_image, tmp_path / "operator.log") as running:
        yield running


@pytest.fixture
def fraud(cluster: Cluster, namespace: str, operator: Operator) -> Iterator[Watched]:
    yield Watched(cluster, namespace)
    # Pods that drain for the whole of their grace would keep the namespace.
    cluster.kubectl("delete", "md", "--all", "--namespace", namespace)


def versions(objects: dict[str, Any]) -> dict[str, str]:
    return {name: obj["metadata"]["resourceVersion"] for name, obj in objects.items()}


def ask(cluster: Cluster, host: str) -> str:
    """The model's version, as clients see it."""
    row = {"inputs": [{"name": "features", "shape": [1, 30], "datatype": "FP64", "data": [1.0] * 30}]}
    code = (
        "import json, sys, urllib.request\n"
        "request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {'Content-Type': 'application/json'})\n"
        "print(json.load(urllib.request.urlopen(request, timeout=5))['model_version'])"
    )
    url = f"http://{host}/v2/models/fraud/infer"
    return cluster.run_in_net(["python3", "-c", code, url, json.dumps(row)]).strip()


def test_a_first_version_a_second_one_and_rest(cluster: Cluster, fraud: Watched, model_image: str) -> None:
    """v1 serves, v2 follows by its steps; then no write in a minute; drift is corrected; deletion leaves nothing."""
    fraud.apply(manifest("fraud", model_image))
    status = fraud.healthy("v1")
    first = status["stable"]["revision"]
    assert status["observedGeneration"] == 1
    assert {c["type"]: c["status"] for c in status["conditions"]}["Available"] == "True"
    assert set(fraud.children()) == {
        "Service/fraud",
        "Secret/fraud-routing",
        "Secret/fraud-spec",
        f"ControllerRevision/{first}",
        f"Deployment/{first}",
        f"Service/{first}",
    }
    assert ask(cluster, f"fraud.{fraud.namespace}") == "v1"

    fraud.apply(manifest("fraud", model_image, "v2"))
    fraud.until("the canary", lambda s: s.get("canary", {}).get("weight"))
    uids = {pod["metadata"]["uid"] for pod in fraud.pods().values()}
    second = fraud.healthy("v2")["stable"]["revision"]
    assert {pod["metadata"]["uid"] for pod in fraud.pods().values()} <= uids, "promotion restarted a pod"
    assert ask(cluster, f"fraud.{fraud.namespace}") == "v2"
    assert fraud.reasons() == [
        "RolloutStarted", "Promoted", "RolloutStarted", "WeightSet", "WeightSet", "Promoting", "Promoted",
    ]  # fmt: skip
    cluster.wait(lambda: len(fraud.pods()) == 1, "the old pods to go")

    no_write_in_a_minute(fraud)

    fraud.kubectl("scale", f"deployment/{second}", "--replicas=3")
    fraud.kubectl("label", "--overwrite", "service/fraud", "app.kubernetes.io/managed-by=somebody")
    fraud.kubectl("delete", f"service/{second}")
    fraud.kubectl("patch", "secret/fraud-routing", "--patch", '{"data": {"routing.json": "e30="}}')
    cluster.wait(
        lambda: (
            (children := fraud.children())
            and f"Service/{second}" in children
            and children[f"Deployment/{second}"]["spec"]["replicas"] == 1
            and children["Service/fraud"]["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "coalmine"
            and len(children["Secret/fraud-routing"]["data"]["routing.json"]) > 100
        ),
        "drift to be corrected",
    )

    fraud.kubectl("delete", "md/fraud")
    nothing_left(cluster, fraud)


def no_write_in_a_minute(fraud: Watched) -> None:
    def everything() -> dict[str, str]:
        return versions({"md": fraud.read(), **fraud.children(), **fraud.pods()})

    time.sleep(5)  # what a rollout leaves behind: pods that end, a Deployment's status
    before = everything()
    time.sleep(60)
    assert everything() == before


def nothing_left(cluster: Cluster, fraud: Watched) -> None:
    """Kubernetes collects what was owned."""
    cluster.wait(lambda: not fraud.children() and not fraud.pods(), "children to go", 60)


def test_deletion_without_an_operator_leaves_nothing(
    cluster: Cluster, fraud: Watched, operator: Operator, model_image: str
) -> None:
    fraud.apply(manifest("fraud", model_image))
    fraud.healthy("v1")
    operator.kill()
    fraud.kubectl("delete", "md/fraud", "--timeout=20s")
    nothing_left(cluster, fraud)


def test_killed_in_the_middle_of_a_rollout_it_goes_on(
    cluster: Cluster, fraud: Watched, operator: Operator, model_image: str
) -> None:
    fraud.apply(manifest("fraud", model_image))
    fraud.healthy("v1")
    fraud.apply(manifest("fraud", model_image, "v2"))
    for phase in ("Progressing", "Promoting"):
        fraud.until(phase, lambda s, phase=phase: s["phase"] in (phase, "Healthy"))
        operator.kill()
        assert ask(cluster, f"fraud.{fraud.namespace}") in ("v1", "v2")
        operator.start()
    fraud.healthy("v2")
    history = fraud.status["history"]
    assert [(entry["version"], entry["result"]) for entry in history] == [("v1", "Promoted"), ("v2", "Promoted")]
    cluster.wait(lambda: len(fraud.pods()) == 1, "the old pods to go")


def test_orders_by_annotation(fraud: Watched, model_image: str) -> None:
    fraud.apply(manifest("fraud", model_image))
    fraud.healthy("v1")
    waits = {"canary": {"steps": [{"setWeight": 10}, {"pause": {}}], "scaleDownDelay": "1s"}}
    fraud.apply(manifest("fraud", model_image, "v2", strategy=waits))
    fraud.until("the pause", lambda s: s["phase"] == "Paused" and s["canary"]["weight"] == 10)

    fraud.annotate("promote", "no-such-revision")
    fraud.cluster.wait(lambda: "OrderRefused" in fraud.reasons(), "the refusal")
    assert fraud.status["phase"] == "Paused"
    fraud.cluster.wait(lambda: "coalmine.dev/promote" not in fraud.annotations(), "the annotation to go")

    fraud.annotate("rollback")
    status = fraud.until("the rollback", lambda s: s["phase"] == "Degraded" and s["stable"]["version"] == "v1")
    assert status["lastRollback"]["reason"] == "RolledBackByOrder"
    assert status["history"][-1]["actor"] == "kubectl-annotate"
    fraud.cluster.wait(lambda: "coalmine.dev/rollback" not in fraud.annotations(), "the annotation to go")

    fraud.annotate("retry", "v2")
    fraud.until("the pause", lambda s: s["phase"] == "Paused" and s["canary"]["weight"] == 10)
    fraud.annotate("resume")
    fraud.healthy("v2")
    assert fraud.reasons()[-6:] == [
        "RetryOrdered", "RolloutStarted", "WeightSet", "Resumed", "Promoting", "Promoted",
    ]  # fmt: skip


def test_a_version_that_cannot_start_says_why_and_harms_nobody(
    cluster: Cluster, fraud: Watched, model_image: str
) -> None:
    fraud.apply(manifest("fraud", model_image))
    fraud.healthy("v1")

    crashes = manifest("fraud", model_image, "v2")
    crashes["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "no-such-version"
    fraud.apply(crashes)
    status = fraud.until("the crash", lambda s: "ended with status" in s.get("message", ""))
    assert "no-such-version" in status["message"], "the end of the log belongs to it"
    assert status["stable"]["version"] == "v1"

    fraud.apply(manifest("fraud", "localhost/no/such/image:1", "v3"))
    fraud.until("the image", lambda s: "ImagePull" in s.get("message", ""))

    wrong = manifest("fraud", model_image, "v4")
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProbe"] = {"periodSeconds": 5}
    fraud.apply(wrong)
    status = fraud.until("the refusal", lambda s: "Deployment refused" in s.get("message", ""))
    assert "must specify a handler type" in status["message"]
    assert ask(cluster, f"fraud.{fraud.namespace}") == "v1"

    good = manifest("fraud", model_image, "v2")
    good["spec"]["model"]["version"] = "v5"
    fraud.apply(good)
    fraud.healthy("v5")


def test_a_spec_that_cannot_be_used_leaves_the_last_good_one_in_force(
    cluster: Cluster, fraud: Watched, operator: Operator, model_image: str
) -> None:
    """What only the operator can know: the CRD lets it through."""
    bad = manifest("fraud", model_image, "v2")
    bad["spec"]["template"]["spec"]["hostNetwork"] = True

    fraud.apply(bad)
    status = fraud.until("the problem", lambda s: s.get("phase") == "InvalidSpec")
    assert "spec.template.spec.hostNetwork" in status["message"]
    assert not fraud.children()

    fraud.apply(manifest("fraud", model_image))
    fraud.healthy("v1")
    fraud.apply(bad)
    fraud.until("the problem", lambda s: s["phase"] == "InvalidSpec")
    operator.kill()
    operator.start()
    (pod,) = fraud.pods()
    fraud.kubectl("delete", f"pod/{pod}")
    cluster.wait(lambda: ask(cluster, f"fraud.{fraud.namespace}") == "v1", "stable to serve", 60)
    assert fraud.status["phase"] == "InvalidSpec"


def test_two_of_one_name_in_two_namespaces_do_not_mix(
    cluster: Cluster, namespace: str, sidecar_image: str, model_image: str, tmp_path: Path
) -> None:
    other = f"{namespace}-b"
    cluster.kubectl("create", "namespace", other)
    try:
        with operator_for(cluster, [namespace, other], sidecar_image, tmp_path / "operator.log"):
            here, there = Watched(cluster, namespace), Watched(cluster, other)
            here.apply(manifest("fraud", model_image))
            there.apply(manifest("fraud", model_image, "v2"))
            here.healthy("v1")
            there.healthy("v2")
            for _ in range(5):
                assert ask(cluster, f"fraud.{namespace}") == "v1"
                assert ask(cluster, f"fraud.{other}") == "v2"
            there.kubectl("delete", "md/fraud")
            nothing_left(cluster, there)
            assert here.status["phase"] == "Healthy"
            assert here.pods()
    finally:
        cluster.kubectl("delete", "namespace", other, "--wait=false")
        cluster.kubectl("delete", "md", "--all", "--namespace", namespace)
