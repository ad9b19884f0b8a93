"""What labels may take of the core that clients' requests are served by."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ..observe.budget import CpuBudget

#: Seconds between looks at the budget while it is spent.
_PAUSE: Final = 0.01
#: Seconds that one piece of work counts for at most: the rest was waiting for Redis.
_LONGEST: Final = 0.01


class Pace:
    """`share`: of one core."""

    def __init__(self, share: float) -> None:
        self._budget = CpuBudget(share, time.perf_counter())

    async def begin(self) -> float:
        """Wait for the next piece's turn; when it began."""
        await asyncio.sleep(0)
        now = time.perf_counter()
        while not self._budget.open(now):
            await asyncio.sleep(_PAUSE)
            now = time.perf_counter()
        return now

    def end(self, began: float) -> None:
        self._budget.spend(min(time.perf_counter() - began, _LONGEST))
