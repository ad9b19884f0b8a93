"""The runtime as the web's backend: its views as documents, its errors as the web's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ..api.status import AlertStatus, Status, TrackStatus
from ..engine.model import Order, RevisionState
from ..engine.monitored import DeploymentMonitored
from ..platforms.base import Desired, Platform
from ..runtime import NotTaken, OrderRefused, Runtime, SubmitError, UnknownDeployment, View
from ..sources.alerts import Target
from ..sources.snapshots import Traffic
from .backend import NotDurableError, RefusedError, UnknownError
from .view import DeploymentView, RevisionView

#: Outcomes at which the client got something else than an answer of a model to its request.
ERRORS: Final = ("model_error", "timeout", "rejected")


class RuntimeBackend:
    """See `backend.Backend`. `keys` and `ingress` are the platform's: what there is, and the URL its requests go to.

    `listed`: whether the platform knows yet of all there is.
    """

    def __init__(
        self,
        runtime: Runtime,
        platform: Platform,
        *,
        keys: Callable[[], Sequence[str]],
        ingress: Callable[[str], str] = lambda _: "",
        listed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._runtime = runtime
        self._platform = platform
        self._keys = keys
        self._ingress = ingress
        self._listed = listed

    async def targets(self) -> Sequence[Target]:
        if not self._listed():
            raise NotDurableError("the model deployments are not listed yet")
        # Not of the runtime's views: an alert that comes before the first reconcile must find its deployment too.
        found = [await self._platform.desired(key) for key in self._keys()]
        return [_target(desired) for desired in found if desired]

    def views(self) -> Sequence[DeploymentView]:
        return [self._document(view) for view in self._runtime.views()]

    def view(self, key: str) -> DeploymentView | None:
        view = self._runtime.view(key) if key in self._keys() else None
        return self._document(view) if view else None

    def monitored(self) -> Sequence[DeploymentMonitored]:
        return self._runtime.monitored()

    async def submit_alerts(self, key: str, events: tuple[AlertStatus, ...]) -> None:
        try:
            await self._runtime.submit_alerts(key, events)
        except SubmitError as error:
            raise NotDurableError(str(error)) from error

    async def submit_order(self, key: str, order: Order) -> str:
        try:
            return (await self._runtime.submit_order(key, order)).message
        except OrderRefused as error:
            raise RefusedError(str(error)) from error
        except UnknownDeployment as error:
            raise UnknownError(str(error)) from error
        except NotTaken as error:
            raise NotDurableError(str(error)) from error

    def _document(self, view: View) -> DeploymentView:
        return document(view, ingress=self._ingress(view.key))


def document(view: View, *, ingress: str = "") -> DeploymentView:
    """What the runtime knows of one model deployment, for people and programs."""
    namespace, _, name = view.key.partition("/")
    roles = _roles(view.status)
    revisions = [
        _revision(state, *roles.get(state.record.name, ("", 0)), view)
        for state in view.observed.revisions.values()
        if state.pods or state.record.name in roles or view.observed.weights.get(state.record.name)
    ]
    order = list(roles)
    revisions.sort(key=lambda r: (order.index(r.revision) if r.revision in roles else len(order), r.version))
    return DeploymentView(
        namespace=namespace,
        name=name,
        at=view.at,
        status=view.status,
        revisions=tuple(revisions),
        problems=view.desired.problems,
        ingress=ingress,
    )


def _roles(status: Status) -> dict[str, tuple[str, int]]:
    """Track and weight by revision; one that plays two roles has the first of them."""
    tracks: tuple[tuple[str, TrackStatus | None], ...] = (
        ("stable", status.stable),
        ("canary", status.canary),
        ("fallback", status.fallback),
    )
    roles: dict[str, tuple[str, int]] = {}
    for role, track in tracks:
        if track and track.revision:
            roles.setdefault(track.revision, (role, track.weight))
    return roles


def _revision(state: RevisionState, track: str, weight: int, view: View) -> RevisionView:
    name = state.record.name
    traffic = view.traffic.get(name, Traffic())
    return RevisionView(
        revision=name,
        version=state.record.version,
        track=track,
        weight=weight,
        in_force=view.observed.weights.get(name, 0),
        pods=state.pods,
        ready=state.ready,
        requests=traffic.requests,
        errors=sum(traffic.outcomes.get(outcome, 0) for outcome in ERRORS),
        rps=traffic.rps,
        failure=state.failure,
    )


def _target(desired: Desired) -> Target:
    metadata, spec = desired.metadata, desired.spec
    return Target(
        namespace=metadata.namespace,
        name=metadata.name,
        model=spec.model.name or metadata.name,
        auto_rollback=spec.auto_rollback,
        monitoring=spec.monitoring,
    )
