"""Breakers and retry budgets of the revisions: they outlive the routing files that set them up."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from ..contract import RetryBudget
from .breaker import Breaker
from .retries import PARTS, Budget
from .sweeper import TICK, Sweeper, Timed

if TYPE_CHECKING:
    from ..contract import Routing
    from ..telemetry import Telemetry


class Safeguards(Timed):
    """Each goes on as it is while its settings are the same."""

    def __init__(self, telemetry: Telemetry, sweeper: Sweeper) -> None:
        super().__init__()
        self._telemetry = telemetry
        self._sweeper = sweeper
        self._breakers: dict[str, Breaker] = {}
        self._budget_settings = RetryBudget()
        #: By revision and role.
        self._budgets: dict[tuple[str, str], Budget] = {}

    def use(self, routing: Routing, own: str) -> None:
        """Put a routing file in force; `own`: the pod's own revision, which may not be in it."""
        kept, self._breakers = self._breakers, {}
        settings = routing.circuit_breaker
        if settings is not None:
            for route in routing.revisions:
                breaker = kept.get(route.name)
                self._breakers[route.name] = breaker if breaker and breaker.settings == settings else Breaker(settings)
        self._telemetry.watch_breakers(self._breakers)
        names = {route.name for route in routing.revisions} | {own}
        if routing.retry_budget != self._budget_settings:
            self._budgets.clear()
        self._budgets = {key: budget for key, budget in self._budgets.items() if key[0] in names}
        self._budget_settings = routing.retry_budget
        self.expire(monotonic())

    def breaker(self, revision: str) -> Breaker | None:
        return self._breakers.get(revision)

    def budget(self, revision: str, role: str) -> Budget:
        budget = self._budgets.get((revision, role))
        if budget is None:
            budget = self._budgets[revision, role] = Budget(self._budget_settings, monotonic())
        return budget

    def expire(self, now: float) -> None:
        """A part of the budgets' window is over."""
        for budget in self._budgets.values():
            budget.sample(now)
        self._sweeper.watch(self, now + max(self._budget_settings.window / PARTS, TICK))
