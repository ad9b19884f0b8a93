"""The kinds of objects the operator deals with, and where the API server keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from ...api.spec import API_VERSION, KIND


class Kind(Struct, frozen=True):
    api_version: str
    name: str
    plural: str

    @property
    def group(self) -> str:
        """Empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str = "", name: str = "", *sub: str) -> str:
        """Of a collection (all namespaces without `namespace`), of an object or of its subresource."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        within = ("namespaces", namespace) if namespace else ()
        return "/".join((root, *within, self.plural, *((name,) if name else ()), *sub))


MODEL_DEPLOYMENT: Final = Kind(API_VERSION, KIND, "modeldeployments")
CONTROLLER_REVISION: Final = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
SERVICE: Final = Kind("v1", "Service", "services")
SECRET: Final = Kind("v1", "Secret", "secrets")
CONFIG_MAP: Final = Kind("v1", "ConfigMap", "configmaps")
POD: Final = Kind("v1", "Pod", "pods")
DISRUPTION_BUDGET: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
EVENT: Final = Kind("events.k8s.io/v1", "Event", "events")

#: What a model deployment owns, in the order it is applied: what is remembered, what routes, what runs.
CHILDREN: Final = (CONTROLLER_REVISION, SECRET, SERVICE, DISRUPTION_BUDGET, DEPLOYMENT)
#: What is watched.
WATCHED: Final = (MODEL_DEPLOYMENT, *CHILDREN, POD)

_BY_NAME: Final = {(kind.api_version, kind.name): kind for kind in WATCHED}


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """Raises KeyError for a kind the operator has nothing to do with."""
    return _BY_NAME[obj["apiVersion"], obj["kind"]]


def key_of(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"
