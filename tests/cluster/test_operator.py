"""The operator of a whole cluster: what it makes of model deployments, how it scales them, and that it rests.

All that a minute of rest is asked of stands side by side: one that is healthy, one that an autoscaler owns, with a
fallback, and one that is paused in the middle of a rollout.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.run import LabError
from tests.cluster.operating import Operator, Watched, alert, manifest, namespaces, operator_for

pytestmark = pytest.mark.timeout(400, func_only=True)

HALF = {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}], "scaleDownDelay": "1s"}}
GUARDED = {"alerts": [{"name": "Slow"}], "bakeTime": "60s"}
REST = 60.0
#: Of the operator, in the pods' network, which is not this machine's.
PORT = 18098
TOKEN = "alerts-of-the-test"


@pytest.fixture(scope="module")
def spaces(cluster: Cluster) -> Iterator[list[str]]:
    name = f"operator-{secrets.token_hex(4)}"
    with namespaces(cluster, name, f"{name}-b") as names:
        yield names


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, spaces: list[str], sidecar_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """Of all namespaces."""
    folder = tmp_path_factory.mktemp("operator")
    (folder / "token").write_text(TOKEN)
    flags = (f"--listen=127.0.0.1:{PORT}", f"--alerts-token-file={folder / 'token'}")
    with operator_for(cluster, [], sidecar_image, folder / "operator.log", *flags) as running:
        yield running


@pytest.fixture(scope="module")
def here(cluster: Cluster, spaces: list[str], operator: Operator, model_image: str) -> dict[str, Watched]:
    """By name: each at its first version."""
    found = {name: Watched(cluster, spaces[0], name) for name in ("fraud", "scaled", "gone")}
    for name, one in found.items():
        document = manifest(name, model_image)
        if name == "scaled":
            scale(one, 2, 2)
            document = scalable(document)
        one.apply(document)
    for one in found.values():
        one.healthy("v1", 120)
    return found


def scalable(document: dict[str, Any]) -> dict[str, Any]:
    """`replicas` is left to the autoscaler."""
    document["spec"] |= {"fallback": {"version": "previous"}, "strategy": HALF}
    del document["spec"]["replicas"]
    return document


def scale(one: Watched, least: int, most: int) -> None:
    """A real HorizontalPodAutoscaler. Without metrics it holds to its bounds."""
    one.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": one.name},
            "spec": {
                "minReplicas": least,
                "maxReplicas": most,
                "scaleTargetRef": {"apiVersion": "coalmine.dev/v1alpha1", "kind": "ModelDeployment", "name": one.name},
            },
        }
    )


def scaled_to(one: Watched, stable: int, canary: int = 0) -> dict[str, Any]:
    """The status once so many pods are wanted and ready."""

    def ready(status: dict[str, Any]) -> bool:
        tracks = [status["stable"], status.get("canary") or {"desired": 0, "ready": 0}]
        return [(track["desired"], track["ready"]) for track in tracks] == [(stable, stable), (canary, canary)]

    return one.until(f"{stable} pods of stable, {canary} of the canary", ready, 120)


def selected(one: Watched) -> set[str]:
    """The pods that an autoscaler would measure: those of the scale subresource's selector."""
    found = one.cluster.read(f"{one.path}/scale")
    items = one.get("pods", "--selector", found["status"]["selector"])["items"]
    pods = [pod["metadata"] for pod in items if "deletionTimestamp" not in pod["metadata"]]
    assert found["status"]["replicas"] == len(pods)
    return {pod["labels"]["app.kubernetes.io/version"] for pod in pods}


def test_a_first_version_and_a_second_one(
    cluster: Cluster, here: dict[str, Watched], model_image: str, again: bool
) -> None:
    fraud = here["fraud"]
    if again:
        fraud.forget()
        fraud.apply(manifest("fraud", model_image))
        fraud.healthy("v1")
    status = fraud.status
    first = status["stable"]["revision"]
    assert status["observedGeneration"] == 1
    fraud.condition("Available", "True", "MinimumReplicasAvailable")
    assert set(fraud.children()) == {
        "Service/fraud",
        "Secret/fraud-routing",
        "Secret/fraud-spec",
        f"ControllerRevision/{first}",
        f"Deployment/{first}",
        f"Service/{first}",
    }
    assert fraud.ask() == "v1"
    fraud.apply(manifest("fraud", model_image, "v2"))
    fraud.until("the canary", lambda s: s.get("canary", {}).get("weight"))
    uids = {pod["metadata"]["uid"] for pod in fraud.pods().values()}
    fraud.healthy("v2")
    assert {pod["metadata"]["uid"] for pod in fraud.pods().values()} <= uids, "promotion restarted a pod"
    fraud.answered_by("v2")
    assert fraud.reasons() == [
        "RolloutStarted", "Promoted", "RolloutStarted", "WeightSet", "WeightSet", "Promoting", "Promoted",
    ]  # fmt: skip
    cluster.wait(lambda: len(fraud.pods()) == 1, "the old pods to go")


