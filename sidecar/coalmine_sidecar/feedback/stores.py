"""The store that a routing file asks for."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..monitoring import Feedback
from .counts import FeedbackCounts
from .memory import MemoryStore
from .predicted import Predicted
from .store import Claim, Item, Store

_log = logging.getLogger(__name__)


class NoStore:
    """In the place of one that cannot be: the model is served all the same, and everything is counted as an error."""

    pending = 0

    def __init__(self, counts: FeedbackCounts) -> None:
        self._counts = counts

    def remember(self, predicted: Predicted, other: str = "") -> None:
        self._counts.lost["no_store"] += predicted.rows

    async def claim(self, items: Sequence[Item], now: float) -> list[Claim]:
        return [Claim(("store_error",) * item.given) for item in items]

    async def known(self, ids: Sequence[str], now: float) -> list[bool]:
        return [False for _ in ids]

    def sweep(self, now: float) -> None:
        pass

    async def close(self) -> None:
        pass


def make_store(feedback: Feedback, counts: FeedbackCounts, *, password: str, prefix: str) -> Store:
    """`password`: Redis'; `prefix`: of its keys. What keeps it from being made is logged in one line."""
    if not feedback.redis:
        return MemoryStore(counts, max_pending=feedback.max_pending, ttl=feedback.ttl)
    try:
        from .redis import RedisStore  # a client that few need

        return RedisStore(feedback.redis, counts, password=password, ttl=feedback.ttl, prefix=prefix)
    except ModuleNotFoundError:
        _log.error("feedback.redis: its client is not installed: pip install 'coalmine[redis]'")
    except ValueError as error:
        _log.error("feedback.redis: %.200s: write it like redis://HOST:6379/0", error)
    return NoStore(counts)
