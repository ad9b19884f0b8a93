"""What the web asks of whatever stands behind it. The runtime's adapter is `bridge.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..api.status import AlertStatus
from ..engine.model import Order
from ..engine.monitored import DeploymentMonitored
from ..sources.alerts import Target
from .view import DeploymentView


class NotDurableError(Exception):
    """What was submitted could not be made durable now; sending it again is right. The message is one line."""


class RefusedError(Exception):
    """An order that means nothing now; the message says why in one line."""


class UnknownError(Exception):
    """There is no such model deployment; the message is one line."""


class Backend(Protocol):
    """Keys are `namespace/name`."""

    async def targets(self) -> Sequence[Target]:
        """All model deployments, as far as alerts go. Raises NotDurableError while not all of them are known."""

    def views(self) -> Sequence[DeploymentView]:
        """All model deployments, by namespace and name."""

    def view(self, key: str) -> DeploymentView | None:
        """One of them, or None."""

    def monitored(self) -> Sequence[DeploymentMonitored]:
        """What is known of predictions, of the model deployments that have baselines."""

    async def submit_alerts(self, key: str, events: tuple[AlertStatus, ...]) -> None:
        """Returns when the reconcile that took the events is durable. Raises NotDurableError."""

    async def submit_order(self, key: str, order: Order) -> str:
        """What happened, in one line, when it is durable. Raises RefusedError, UnknownError and NotDurableError."""
