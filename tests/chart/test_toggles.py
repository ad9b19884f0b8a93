"""Each part comes and goes by its toggle, alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.chart.chart import CHART, NAMESPACE, ROOT, SETS, Chart, Object, named, of_kind, pod_templates

Name = tuple[str, str]


def names(objects: list[Object]) -> set[Name]:
    return {(one["kind"], one["metadata"]["name"]) for one in objects}


CLUSTER = f"coalmine:{NAMESPACE}"
WEBHOOK = f"coalmine-webhook.{NAMESPACE}"
AUTHORITY = {
    ("Secret", "coalmine-webhook-tls"),
    ("Role", f"{CLUSTER}:certificate"),
    ("RoleBinding", f"{CLUSTER}:certificate"),
    ("ClusterRole", f"{CLUSTER}:certificate"),
    ("ClusterRoleBinding", f"{CLUSTER}:certificate"),
}
#: Values, and what they add to or take from the defaults.
TOGGLES: dict[str, tuple[dict[str, Any], set[Name]]] = {
    "podMonitor": ({"enabled": True}, {("PodMonitor", "coalmine-sidecars"), ("PodMonitor", "coalmine-adopted")}),
    "serviceMonitor": ({"enabled": True}, {("ServiceMonitor", "coalmine-operator")}),
    "prometheusRule": ({"enabled": True}, {("PrometheusRule", "coalmine")}),
    "rulesConfigMap": ({"enabled": True}, {("ConfigMap", "coalmine-rules")}),
    "dashboard": ({"enabled": True}, {("ConfigMap", "coalmine-dashboard")}),
    "networkPolicy": (
        {"enabled": False},
        {("NetworkPolicy", "coalmine-operator"), ("NetworkPolicy", "coalmine-webhook")},
    ),
    "crds": ({"enabled": False}, {("CustomResourceDefinition", "modeldeployments.coalmine.dev")}),
    "webhook": (
        {"enabled": False},
        {
            ("Deployment", "coalmine-webhook"),
            ("Service", "coalmine-webhook"),
            ("ServiceAccount", "coalmine-webhook"),
            ("PodDisruptionBudget", "coalmine-webhook"),
            ("NetworkPolicy", "coalmine-webhook"),
            ("MutatingWebhookConfiguration", WEBHOOK),
            ("ValidatingWebhookConfiguration", WEBHOOK),
            *AUTHORITY,
        },
    ),
    "certificates": (
        {"certManager": {"enabled": True}},
        {("Certificate", "coalmine-webhook"), ("Issuer", "coalmine-webhook"), *AUTHORITY},
    ),
    "operator": ({"serviceAccount": {"create": False, "name": "mine"}}, {("ServiceAccount", "coalmine-operator")}),
    "alerts": ({"existingSecret": {"name": "pager"}}, {("Secret", "coalmine-alerts")}),
    "rbac": ({"aggregate": False}, {("ClusterRole", f"{CLUSTER}:view"), ("ClusterRole", f"{CLUSTER}:edit")}),
}


@pytest.mark.parametrize("key", TOGGLES)
def test_toggles(chart: Chart, key: str) -> None:
    value, changed = TOGGLES[key]
    assert names(chart.render()) ^ names(chart.render({key: value})) == changed


def test_one_replica_needs_no_disruption_budget(chart: Chart) -> None:
    budget = {("PodDisruptionBudget", "coalmine-webhook")}
    for webhook in ({"replicas": 1}, {"podDisruptionBudget": {"enabled": False}}):
        assert names(chart.render()) - names(chart.render({"webhook": webhook})) == budget


@pytest.mark.parametrize("name", SETS)
def test_objects_are_labelled_placed_and_unique(chart: Chart, name: str) -> None:
    objects = chart.render({"commonLabels": {"team": "platform"}}, file=SETS[name])
    places = [(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in objects]
    assert len(places) == len(set(places))
    for one in objects:
        labels = one["metadata"]["labels"]
        assert labels["team"] == "platform"
        assert labels["app.kubernetes.io/part-of"] == "coalmine"
        assert labels["app.kubernetes.io/instance"] == "coalmine"
        namespaced = one["kind"] not in (
            "ClusterRole",
            "ClusterRoleBinding",
            "CustomResourceDefinition",
            "MutatingWebhookConfiguration",
            "ValidatingWebhookConfiguration",
        )
        assert ("namespace" in one["metadata"]) == namespaced


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("coalmine", {}, "coalmine-operator"),
        ("ml", {}, "ml-coalmine-operator"),
        ("ml-coalmine", {}, "ml-coalmine-operator"),
        ("ml", {"fullnameOverride": "canary"}, "canary-operator"),
        ("a" * 53, {}, "a" * 40 + "-operator"),
    ],
)
def test_names_follow_the_release(chart: Chart, release: str, values: dict[str, Any], name: str) -> None:
    objects = chart.render(values, release=release)
    assert dict(pod_templates(objects)).keys() == {name, name.removesuffix("operator") + "webhook"}
    # As a label's value, which a Deployment's name becomes, and as a DNS label, which a Service's is.
    assert max(len(one["metadata"]["name"]) for one in of_kind(objects, "Deployment", "Service")) <= 63


def test_placement_reaches_both(chart: Chart) -> None:
    placed: dict[str, Any] = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    }
    both = {"podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}, **placed}
    values = {"operator": both, "webhook": both, "imagePullSecrets": [{"name": "registry"}]}
    for _, template in pod_templates(chart.render(values)):
        assert {key: template["spec"][key] for key in placed} == placed
        assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
        assert template["metadata"]["labels"]["a"] == "b"
        assert template["metadata"]["annotations"]["c"] == "d"


def test_spread_over_nodes_and_zones(chart: Chart) -> None:
    template = dict(pod_templates(chart.render()))["coalmine-webhook"]
    spread = template["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for one in spread:
        assert one["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert one["matchLabelKeys"] == ["pod-template-hash"]


def test_who_may_send_alerts(chart: Chart) -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    policy = named(chart.render({"networkPolicy": {"from": peers}}), "NetworkPolicy", "coalmine-operator")
    assert policy["spec"]["ingress"] == [{"ports": [{"port": "web", "protocol": "TCP"}], "from": peers}]
    assert "from" not in named(chart.render(), "NetworkPolicy", "coalmine-operator")["spec"]["ingress"][0]


def test_monitors_are_found_by_labels_of_yours(chart: Chart) -> None:
    one = {"enabled": True, "labels": {"release": "prometheus"}}
    monitor = {**one, "interval": "15s"}
    objects = chart.render({"podMonitor": monitor, "serviceMonitor": monitor, "prometheusRule": one})
    for found in of_kind(objects, "PodMonitor", "ServiceMonitor", "PrometheusRule"):
        assert found["metadata"]["labels"]["release"] == "prometheus"
        for endpoint in found["spec"].get("endpoints", found["spec"].get("podMetricsEndpoints", ())):
            assert endpoint["interval"] == "15s"


def notes(chart: Chart, values: str = "{}") -> str:
    """What `helm install` says at its end. --dry-run=client needs no cluster."""
    words = ("install", "coalmine", "--namespace", NAMESPACE, "--dry-run=client", "--values", "-")
    done = chart.run(*words, CHART, input=values)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("NOTES:")[2]


def test_notes_say_the_next_command(chart: Chart) -> None:
    said = notes(chart)
    assert f"kubectl -n {NAMESPACE} rollout status deployment/coalmine-operator" in said
    assert "kubectl apply -f" in said
    manifests = re.findall(r"[\w/-]+\.yaml", said)
    assert manifests
    assert all((ROOT / manifest).is_file() for manifest in manifests)
    (section,) = re.findall(r'README says under "(.*)"', said)
    assert f"## {section}\n" in (ROOT / "README.md").read_text()
    assert f"url: http://coalmine-operator.{NAMESPACE}.svc.cluster.local/alerts" in said
    assert "get secret coalmine-alerts -o jsonpath='{.data.token}'" in said
    assert "No rules for Prometheus were installed" in said


def test_notes_follow_the_values(chart: Chart) -> None:
    values = (
        '{"watchNamespaces": ["models"], "webhook": {"enabled": false}, "prometheusRule": {"enabled": true},'
        ' "alerts": {"existingSecret": {"name": "pager", "key": "a.b"}}}'
    )
    said = notes(chart, values)
    assert "the models in models" in said
    assert "kubectl -n models apply -f" in said
    assert "deployment/coalmine-webhook" not in said
    assert "Without the webhook" in said
    assert r"get secret pager -o jsonpath='{.data.a\.b}'" in said
    assert "No rules" not in said
