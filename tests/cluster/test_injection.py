"""Pods with a sidecar before a real API server and a real kubelet: accepted, adopted, drained."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import secrets
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.figures import Figure
from tests.cluster.lab.cluster import Cluster, NodeCluster
from tests.cluster.lab.run import LabError
from tests.cluster.pods import RESTRICTED_CONTAINER, RESTRICTED_POD, service
from tests.cluster.traffic import traffic

from coalmine_operator.webhook.authority import bundle, issue

GOLDEN = Path(__file__).parents[1] / "unit/golden/injection/out"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
SIDECAR = "coalmine-sidecar"
#: In the pods' network; nothing else listens there.
PORT = 19443


def shapes() -> dict[str, dict[str, Any]]:
    found = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(GOLDEN.glob("*.yaml"))}
    return {name: one["pod"] for name, one in found.items() if "pod" in one}


@pytest.fixture
def anything_goes(cluster: Cluster) -> Iterator[str]:
    """A namespace without rules for pods, with the service accounts that the golden pods name."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "fraud"}}, name)
    cluster.wait(lambda: cluster.get("serviceaccount/default", "--namespace", name), "the default service account")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def admitted(cluster: Cluster, pod: dict[str, Any], name: str, namespace: str) -> dict[str, Any]:
    """What the API server makes of a pod, with all its admission, without keeping it."""
    metadata = {key: value for key, value in (pod.get("metadata") or {}).items() if key != "generateName"}
    whole = {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {**metadata, "name": name}}
    command = ("create", "--dry-run=server", "--filename=-", "--output=json", "--namespace", namespace)
    made: dict[str, Any] = json.loads(cluster.kubectl(*command, input=json.dumps(whole)))
    return made


def test_the_api_server_takes_every_pod_and_mounts_no_token_into_a_sidecar(
    cluster: Cluster, anything_goes: str
) -> None:
    for name, pod in shapes().items():
        made = admitted(cluster, pod, name, anything_goes)
        (sidecar, *_) = made["spec"]["initContainers"]
        volumes = {volume["name"]: volume for volume in made["spec"]["volumes"]}
        for mount in sidecar.get("volumeMounts", ()):
            if name != "already-injected" and mount["mountPath"] == TOKEN:
                assert "emptyDir" in volumes[mount["name"]], name
        model = {mount["mountPath"] for mount in made["spec"]["containers"][0].get("volumeMounts", ())}
        assert (TOKEN in model) == (name in ("token-wanted", "already-injected") or name.startswith("adopted")), name


def test_restricted_namespaces_take_restricted_pods(cluster: Cluster, namespace: str) -> None:
    cluster.wait(lambda: cluster.get("serviceaccount/default", "--namespace", namespace), "the service account")
    for name in ("restricted", "adopted-restricted"):
        admitted(cluster, shapes()[name], name, namespace)


@contextlib.contextmanager
def webhook(node: NodeCluster, namespace: str, sidecar_image: str, folder: Path) -> Iterator[None]:
    """The webhook for pods of one namespace, beside the API server."""
    held = issue(dt.datetime.now(dt.UTC), ["localhost"])
    for name, data in held.secret().items():
        (folder / name).write_bytes(data)
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [
            {
                "name": "pods.coalmine.dev",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "reinvocationPolicy": "IfNeeded",
                "failurePolicy": "Fail",
                "clientConfig": {
                    "url": f"https://localhost:{PORT}/mutate/pods",
                    "caBundle": base64.b64encode(bundle(held)).decode(),
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "objectSelector": {"matchLabels": {"coalmine.dev/inject": "true"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            }
        ],
    }
    command = [sys.executable, "-m", "coalmine_operator", "webhook", f"--listen=127.0.0.1:{PORT}"]
    command += [f"--certificate-folder={folder}", f"--sidecar-image={sidecar_image}", "--sidecar-cpu-request=5m"]
    with node.process_in_net(command):
        node.apply(configuration)
        try:
            yield
        finally:
            node.kubectl("delete", "mutatingwebhookconfiguration", namespace)


def plain(image: str) -> list[dict[str, Any]]:
    """A model server as somebody runs it today."""
    container = {
        "name": "server",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "5m"}},
        "securityContext": RESTRICTED_CONTAINER,
    }
    template = {
        "metadata": {"labels": {"app": "iris"}},
        "spec": {"securityContext": RESTRICTED_POD, "containers": [container]},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "iris"}}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "iris"}, "spec": spec}
    return [deployment, service("iris", {"app": "iris"}, 8080)]


