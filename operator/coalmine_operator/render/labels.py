"""Names by which children of a model deployment are found: labels, annotations, object names."""

from __future__ import annotations

from typing import Final

from coalmine_sidecar.contract import SECURE

from ..api.spec import GROUP

#: Selectors rest on these two alone: they are ours, and a Deployment's selector can never change.
MODELDEPLOYMENT: Final = f"{GROUP}/modeldeployment"
REVISION: Final = f"{GROUP}/revision"

#: On the routing Secret: the generation of the file inside. On pods: touched, so that kubelet syncs at once.
ROUTING_GENERATION: Final = f"{GROUP}/routing-generation"
#: On a ControllerRevision: what was put into its template, as JSON patch. See `manifests`.
INJECTED: Final = f"{GROUP}/injected"
#: And where the baseline of its predictions is, as JSON of `api.monitoring.BaselineRef`.
BASELINE: Final = f"{GROUP}/baseline"

#: On pods of others that want a sidecar: the label, and what it cannot guess.
INJECT: Final = f"{GROUP}/inject"
MODEL_PORT: Final = f"{GROUP}/model-port"
MODEL_NAME: Final = f"{GROUP}/model-name"
MODEL_CONTAINER: Final = f"{GROUP}/model-container"
#: On such pods: the routing file itself.
ROUTING: Final = f"{GROUP}/routing"
#: On pods that asked for a sidecar and could not get one: why. Whoever made the Deployment sees no warning.
NOT_INJECTED: Final = f"{GROUP}/not-injected"

_NAME: Final = "app.kubernetes.io/name"
_INSTANCE: Final = "app.kubernetes.io/instance"
_VERSION: Final = "app.kubernetes.io/version"
_COMPONENT: Final = "app.kubernetes.io/component"
_MANAGED_BY: Final = "app.kubernetes.io/managed-by"

MODEL: Final = "model"
ROUTER: Final = "router"


def common(deployment: str, component: str) -> dict[str, str]:
    """Labels of every child."""
    return {
        _NAME: "coalmine-model",
        _INSTANCE: deployment,
        _COMPONENT: component,
        _MANAGED_BY: "coalmine",
        MODELDEPLOYMENT: deployment,
    }


def of_revision(deployment: str, revision: str, version: str) -> dict[str, str]:
    return {**common(deployment, MODEL), _VERSION: version, REVISION: revision}


def of_pod(own: dict[str, str], deployment: str, revision: str, version: str) -> dict[str, str]:
    """`own`, the template's, with ours. What selectors rest on is not for a template to say; the rest is."""
    return {**of_revision(deployment, revision, version), **own, MODELDEPLOYMENT: deployment, REVISION: revision}


def pods_of(deployment: str) -> str:
    """The selector of all pods of a model deployment: for watches and for `status.selector`."""
    return f"{MODELDEPLOYMENT}={deployment}"


def routing_secret(deployment: str) -> str:
    return f"{deployment}-routing"


def local_endpoint(
    revision: str, namespace: str, port: int, domain: str = "cluster.local", *, secure: bool = False
) -> str:
    """`host:port` of a revision in the routing file: the headless Service's name, resolved by the sidecars.

    `secure`: they speak TLS there, which is written `tls://host:port`.
    """
    return f"{SECURE if secure else ''}{revision}.{namespace}.svc.{domain}:{port}"
