"""A backend for the operator's web whose disk can be full: the fault that reality will not give on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from coalmine_operator.api.spec import AlertMatch, AutoRollback
from coalmine_operator.api.status import AlertStatus, Status
from coalmine_operator.engine.model import Order
from coalmine_operator.engine.monitored import DeploymentMonitored
from coalmine_operator.sources.alerts import Target
from coalmine_operator.web.backend import NotDurableError, RefusedError, UnknownError
from coalmine_operator.web.view import DeploymentView, RevisionView


class Behind:
    """One model deployment, `fraud`, guarded by the alert `Slow`; keeps what it hears."""

    def __init__(self) -> None:
        guard = AutoRollback(alerts=(AlertMatch(name="Slow"),))
        self.known = [Target(namespace="default", name="fraud", model="fraud", auto_rollback=guard)]
        self.heard: list[tuple[str, tuple[AlertStatus, ...]]] = []
        self.orders: list[tuple[str, Order]] = []
        self.full = False
        self.hangs = False

    async def targets(self) -> Sequence[Target]:
        return self.known

    def views(self) -> Sequence[DeploymentView]:
        return [
            DeploymentView(
                namespace=known.namespace,
                name=known.name,
                at=1.0,
                status=Status(phase="Progressing"),
                revisions=(RevisionView(revision="fraud-1", version="v1", track="stable", weight=100, rps=12.5),),
            )
            for known in self.known
        ]

    def monitored(self) -> Sequence[DeploymentMonitored]:
        return []

    def view(self, key: str) -> DeploymentView | None:
        return next((view for view in self.views() if view.key == key), None)

    async def submit_alerts(self, key: str, events: tuple[AlertStatus, ...]) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.full:
            raise NotDurableError("status.json: no space left on device")
        self.heard.append((key, events))

    async def submit_order(self, key: str, order: Order) -> str:
        if self.view(key) is None:
            raise UnknownError(f"no model deployment {key}")
        if order.verb == "promote":
            raise RefusedError("no rollout is under way")
        self.orders.append((key, order))
        return "held"