def test_an_autoscaler_scales_stable_and_canary(here: dict[str, Watched], model_image: str, again: bool) -> None:
    one = here["scaled"]
    if again:
        one.forget()
        scale(one, 2, 2)
        one.apply(scalable(manifest("scaled", model_image)))
        one.healthy("v1")
    scaled_to(one, 2)
    assert one.read()["spec"]["replicas"] == 2
    assert "f:replicas" not in one.owned(), "the operator must not own what an autoscaler sets"
    assert selected(one) == {"v1"}

    one.apply(scalable(manifest("scaled", model_image, "v2")))
    one.until("the pause", lambda s: s["phase"] == "Paused" and s["canary"]["weight"] == 50)
    scaled_to(one, 2, 1)
    scale(one, 3, 3)
    scaled_to(one, 3, 2)
    assert selected(one) == {"v1"}
    scale(one, 1, 2)
    status = scaled_to(one, 2, 1)
    assert (status["phase"], status["canary"]["weight"]) == ("Paused", 50)
    assert one.read()["spec"]["replicas"] == 2, "applying the manifest again, or the operator, set it back"

    one.annotate("resume")
    one.healthy("v2")
    scaled_to(one, 2)
    one.condition("FallbackReady", "True", "FallbackReady", "v1")
    assert selected(one) == {"v2"}
    assert "OrderRefused" not in one.reasons()