#: All that its adoption takes: a label, and a target port.
ADOPTED = {"spec": {"template": {"metadata": {"labels": {"coalmine.dev/inject": "true"}}}}}
ROUTED = (8008, "coalmine")


def test_a_plain_deployment_is_adopted_and_no_request_is_lost_when_it_is_rolled(
    node: NodeCluster, namespace: str, sidecar_image: str, model_image: str, tmp_path: Path, figure: Figure
) -> None:
    where = ("--namespace", namespace)

    def pods() -> dict[str, dict[str, Any]]:
        items = node.get("pods", "--selector=app=iris", *where)["items"]
        return {item["metadata"]["name"]: item for item in items}

    node.apply(plain(model_image), namespace)
    rolled_out(node, namespace)
    assert not any("initContainers" in pod["spec"] for pod in pods().values())
    with webhook(node, namespace, sidecar_image, tmp_path):
        # The webhook may still be starting; the Deployment's controller tries again.
        node.kubectl("patch", "deployment/iris", "--patch", json.dumps(ADOPTED), *where)
        rolled_out(node, namespace)
        node.wait(lambda: all("initContainers" in pod["spec"] for pod in pods().values()), "pods before it to go", 60)
        for pod in pods().values():
            assert [one["name"] for one in pod["spec"]["initContainers"]] == [SIDECAR]
        # Before it the model's own end decides what becomes of its requests; from here on it is ours.
        with traffic(node, f"http://iris.{namespace}", tmp_path) as seen:
            for port in ROUTED:
                routed = {"spec": {"ports": [{"port": 80, "targetPort": port}]}}
                node.kubectl("patch", "service/iris", "--patch", json.dumps(routed), *where)
                before = len(seen.records())
                node.wait(lambda: len(seen.records()) > before + 100, f"answers by port {port}", 30)  # noqa: B023
            old = [Followed(node, namespace, name) for name in pods()]
            node.kubectl("rollout", "restart", "deployment/iris", *where)
            rolled_out(node, namespace)
            node.wait(lambda: not {one.name for one in old} & set(pods()), "the old pods to go", 60)
        for one in old:
            lines = one.lines()
            assert any("asked to drain" in line for line in lines), lines
            assert any("drained in" in line and "0 connections left" in line for line in lines), lines
        figure(f"adopted: {seen.summary()}; {seen.rate():.0f}/s")
        assert not seen.errors(), seen.summary()
        node.kubectl("delete", "deployment/iris", "--wait=false", *where)


def rolled_out(node: NodeCluster, namespace: str) -> None:
    try:
        node.kubectl(*("rollout", "status", "deployment/iris", "--timeout=45s", "--namespace", namespace), timeout=100)
    except LabError as error:
        said = node.kubectl("logs", "deployment/iris", "--container=server", "--tail=5", "--namespace", namespace)
        raise AssertionError(f"{error}\n{node.happenings(namespace)}\n{said}") from error


class Followed:
    """What a pod's sidecar says, to its end."""

    def __init__(self, node: NodeCluster, namespace: str, name: str) -> None:
        self.name = name
        self._said = ""
        command = ("logs", "--follow", name, f"--container={SIDECAR}", "--namespace", namespace)
        self._thread = threading.Thread(target=self._follow, args=(node, command))
        self._thread.start()

    def _follow(self, node: NodeCluster, command: tuple[str, ...]) -> None:
        self._said = node.kubectl(*command, timeout=150)

    def lines(self) -> list[str]:
        self._thread.join(30)
        return self._said.splitlines()
