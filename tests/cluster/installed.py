"""The chart on a cluster, installed as a user does it: a release with its own rights, and what can be asked of it."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.run import LabError

CHART = "helm/coalmine"
RELEASE = "coalmine"


class Install:
    """A release in a namespace of its own, for models in another one. Both take `restricted` pods only."""

    def __init__(self, cluster: Cluster, operator_image: str, sidecar_image: str, **values: Any) -> None:
        self.cluster = cluster
        self.own, self.models = (f"{what}-{secrets.token_hex(4)}" for what in ("coalmine", "models"))
        #: For every `helm`.
        self.values: dict[str, Any] = {
            "watchNamespaces": [self.models],
            **_images(operator_image, sidecar_image),
            "operator": {"resources": {"requests": {"cpu": "5m"}}},
            "webhook": {"resources": {"requests": {"cpu": "5m"}}},
            **values,
        }

    def use(self, operator_image: str, sidecar_image: str) -> None:
        """From the next `helm` on."""
        self.values.update(_images(operator_image, sidecar_image))

    def helm(self, verb: str, chart: str | Path = CHART, **values: Any) -> None:
        """Waits until everything is ready. The definitions may be somebody else's, of another test."""
        try:
            self.cluster.helm(
                *(verb, RELEASE, chart, "--namespace", self.own, "--wait", "--timeout", "150s", "--take-ownership"),
                *("--force-conflicts", "--values", "-"),
                input=json.dumps({**self.values, **values}),
                timeout=170,
            )
        except LabError as error:
            raise LabError(f"{error}\n{self.cluster.happenings(self.own)}\n{self.log('operator')}") from error

    def render(self, **values: Any) -> list[dict[str, Any]]:
        """The objects that the chart would make with these values as well."""
        words = ("template", RELEASE, CHART, "--namespace", self.own, "--values", "-")
        text = self.cluster.helm(*words, input=json.dumps({**self.values, **values}))
        return [made for made in yaml.safe_load_all(text) if made]

    def notes(self) -> str:
        """What `helm install` has printed."""
        return self.cluster.helm("get", "notes", RELEASE, "--namespace", self.own)

    def scale(self, component: str, replicas: int) -> None:
        """Waits until as many pods are ready, and the others gone."""
        where = ("--namespace", self.own)
        self.cluster.kubectl("scale", f"deployment/{RELEASE}-{component}", f"--replicas={replicas}", *where)
        deployment = f"/apis/apps/v1/namespaces/{self.own}/deployments/{RELEASE}-{component}"

        def done() -> bool:
            status, pods = self.cluster.read(deployment)["status"], self.pods(component)
            return status.get("readyReplicas", 0) == len(pods) == replicas

        self.cluster.wait(done, f"{replicas} pods of the {component}", 120, every=0.5)

    def log(self, component: str) -> str:
        return self.cluster.kubectl("logs", f"deployment/{RELEASE}-{component}", "--namespace", self.own)

    def get(self, kind: str, name: str) -> Any:
        return self.cluster.get(kind, name, "--namespace", self.own)

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Those that end are told too."""
        chosen = f"labelSelector=app.kubernetes.io%2Fcomponent%3D{component}"
        found: list[dict[str, Any]] = self.cluster.read(f"/api/v1/namespaces/{self.own}/pods?{chosen}")["items"]
        return found

    def secret(self, name: str) -> dict[str, str]:
        """What is in one of the release's Secrets, in base64."""
        data: dict[str, str] = self.cluster.read(f"/api/v1/namespaces/{self.own}/secrets/{RELEASE}-{name}")["data"]
        return data

    def bundles(self) -> list[str]:
        """What the API server trusts, of each webhook."""
        return [
            hook["clientConfig"].get("caBundle", "")
            for kind in ("mutating", "validating")
            for hook in self.get(f"{kind}webhookconfiguration", f"{RELEASE}-webhook.{self.own}")["webhooks"]
        ]

    def alerts_token(self) -> str:
        return base64.b64decode(self.secret("alerts")["token"]).decode()

    def ask(self, path: str, *words: str) -> str:
        url = f"http://{RELEASE}-operator.{self.own}.svc.cluster.local{path}"
        status = ("--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code}")
        return self.cluster.run_in_net(["curl", *status, *words, url])


def _images(operator: str, sidecar: str) -> dict[str, Any]:
    return {
        "image": _image(operator),
        "sidecar": {"image": _image(sidecar), "resources": {"requests": {"cpu": "5m"}}},
    }


def _image(name: str) -> dict[str, str]:
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag}


@contextlib.contextmanager
def installed(
    cluster: Cluster, operator_image: str, sidecar_image: str, chart: str | Path = CHART, **values: Any
) -> Iterator[Install]:
    """`helm install` with both namespaces made before, and all of it taken away. `values` are kept for upgrades."""
    release = Install(cluster, operator_image, sidecar_image, **values)
    for name in (release.own, release.models):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        release.helm("install", chart)
        yield release
    finally:
        cluster.helm("uninstall", RELEASE, "--namespace", release.own, "--ignore-not-found")
        cluster.kubectl("delete", "namespace", release.own, release.models, "--wait=false")
