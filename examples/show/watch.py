"""What was known, from moment to moment: the newest view, and every change of phase or weights before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from coalmine_operator.web.view import DeploymentView

from .stage import Stage

EVERY = 0.2


@dataclass(frozen=True)
class Glimpse:
    """`weights`: per cent in force, by version."""

    at: float
    phase: str
    weights: dict[str, int]


@dataclass
class Watch:
    stage: Stage
    changed: Callable[[DeploymentView], None] = lambda _: None
    view: DeploymentView | None = None
    glimpses: list[Glimpse] = field(default_factory=list)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            view = await self.stage.view()
            if view is not None:
                self.take(view)
            await asyncio.sleep(EVERY)

    def take(self, view: DeploymentView) -> None:
        self.view = view
        weights = {r.version: r.in_force for r in view.revisions if r.in_force}
        last = self.glimpses[-1] if self.glimpses else None
        if last is None or (last.phase, last.weights) != (view.status.phase, weights):
            self.glimpses.append(Glimpse(view.at, view.status.phase, weights))
            self.changed(view)

    @property
    def phase(self) -> str:
        return self.view.status.phase if self.view else ""

    @property
    def stable(self) -> str:
        """The stable version."""
        return self.view.status.stable.version if self.view and self.view.status.stable else ""

    def weights_of(self, version: str) -> list[int]:
        """The weights that a version had in force, in the order they were seen."""
        seen: list[int] = []
        for glimpse in self.glimpses:
            weight = glimpse.weights.get(version, 0)
            if weight and (not seen or seen[-1] != weight):
                seen.append(weight)
        return seen
