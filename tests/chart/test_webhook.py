"""The webhook's configurations fit the webhook: paths, names, certificate, flags."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from tests.chart.chart import NAMESPACE, Chart, Object, named, of_kind, pod_templates

from coalmine_operator.__main__ import read_settings as operator_settings
from coalmine_operator.certificates import names_of
from coalmine_operator.render.injection import PORT_NAMES, InjectionSettings
from coalmine_operator.render.labels import INJECT, MODELDEPLOYMENT
from coalmine_operator.webhook.__main__ import read_settings
from coalmine_operator.webhook.server import make_app

KINDS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


def webhooks(objects: list[Object]) -> dict[str, Object]:
    return {hook["name"]: hook for one in of_kind(objects, *KINDS) for hook in one["webhooks"]}


def test_every_path_is_served_and_asked(chart: Chart) -> None:
    app: web.Application = make_app(InjectionSettings(image="coalmine-sidecar"))
    served = {route.resource.canonical for route in app.router.routes() if route.method == "POST" and route.resource}
    asked = [hook["clientConfig"]["service"]["path"] for hook in webhooks(chart.render()).values()]
    assert sorted(asked) == sorted(served)


def test_they_ask_the_service_that_finds_the_pods(chart: Chart) -> None:
    objects = chart.render()
    service = named(objects, "Service", "coalmine-webhook")
    template = dict(pod_templates(objects))["coalmine-webhook"]
    (container,) = template["spec"]["containers"]
    settings, _ = read_settings(container["args"][1:], {})
    (port,) = container["ports"]
    assert (port["name"], port["containerPort"]) == (service["spec"]["ports"][0]["targetPort"], settings.port)
    for hook in webhooks(objects).values():
        asked = hook["clientConfig"]["service"]
        assert (asked["name"], asked["namespace"]) == ("coalmine-webhook", NAMESPACE)
        assert asked["port"] == service["spec"]["ports"][0]["port"]


def test_the_certificate_is_where_the_webhook_looks_and_the_operator_writes(chart: Chart) -> None:
    objects = chart.render()
    templates = dict(pod_templates(objects))
    (container,) = templates["coalmine-webhook"]["spec"]["containers"]
    settings, _ = read_settings(container["args"][1:], {})
    (mount,) = container["volumeMounts"]
    (volume,) = templates["coalmine-webhook"]["spec"]["volumes"]
    assert mount["mountPath"] == str(settings.folder)
    assert mount["name"] == volume["name"]
    (operator,) = templates["coalmine-operator"]["spec"]["containers"]
    kept, _ = operator_settings(operator["args"], {})
    assert kept.webhook == (NAMESPACE, "coalmine-webhook")
    assert kept.webhook
    names = names_of(*kept.webhook, kept.platform.cluster_domain)
    assert volume["secret"]["secretName"] == names.secret
    assert {one["metadata"]["name"] for one in of_kind(objects, *KINDS)} == {names.configuration}
    assert named(objects, "Secret", names.secret).get("data") is None


def test_cert_manager_takes_its_place(chart: Chart) -> None:
    objects = chart.render({"certificates": {"certManager": {"enabled": True}}})
    certificate = named(objects, "Certificate", "coalmine-webhook")
    templates = dict(pod_templates(objects))
    (volume,) = templates["coalmine-webhook"]["spec"]["volumes"]
    assert certificate["spec"]["secretName"] == volume["secret"]["secretName"]
    for one in of_kind(objects, *KINDS):
        assert one["metadata"]["annotations"] == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/coalmine-webhook"}
    assert f"coalmine-webhook.{NAMESPACE}.svc" in certificate["spec"]["dnsNames"]
    (operator,) = templates["coalmine-operator"]["spec"]["containers"]
    assert operator_settings(operator["args"], {})[0].webhook is None
    issuer = {"certManager": {"enabled": True, "issuerRef": {"name": "corporate", "kind": "ClusterIssuer"}}}
    objects = chart.render({"certificates": issuer})
    assert of_kind(objects, "Issuer") == []
    assert named(objects, "Certificate", "coalmine-webhook")["spec"]["issuerRef"] == {
        "name": "corporate",
        "kind": "ClusterIssuer",
        "group": "cert-manager.io",
    }


def test_no_authority_stands_in_the_chart(chart: Chart) -> None:
    """What is rendered would take away at each upgrade what the operator, or cert-manager, has written."""
    assert not [name for name, hook in webhooks(chart.render()).items() if "caBundle" in hook["clientConfig"]]


def test_nobody_elses_pods_are_looked_at(chart: Chart) -> None:
    hook = webhooks(chart.render())["pods.coalmine.dev"]
    assert hook["objectSelector"] == {"matchLabels": {INJECT: "true"}}
    (namespaces,) = hook["namespaceSelector"]["matchExpressions"]
    assert namespaces["operator"] == "NotIn"
    assert {"kube-system", NAMESPACE} <= set(namespaces["values"])
    assert hook["rules"] == [
        {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "resources": ["pods"],
            "operations": ["CREATE"],
            "scope": "Namespaced",
        }
    ]


@pytest.mark.parametrize("policy", ["Ignore", "Fail"])
def test_pods_are_never_held_up(chart: Chart, policy: str) -> None:
    found = {n: h["failurePolicy"] for n, h in webhooks(chart.render({"webhook": {"failurePolicy": policy}})).items()}
    assert found == {
        "pods.coalmine.dev": "Ignore",
        "orders.coalmine.dev": policy,
        "modeldeployments.coalmine.dev": policy,
    }


def test_namespaces_that_are_not_watched_are_not_looked_at(chart: Chart) -> None:
    for hook in webhooks(chart.render({"watchNamespaces": ["models"]})).values():
        assert hook["namespaceSelector"]["matchExpressions"] == [
            {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["models"]}
        ]


@pytest.mark.parametrize(
    ("values", "image"),
    [({}, "coalmine-sidecar:0.1.0"), ({"sidecar": {"image": {"repository": "hub/s", "tag": "2"}}}, "hub/s:2")],
)
def test_operator_and_webhook_inject_the_same_sidecar(chart: Chart, values: dict[str, Any], image: str) -> None:
    templates = dict(pod_templates(chart.render(values)))
    (operator,) = templates["coalmine-operator"]["spec"]["containers"]
    (webhook,) = templates["coalmine-webhook"]["spec"]["containers"]
    injection = read_settings(webhook["args"][1:], {})[0].injection
    assert injection == operator_settings(operator["args"], {})[0].platform.injection
    assert injection.image == image


def test_sidecars_are_scraped_where_they_answer(chart: Chart) -> None:
    monitors = of_kind(chart.render({"podMonitor": {"enabled": True}}), "PodMonitor")
    keys = {one["spec"]["selector"]["matchExpressions"][0]["key"] for one in monitors}
    assert keys == {MODELDEPLOYMENT, INJECT}
    for one in monitors:
        (endpoint,) = one["spec"]["podMetricsEndpoints"]
        assert PORT_NAMES[endpoint["port"]] == 8010
        source = endpoint["relabelings"][0]["sourceLabels"][0]
        assert source == "__meta_kubernetes_pod_label_" + MODELDEPLOYMENT.translate(str.maketrans("./", "__"))
