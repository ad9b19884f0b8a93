"""What the operator alone can know to be wrong becomes a condition that says why, and stable keeps serving."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.lab.cluster import Cluster
from tests.cluster.operating import Operator, Served, Watched, manifest, namespaces, operator_for

pytestmark = pytest.mark.timeout(300, func_only=True)

#: Model deployments that begin to serve together, each for a test of its own.
LONGEST = "n" * 52
SERVED = ("image", "template", "unschedulable", "fallback", "spec", LONGEST)


@pytest.fixture(scope="module")
def spaces(cluster: Cluster) -> Iterator[list[str]]:
    """A namespace for most, one with a quota, and one that the operator does not serve."""
    name = f"refusals-{secrets.token_hex(4)}"
    with namespaces(cluster, name, f"{name}-quota", f"{name}-strange") as names:
        yield names


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, spaces: list[str], sidecar_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    log = tmp_path_factory.mktemp("refusals") / "operator.log"
    with operator_for(cluster, spaces[:2], sidecar_image, log) as running:
        yield running


@pytest.fixture(scope="module")
def strange(cluster: Cluster, spaces: list[str], model_image: str) -> Watched:
    """In a namespace that the operator does not serve."""
    one = Watched(cluster, spaces[2], "strange")
    one.apply(manifest("strange", model_image))
    return one


@pytest.fixture(scope="module")
def all_served(cluster: Cluster, spaces: list[str], operator: Operator, strange: Watched, model_image: str) -> Served:
    """Quota has room for one pod more or less."""
    members = {Watched(cluster, spaces[0], name): manifest(name, model_image) for name in SERVED}
    for one, document in members.items():
        if one.name == "fallback":
            document["spec"]["fallback"] = {"version": "previous"}
        if one.name == LONGEST:
            document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
    members[Watched(cluster, spaces[1], "quota")] = manifest("quota", model_image)
    return Served(members)


def test_a_quota_holds_a_canary_back_until_it_grows(served: Served, model_image: str) -> None:
    quota = served["quota"]
    hard: dict[str, Any] = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods"}}
    quota.apply({**hard, "spec": {"hard": {"pods": "1"}}})
    quota.apply(manifest("quota", model_image, "v2"))
    quota.condition("Progressing", "True", "WaitingForPods", "exceeded quota: pods")
    assert quota.status["phase"] == "Progressing"
    assert quota.ask() == "v1"
    quota.apply({**hard, "spec": {"hard": {"pods": "4"}}})
    quota.healthy("v2", 120)
    quota.condition("Progressing", "False", "RolloutComplete")
    assert quota.reasons() == [
        "RolloutStarted", "Promoted", "RolloutStarted", "WeightSet", "WeightSet", "Promoting", "Promoted",
    ]  # fmt: skip


def test_an_image_that_cannot_be_pulled_and_a_crash(served: Served, model_image: str) -> None:
    image = served["image"]
    image.apply(manifest("image", "localhost/no/such/image:1", "v2"))
    image.condition("Progressing", "True", "WaitingForPods", "ImagePull")
    assert image.ask() == "v1"

    crashes = manifest("image", model_image, "v3")
    crashes["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "no-such-version"
    image.apply(crashes)
    # The end of its log, which kubelet may have a moment later than the status it ended with.
    status = image.condition("Progressing", "True", "WaitingForPods", "no-such-version")
    assert "ended with status" in status["message"]
    assert status["stable"]["version"] == "v1"
    assert image.ask() == "v1"

    good = manifest("image", model_image, "v2")
    good["spec"]["model"]["version"] = "v4"
    image.apply(good)
    image.healthy("v4")
    assert image.reasons() == [
        "RolloutStarted", "Promoted", "RolloutStarted", "RolloutWithdrawn", "RolloutStarted", "RolloutWithdrawn",
        "RolloutStarted", "WeightSet", "WeightSet", "Promoting", "Promoted",
    ]  # fmt: skip


def test_a_template_that_the_api_server_rejects(served: Served, model_image: str) -> None:
    template = served["template"]
    wrong = manifest("template", model_image, "v2")
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProbe"] = {"periodSeconds": 5}
    template.apply(wrong)
    template.condition("Progressing", "True", "WaitingForPods", "Deployment refused: ")
    assert "must specify a handler type" in template.status["message"]
    assert template.ask() == "v1"
    good = manifest("template", model_image, "v2")
    good["spec"]["model"]["version"] = "v3"
    template.apply(good)
    template.healthy("v3")
    assert template.reasons().count("ApplyRefused") == 1


def test_a_pod_that_no_node_takes(served: Served, model_image: str) -> None:
    """Given up at its deadline: rolled back, with the reason."""
    one = served["unschedulable"]
    wrong = manifest("unschedulable", model_image, "v2", progressDeadlineSeconds=15)
    wrong["spec"]["template"]["spec"]["nodeSelector"] = {"no-such": "node"}
    one.apply(wrong)
    one.condition("Progressing", "True", "WaitingForPods", "Unschedulable: ")
    assert one.ask() == "v1"
    status = one.condition("RolledBack", "True", "ProgressDeadlineExceeded", "Unschedulable: ")
    assert status["phase"] in ("RollingBack", "Degraded")
    assert [entry["version"] for entry in status["quarantined"]] == ["v2"]
    assert one.ask() == "v1"
    good = manifest("unschedulable", model_image, "v2")
    good["spec"]["model"]["version"] = "v3"
    one.apply(good)
    one.healthy("v3")
    one.condition("RolledBack", "False", "None")
    assert one.reasons() == [
        "RolloutStarted", "Promoted", "RolloutStarted", "RolledBack", "RollbackDone",
        "RolloutStarted", "WeightSet", "WeightSet", "Promoting", "Promoted",
    ]  # fmt: skip


def test_a_fallback_whose_revision_is_gone(served: Served, operator: Operator, model_image: str) -> None:
    """With the operator up its record is put back; what went while it was down is told."""
    one = served["fallback"]
    previous = {"fallback": {"version": "previous"}}
    one.condition("FallbackReady", "False", "NoFallback", "no version was stable before this one")
    first = one.status["stable"]["revision"]
    one.apply(manifest("fallback", model_image, "v2", **previous))
    one.healthy("v2")
    one.condition("FallbackReady", "True", "FallbackReady", "v1")
    one.kubectl("delete", f"controllerrevision/{first}")
    one.cluster.wait(lambda: f"ControllerRevision/{first}" in one.children(), "the record to be put back")
    one.condition("FallbackReady", "True", "FallbackReady", "v1")

    operator.kill()
    one.kubectl("delete", f"controllerrevision/{first}")
    operator.start()
    one.condition("FallbackReady", "False", "FallbackMissing", "is not kept any more")
    one.answered_by("v2")
    one.apply(manifest("fallback", model_image, "v3", **previous))
    one.healthy("v3")
    one.condition("FallbackReady", "True", "FallbackReady", "v2")


def test_a_spec_that_cannot_be_used_leaves_the_last_good_one_in_force(
    served: Served, operator: Operator, model_image: str
) -> None:
    """What only the operator can know: the CRD lets it through. Conditions of others stay theirs."""
    one = served["spec"]
    bad = manifest("spec", model_image, "v2")
    bad["spec"]["template"]["spec"]["hostNetwork"] = True
    one.apply(bad)
    status = one.condition("Progressing", "False", "InvalidSpec", "spec.template.spec.hostNetwork")
    assert status["phase"] == "InvalidSpec"
    operator.kill()
    operator.start()
    (pod,) = one.pods()
    one.kubectl("delete", f"pod/{pod}")
    one.cluster.wait(lambda: one.ask() == "v1", "stable to serve", 60)
    assert one.status["phase"] == "InvalidSpec"

    good = manifest("spec", model_image, "v2")
    one.apply(good)
    one.healthy("v2")


def test_a_first_spec_that_cannot_be_used(
    cluster: Cluster, operator: Operator, spaces: list[str], model_image: str, again: bool
) -> None:
    one = Watched(cluster, spaces[0], "first")
    if again:
        one.forget()
    bad = manifest("first", model_image)
    bad["spec"]["template"]["spec"]["hostNetwork"] = True
    one.apply(bad)
    one.condition("Progressing", "False", "InvalidSpec", "spec.template.spec.hostNetwork")
    assert not one.children()
    theirs = {
        "type": "example.org/Seen",
        "status": "True",
        "reason": "Seen",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    seen = {
        "apiVersion": bad["apiVersion"],
        "kind": bad["kind"],
        "metadata": {"name": "first"},
        "status": {"conditions": [theirs]},
    }
    how = ("--server-side", "--subresource=status", "--field-manager=somebody", "--filename=-")
    one.kubectl("apply", *how, input=json.dumps(seen))
    bad["spec"]["template"]["spec"]["volumes"] = [{"name": "coalmine-routing", "emptyDir": {}}]
    one.apply(bad)
    status = one.condition("Progressing", "False", "InvalidSpec", "coalmine-routing")
    assert {condition["type"] for condition in status["conditions"]} == {"Progressing", "example.org/Seen"}
    assert "example.org/Seen" not in one.owned("status")
    one.apply(manifest("first", model_image))
    status = one.healthy("v1")
    assert "example.org/Seen" in {condition["type"] for condition in status["conditions"]}


def test_what_somebody_else_made_is_never_written_over(
    cluster: Cluster, operator: Operator, spaces: list[str], model_image: str, again: bool
) -> None:
    one = Watched(cluster, spaces[0], "taken")
    if again:
        one.forget()
        one.kubectl("delete", "service/taken", "secret/taken-routing", "--ignore-not-found")
    port = {"port": 80, "protocol": "TCP", "targetPort": 8080}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"}, "spec": {"ports": [port]}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken-routing"}, "stringData": {"key": "x"}}
    one.apply(service)
    one.apply(secret)
    before = [one.get(name)["metadata"] for name in ("service/taken", "secret/taken-routing")]

    one.apply(manifest("taken", model_image))
    status = one.condition("Available", "False", "ApplyRefused", "Secret taken-routing was made by somebody else")
    assert status["phase"] == "Degraded"
    assert not one.pods(), "pods would mount a Secret of somebody else"
    one.kubectl("delete", "secret/taken-routing")
    one.condition("Progressing", "False", "ApplyRefused", "Service taken was made by somebody else")
    assert one.get("service/taken")["metadata"] == before[0]
    one.kubectl("delete", "service/taken")
    one.healthy("v1")
    one.condition("Available", "True", "MinimumReplicasAvailable")
    cluster.wait(lambda: one.ask() == "v1", "the new Service to lead somewhere")
    assert one.reasons().count("ApplyRefused") == 2


def test_the_longest_name(served: Served) -> None:
    """A longer one is refused by the API server: see test_crd_manifests. And its pod leaves little time to drain."""
    one = served[LONGEST]
    assert one.ask() == "v1"
    assert one.reasons() == ["RolloutStarted", "PodNote", "Promoted"]
    assert one.messages("PodNote") == ["v1: terminationGracePeriodSeconds: requests under way get 3 s of it to finish"]


def test_a_namespace_that_is_not_served_is_left_alone(strange: Watched) -> None:
    """Last: whatever an operator of that namespace would have done is done by now."""
    assert strange.read()["metadata"]["generation"] == 1
    assert strange.status == {}
    assert not strange.children()
    assert not strange.reasons()
