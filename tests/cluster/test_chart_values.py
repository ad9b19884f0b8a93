"""Other ways to install the chart: for high availability, the operator alone, and for the whole cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.chart.rights import granted
from tests.cluster.audit import calls
from tests.cluster.installed import CHART, RELEASE, Install, installed
from tests.cluster.lab.cluster import Cluster, NodeCluster
from tests.cluster.lab.run import LabError
from tests.cluster.operating import Watched, manifest
from tests.cluster.pods import pod

from coalmine_operator.render.injection import SIDECAR
from coalmine_operator.render.labels import INJECT

pytestmark = pytest.mark.timeout(300, func_only=True)

#: Kinds that others define, by their group.
FOREIGN = {
    "cert-manager.io": ["Certificate", "Issuer"],
    "monitoring.coreos.com": ["PodMonitor", "PrometheusRule", "ServiceMonitor"],
}


@pytest.fixture
def foreign_kinds(cluster: Cluster) -> Iterator[None]:
    """Known to the API server by their names: cert-manager and the Prometheus operator are not here."""
    made = [_definition(group, kind) for group, kinds in FOREIGN.items() for kind in kinds]
    cluster.apply(made)
    names = [f"crd/{one['metadata']['name']}" for one in made]
    cluster.kubectl("wait", "--for=condition=Established", *names)
    yield
    cluster.kubectl("delete", "--wait=false", *names)


def _definition(group: str, kind: str) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.lower()}s.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": f"{kind.lower()}s"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


@pytest.mark.usefixtures("foreign_kinds")
def test_the_api_server_takes_every_object_for_high_availability(cluster: Cluster, namespace: str) -> None:
    """Three replicas on three nodes do not fit on one, so nothing is kept."""
    words = ("template", RELEASE, CHART, "--namespace", namespace, "--values")
    rendered = cluster.helm(*words, f"{CHART}/values-high-availability.yaml")
    kinds = {one["kind"] for one in yaml.safe_load_all(rendered) if one}
    assert {kind for kinds in FOREIGN.values() for kind in kinds} <= kinds

    def taken() -> str:
        # kubectl learns of new kinds a moment after they are there.
        return cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", input=rendered
        )

    lines = cluster.wait(taken, "all of them to be taken", 60, every=1).splitlines()
    assert len(lines) == sum(1 for one in yaml.safe_load_all(rendered) if one)
    assert all(line.endswith("serverside-applied (server dry run)") for line in lines)


def test_the_operator_alone(
    cluster: Cluster, namespace: str, operator_image: str, sidecar_image: str, model_image: str
) -> None:
    """In the models' own namespace, with no object of the cluster but the definition."""
    values = Install(cluster, operator_image, sidecar_image, watchNamespaces=[namespace]).values
    values["webhook"]["enabled"] = False
    words = ("install", RELEASE, CHART, "--namespace", namespace, "--values", f"{CHART}/values-minimal.yaml")
    more = ("--wait", "--timeout=120s", "--take-ownership", "--force-conflicts", "--values=-")
    cluster.helm(*words, *more, input=json.dumps(values), timeout=150)
    try:
        fraud = Watched(cluster, namespace)
        fraud.apply(manifest("fraud", model_image))
        fraud.healthy("v1")
        fraud.annotate("refresh")
        cluster.wait(lambda: "coalmine.dev/refresh" not in fraud.annotations(), "the order is obeyed")
        (alone,) = cluster.get("pods", "--selector=app.kubernetes.io/name=coalmine", "--namespace", namespace)["items"]
        assert alone["metadata"]["labels"]["app.kubernetes.io/component"] == "operator"
        log = cluster.kubectl("logs", f"deployment/{RELEASE}-operator", "--namespace", namespace)
        assert "forbidden" not in log.lower()
        fraud.kubectl("delete", "md/fraud", "--timeout=60s")
    finally:
        cluster.helm("uninstall", RELEASE, "--namespace", namespace, "--wait")


@pytest.fixture(scope="module")
def everywhere(cluster: Cluster, operator_image: str, sidecar_image: str) -> Iterator[Install]:
    """A release for all namespaces, whose webhook must be asked."""
    careful = {"resources": {"requests": {"cpu": "5m"}}, "failurePolicy": "Fail"}
    with installed(cluster, operator_image, sidecar_image, watchNamespaces=[], webhook=careful) as release:
        yield release


def admitted(cluster: Cluster, namespace: str, document: dict[str, Any]) -> dict[str, Any]:
    """What becomes of it, without keeping it."""
    words = ("apply", "--dry-run=server", "--namespace", namespace, "--output=json", "--filename=-")
    made: dict[str, Any] = json.loads(cluster.kubectl(*words, input=json.dumps(document)))
    return made


def asking(image: str) -> dict[str, Any]:
    return pod("asking", image, labels={INJECT: "true"}, ports=[{"containerPort": 8080}])


def test_for_all_namespaces(everywhere: Install, cluster: Cluster, namespace: str, model_image: str) -> None:
    here, there = Watched(cluster, everywhere.models), Watched(cluster, namespace)
    # Whoever insists on being asked is waited for: the node has heard of a new Service a moment after helm has.
    cluster.wait(lambda: here.apply(manifest("fraud", model_image)) is None, "the webhook to be reached", 20, every=0.5)
    there.apply(manifest("fraud", model_image, "v2"))
    first, second = here.healthy("v1"), there.healthy("v2")
    assert first["stable"]["revision"] != second["stable"]["revision"]
    for where in (everywhere.models, namespace):
        (sidecar, *_) = admitted(cluster, where, asking(model_image))["spec"]["initContainers"]
        assert sidecar["name"] == SIDECAR
    for one in (here, there):
        one.kubectl("delete", "md/fraud", "--timeout=60s")
        cluster.wait(lambda one=one: not one.children(), "what it had made to go", 60)


def test_its_rights_are_enough(everywhere: Install, node: NodeCluster) -> None:
    made = calls(node, everywhere.own, f"{RELEASE}-operator")
    assert made
    assert [call for call in made if call.code == 403] == []
    objects = yaml.safe_load_all(node.helm("get", "manifest", RELEASE, "--namespace", everywhere.own))
    given = granted([one for one in objects if one], f"{RELEASE}-operator")
    assert given.keys() == {everywhere.own, ""}


def test_a_webhook_that_must_be_asked_holds_up_model_deployments_alone(
    everywhere: Install, cluster: Cluster, namespace: str, model_image: str
) -> None:
    webhook = everywhere.get("deployment", f"{RELEASE}-webhook")
    assert webhook["status"]["readyReplicas"] == webhook["spec"]["replicas"] == 2
    everywhere.scale("webhook", 0)

    def refused() -> bool:
        try:
            admitted(cluster, namespace, manifest("fraud", model_image))
        except LabError as error:
            return "failed calling webhook" in str(error)
        return False

    cluster.wait(refused, "the API server to miss it", 60)
    assert "initContainers" not in admitted(cluster, namespace, asking(model_image))["spec"]
    assert admitted(cluster, namespace, pod("other", model_image))
