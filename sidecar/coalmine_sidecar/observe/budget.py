"""A share of the wall time, as a token bucket."""

from __future__ import annotations

from typing import Final

#: Seconds of work that may be saved up while nothing was to do.
BURST: Final = 0.05


class CpuBudget:
    """Tokens are seconds of work; `share` of them come back for each second that passes."""

    def __init__(self, share: float, now: float) -> None:
        self._share = share
        self._tokens = BURST
        self._at = now

    def open(self, now: float) -> bool:
        """Is there anything left at time `now` (seconds of any steady clock)?"""
        self._tokens = min(BURST, self._tokens + self._share * (now - self._at))
        self._at = now
        return self._tokens > 0

    def spend(self, seconds: float) -> None:
        """May overdraw: the debt is worked off before the budget is open again."""
        self._tokens -= seconds
