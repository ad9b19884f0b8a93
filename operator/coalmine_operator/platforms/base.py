"""The one interface between the runtime and where models run: a Kubernetes cluster or this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from coalmine_sidecar.monitoring import Monitored

from ..api.spec import Metadata, ModelDeploymentSpec
from ..api.status import Status
from ..engine.model import Observed, Plan
from ..sources.snapshots import Traffic


class Desired(Struct, frozen=True, kw_only=True):
    """One model deployment as it is wanted and remembered.

    `spec` is the last good one; `problems` say why a newer one is not it (one line each, with the path), or nothing.
    """

    metadata: Metadata
    spec: ModelDeploymentSpec
    status: Status
    problems: tuple[str, ...] = ()


class Platform(Protocol):
    """What `step` needs to see and to have done. Keys are `namespace/name`. All of it is idempotent."""

    async def desired(self, key: str) -> Desired | None:
        """What is wanted now; None when the model deployment is gone."""

    async def observe(self, key: str) -> Observed:
        """Pods, weights in force, counts. `alert_events` and `orders` are the runtime's to add."""

    def seen(self, key: str) -> Observed:
        """The same without asking anybody: for views. At most a second or two old."""

    def traffic(self, key: str) -> Mapping[str, Traffic]:
        """What each revision answered, as old as `seen`."""

    def monitored(self, key: str) -> Mapping[str, Monitored]:
        """Counts of predictions by revision, as old as `seen`; empty where nothing is monitored."""

    async def save(self, key: str, status: Status) -> None:
        """Make `status` durable. Called before `apply`: a crash in between repeats the plan, not the decision."""

    async def apply(self, key: str, desired: Desired, plan: Plan) -> None:
        """Bring the plan about: routing first, then pods. Returns before pods are ready."""

    def on_change(self, notify: Callable[[str], None]) -> None:
        """Call `notify(key)` now for all keys, then whenever something about one changed; may be called often."""
