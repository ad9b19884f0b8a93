"""What the API tells of a model deployment: one document that the command line, the live view and the demo draw."""

from __future__ import annotations

from msgspec import Struct

from ..api.status import Status


class RevisionView(Struct, frozen=True, kw_only=True, rename="camel"):
    """One revision.

    `weight`: per cent it was given; `in_force`: the largest that any sidecar in sight has. `requests`: requests it
    answered since its sidecars started; `errors`: those among them that failed at the client; `rps`: answers per
    second, lately. `failure`: why pods are not ready.
    """

    revision: str
    version: str = ""
    track: str = ""
    weight: int = 0
    in_force: int = 0
    pods: int = 0
    ready: int = 0
    requests: int = 0
    errors: int = 0
    rps: float = 0.0
    failure: str = ""


class DeploymentView(Struct, frozen=True, kw_only=True, rename="camel"):
    """A model deployment at `at` (Unix seconds). `problems`: why the newest spec is not in force. `ingress`: a URL.

    JSON by `api.codec`: `to_json(view)` and `from_json(data, DeploymentView)`.
    """

    namespace: str
    name: str
    at: float
    status: Status
    revisions: tuple[RevisionView, ...] = ()
    problems: tuple[str, ...] = ()
    ingress: str = ""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class ScrapeTargets(Struct, frozen=True, kw_only=True):
    """`host:port` of pages of metrics that share labels, as Prometheus' HTTP service discovery wants them."""

    targets: tuple[str, ...]
    labels: dict[str, str] = {}
