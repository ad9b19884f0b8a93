"""Pods of the chart: what the security standard `restricted` asks, and flags that the programs know."""

from __future__ import annotations

from typing import Any

import pytest
from tests.chart.chart import SETS, Chart, Object, of_kind, pod_templates

from coalmine_operator.__main__ import read_settings

#: Volumes that `restricted` allows.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def restricted(template: Object) -> list[str]:
    """What of a pod breaks the standard `restricted`, or our own rule of a root that nobody writes to.

    Source: kubernetes.io/docs/concepts/security/pod-security-standards.
    """
    spec = template["spec"]
    whole = spec.get("securityContext", {})
    broken = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    broken += [f"volume {v['name']}" for v in spec.get("volumes", ()) if not v.keys() - {"name"} <= VOLUMES]
    if whole.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        broken.append("seccompProfile")
    if whole.get("runAsNonRoot") is not True or not whole.get("runAsUser"):
        broken.append("runAsNonRoot")
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        own = container.get("securityContext", {})
        wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        broken += [f"{container['name']}: {key}" for key, value in wanted.items() if own.get(key) != value]
        broken += [f"{container['name']}: {key}" for key in ("runAsUser", "runAsNonRoot", "privileged") if key in own]
        broken += [f"{container['name']}: hostPort" for port in container.get("ports", ()) if "hostPort" in port]
    return broken


def test_the_check_finds_what_is_not_restricted() -> None:
    bad = {"spec": {"hostNetwork": True, "volumes": [{"name": "v", "hostPath": {}}], "containers": [{"name": "c"}]}}
    assert len(restricted(bad)) == 7


@pytest.mark.parametrize("name", SETS)
def test_every_pod_is_restricted(chart: Chart, name: str) -> None:
    templates = dict(pod_templates(chart.render(file=SETS[name])))
    assert templates.keys() >= {"coalmine-operator"}
    assert {name: restricted(template) for name, template in templates.items()} == {name: [] for name in templates}


@pytest.mark.parametrize("name", SETS)
def test_every_container_has_probes_and_resources_but_no_cpu_limit(chart: Chart, name: str) -> None:
    for _, template in pod_templates(chart.render(file=SETS[name])):
        for container in template["spec"]["containers"]:
            assert container.keys() >= {"readinessProbe", "livenessProbe"}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["resources"]["limits"].keys() == {"memory"}


@pytest.mark.parametrize("name", SETS)
def test_selectors_find_their_pods_and_no_others(chart: Chart, name: str) -> None:
    objects = chart.render(file=SETS[name])
    pods = {name: template["metadata"]["labels"] for name, template in pod_templates(objects)}

    def found(selector: dict[str, str]) -> list[str]:
        return [name for name, labels in pods.items() if selector.items() <= labels.items()]

    for one in of_kind(objects, "Deployment", "PodDisruptionBudget"):
        assert found(one["spec"]["selector"]["matchLabels"]) == [one["metadata"]["name"]]
    for one in of_kind(objects, "NetworkPolicy"):
        assert found(one["spec"]["podSelector"]["matchLabels"]) == [one["metadata"]["name"]]
    for one in of_kind(objects, "Service"):
        assert found(one["spec"]["selector"]) == [one["metadata"]["name"]]


def operator(objects: list[Object]) -> Object:
    template = dict(pod_templates(objects))["coalmine-operator"]
    (container,) = template["spec"]["containers"]
    return container


SETTINGS: list[tuple[dict[str, Any], str, object]] = [
    ({"watchNamespaces": ["models", "shop"]}, "platform.namespaces", ("models", "shop")),
    ({}, "platform.namespaces", ()),
    ({"clusterDomain": "corp.example"}, "platform.cluster_domain", "corp.example"),
    ({}, "platform.injection.image", "coalmine-sidecar:0.1.0"),
    ({"sidecar": {"image": {"repository": "hub/sidecar", "tag": "2"}}}, "platform.injection.image", "hub/sidecar:2"),
    (
        {"sidecar": {"image": {"tag": "2", "digest": "sha256:" + "0" * 64}}},
        "platform.injection.image",
        "coalmine-sidecar@sha256:" + "0" * 64,
    ),
    ({"sidecar": {"image": {"pullPolicy": "Never"}}}, "platform.injection.image_pull_policy", "Never"),
    ({"sidecar": {"resources": {"requests": {"cpu": "75m"}}}}, "platform.injection.cpu_request", "75m"),
    ({"sidecar": {"resources": {"requests": {"memory": "99Mi"}}}}, "platform.injection.memory_request", "99Mi"),
    ({"sidecar": {"resources": {"limits": {"memory": "1Gi"}}}}, "platform.injection.memory_limit", "1Gi"),
    ({}, "port", 8080),
]


@pytest.mark.parametrize(("values", "field", "value"), SETTINGS)
def test_the_operator_understands_its_flags(chart: Chart, values: dict[str, Any], field: str, value: object) -> None:
    container = operator(chart.render(values))
    settings, _ = read_settings(container["args"], {})
    found: object = settings
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value


def test_the_operator_serves_where_the_service_and_the_probes_ask(chart: Chart) -> None:
    objects = chart.render()
    container = operator(objects)
    settings, _ = read_settings(container["args"], {})
    assert container["ports"] == [{"name": "web", "containerPort": settings.port, "protocol": "TCP"}]
    (service,) = [one for one in of_kind(objects, "Service") if one["metadata"]["name"] == "coalmine-operator"]
    assert service["spec"]["ports"][0]["targetPort"] == "web"
    assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": "web"}


@pytest.mark.parametrize(
    ("alerts", "secret", "key"),
    [({}, "coalmine-alerts", "token"), ({"existingSecret": {"name": "pager", "key": "bearer"}}, "pager", "bearer")],
)
def test_the_token_of_alertmanager_is_where_the_operator_looks(
    chart: Chart, alerts: dict[str, Any], secret: str, key: str
) -> None:
    objects = chart.render({"alerts": alerts})
    container = operator(objects)
    settings, _ = read_settings(container["args"], {})
    (mount,) = container["volumeMounts"]
    assert str(settings.alerts_token_file) == f"{mount['mountPath']}/{key}"
    (volume,) = dict(pod_templates(objects))["coalmine-operator"]["spec"]["volumes"]
    assert volume["secret"]["secretName"] == secret
    made = [one["metadata"]["name"] for one in of_kind(objects, "Secret") if "token" in one.get("data", {})]
    assert made == ([] if alerts else ["coalmine-alerts"])