def test_every_child_says_whose_it_is(here: dict[str, Watched]) -> None:
    one = here["scaled"]
    uid = one.read()["metadata"]["uid"]
    children = one.children()
    assert {name.partition("/")[0] for name in children} == {
        "Service", "Secret", "ControllerRevision", "Deployment", "PodDisruptionBudget",
    }  # fmt: skip
    for name, child in children.items():
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("ModelDeployment", "scaled", uid), name
        labels = child["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "coalmine-model", name
        assert labels["app.kubernetes.io/instance"] == "scaled", name
        assert labels["app.kubernetes.io/managed-by"] == "coalmine", name
        assert labels["app.kubernetes.io/component"] in ("model", "router"), name
        if revision := labels.get("coalmine.dev/revision"):
            assert child["metadata"]["name"] == revision
            assert labels["app.kubernetes.io/version"] in ("v1", "v2"), name
    for pod in one.pods().values():
        assert pod["metadata"]["labels"]["app.kubernetes.io/instance"] == "scaled"


def test_one_pod_at_a_time_may_be_evicted(here: dict[str, Watched]) -> None:
    one = here["scaled"]
    scaled_to(one, 2)
    stable = one.status["stable"]["revision"]
    first, second = sorted(name for name in one.pods() if name.startswith(stable))

    def evict(pod: str) -> str:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{one.namespace}/pods/{pod}/eviction"
        return one.kubectl("create", "--raw", path, "--filename=-", input=json.dumps(eviction))

    evict(first)
    with pytest.raises(LabError, match="disruption budget"):
        evict(second)
    scaled_to(one, 2)
    assert second in one.pods()


def test_at_rest_nothing_is_written(here: dict[str, Watched], operator: Operator, model_image: str) -> None:
    held = here["gone"]
    held.apply(manifest("gone", model_image, "v2", strategy=HALF))
    held.until("the pause", lambda s: s["phase"] == "Paused" and s["canary"]["weight"] == 50)
    for one in here.values():
        one.cluster.wait(lambda one=one: all(ready(pod) for pod in one.pods().values()), "pods to settle", 60)

    def everything() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, one in here.items():
            for kind, obj in {"md": one.read(), **one.children()}.items():
                found[f"{name} {kind}"] = obj["metadata"]["resourceVersion"]
            # Kubelet writes to pods when it likes, so of these it is our own writes that count.
            for pod, obj in one.pods().items():
                found[pod] = [e for e in obj["metadata"]["managedFields"] if e["manager"] == "coalmine"]
            found |= {event["metadata"]["name"]: event["metadata"]["resourceVersion"] for event in one.events()}
        return found

    time.sleep(3)  # what a rollout leaves behind: pods that end, a Deployment's status
    before = everything()
    assert any(entries for entries in before.values() if isinstance(entries, list)), "our writes to pods can be seen"
    called = writing_calls(held.cluster)
    time.sleep(REST)
    assert everything() == before
    assert writing_calls(held.cluster) == called
    # Nor by an operator that finds all of it done already.
    operator.kill()
    operator.start()
    held.cluster.wait(lambda: operator.log().count(" serving ") == 2, "the operator to begin", 90)
    time.sleep(4)
    assert everything() == before


def writing_calls(cluster: Cluster) -> list[str]:
    """Calls of the API server that may write, as the operator counts them: those that change nothing as well."""
    code = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"
    said = cluster.run_in_net(["python3", "-c", code, f"http://127.0.0.1:{PORT}/metrics"])
    counted = [line for line in said.splitlines() if line.startswith("coalmine_operator_api_calls_total{")]
    assert any('method="GET"' in line for line in counted)
    return [line for line in counted if 'method="GET"' not in line]


def ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


def test_drift_is_corrected(cluster: Cluster, here: dict[str, Watched]) -> None:
    fraud = here["fraud"]
    revision = fraud.status["stable"]["revision"]
    fraud.kubectl("scale", f"deployment/{revision}", "--replicas=3")
    fraud.kubectl("label", "--overwrite", "service/fraud", "app.kubernetes.io/managed-by=somebody")
    fraud.kubectl("delete", f"service/{revision}")
    fraud.kubectl("delete", f"controllerrevision/{revision}")
    fraud.kubectl("patch", "secret/fraud-routing", "--patch", '{"data": {"routing.json": "e30="}}')
    fraud.kubectl("label", f"deployment/{revision}", "coalmine.dev/modeldeployment-")
    cluster.wait(
        lambda: (
            (children := fraud.children())
            and f"Service/{revision}" in children
            and f"ControllerRevision/{revision}" in children
            and children[f"Deployment/{revision}"]["spec"]["replicas"] == 1
            and "coalmine.dev/modeldeployment" in children[f"Deployment/{revision}"]["metadata"]["labels"]
            and children["Service/fraud"]["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "coalmine"
            and len(children["Secret/fraud-routing"]["data"]["routing.json"]) > 100
        ),
        "drift to be corrected",
        60,
    )
    fraud.answered_by("v2")


def test_two_of_one_name_in_two_namespaces_do_not_mix(
    cluster: Cluster, here: dict[str, Watched], spaces: list[str], model_image: str, again: bool
) -> None:
    one, other = here["fraud"], Watched(cluster, spaces[1])
    if again:
        for watched in (one, other):
            watched.forget()
        one.apply(manifest("fraud", model_image, "v2"))
        one.healthy("v2")
    other.apply(manifest("fraud", model_image, autoRollback=GUARDED))
    other.healthy("v1")
    for watched, version in ((one, "v4"), (other, "v3")):
        watched.apply(manifest("fraud", model_image, version, strategy=HALF, autoRollback=GUARDED))
    for watched in (one, other):
        watched.until("the pause", lambda s: s["phase"] == "Paused" and s["canary"]["weight"] == 50)
    told = one.reasons()
    for _ in range(5):
        assert one.ask() in ("v2", "v4")
        assert other.ask() in ("v1", "v3")
    alert(cluster, PORT, TOKEN, alertname="Slow", modeldeployment="fraud", namespace=other.namespace)
    other.until("the rollback", lambda s: s["phase"] == "Degraded")
    assert other.status["lastRollback"]["reason"] == "AlertFiring"
    for watched, neighbour in ((one, other), (other, one)):
        uid = watched.read()["metadata"]["uid"]
        for name, child in watched.children().items():
            assert [owner["uid"] for owner in child["metadata"]["ownerReferences"]] == [uid], name
        routing = watched.routing()
        assert routing["namespace"] == watched.namespace
        hosts = [end for revision in routing["revisions"] for end in revision["endpoints"]]
        assert hosts
        assert all(f".{watched.namespace}.svc." in host for host in hosts)
        assert f".{neighbour.namespace}.svc." not in json.dumps(routing)
    assert one.status["phase"] == "Paused"
    assert one.reasons() == told, "the other's rollback was heard here"
    other.forget()
    assert one.ask() in ("v2", "v4")
    one.annotate("rollback")
    one.until("the rollback", lambda s: s["phase"] == "Degraded" and not s.get("retiring"))
    one.answered_by("v2")


def test_deletion_leaves_nothing(here: dict[str, Watched], operator: Operator, model_image: str, again: bool) -> None:
    """In the middle of a rollout, with the operator up; and with it down."""
    if again:
        operator.run()
        for name in ("gone", "fraud"):
            here[name].apply(manifest(name, model_image))
            here[name].healthy("v1")
    here["gone"].kubectl("delete", "md/gone", "--timeout=20s")
    here["gone"].gone()
    operator.kill()
    here["fraud"].kubectl("delete", "md/fraud", "--timeout=20s")
    here["fraud"].gone()
    here["scaled"].answered_by("v2")
