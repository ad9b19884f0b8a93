"""The answer to a post of feedback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from .counts import FeedbackCounts

#: What was not taken: whoever sent it may look at it, or send it again.
_NOT_TAKEN: Final = frozenset({"malformed", "too_many", "busy", "store_error", "peer_error"})
_HELD: Final = "held"


class Tally:
    """What became of the labels of one post; all but those that wait (`held`) are in the counters as well."""

    __slots__ = ("_counts", "outcomes")

    def __init__(self, counts: FeedbackCounts) -> None:
        self._counts = counts
        self.outcomes: dict[str, int] = {}

    def count(self, outcome: str, count: int = 1) -> None:
        self._counts.outcomes[outcome] += count
        self.add({outcome: count})

    def hold(self, count: int) -> None:
        self.add({_HELD: count})

    def add(self, outcomes: Mapping[str, int]) -> None:
        """What is counted already, here or by another pod."""
        for outcome, count in outcomes.items():
            self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count


class Result:
    """`status`: 202 taken; 400, 413 nothing could be read; 503 the store is away, send it again.

    `outcomes`: labels by what became of them; `held`: their prediction is not known yet. `reasons`: what is wrong with
    some, a line each. `unknown`: for another pod that asks, the ids of predictions that are not kept here.
    """

    __slots__ = ("outcomes", "reasons", "status", "unknown")

    def __init__(
        self,
        status: int,
        outcomes: Mapping[str, int] | None = None,
        reasons: Sequence[str] = (),
        *,
        unknown: Sequence[str] | None = None,
    ) -> None:
        self.outcomes = dict(outcomes or {})
        lost = sum(self.outcomes.get(outcome, 0) for outcome in ("store_error", "peer_error"))
        self.status = 503 if lost and lost == sum(self.outcomes.values()) else status
        self.reasons = list(reasons)
        if self.status == 503:
            self.reasons = ["predictions cannot be looked up now: send it again later"]
        self.unknown = unknown

    @property
    def accepted(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome not in _NOT_TAKEN)

    def body(self) -> bytes:
        if self.unknown is not None:
            return msgspec.json.encode({"outcomes": self.outcomes, "unknown": self.unknown})
        told: dict[str, Any] = {}
        if self.status >= 400:
            told["error"] = self.reasons[0]
        told |= {"accepted": self.accepted, **self.outcomes}
        if len(self.reasons) > 1 or (self.reasons and self.status < 400):
            told["reasons"] = self.reasons
        return msgspec.json.encode(told)
