"""What keeps predictions until their labels come: in memory, or in Redis for all pods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from .predicted import Predicted


class Item(Struct, frozen=True):
    """Feedback on one prediction: labels, or a business outcome.

    `truths`: for each row as `labels.Truths` writes it, None where there is none. `outcome`: empty for labels.
    `at`: Unix seconds when it came to be, None: now.
    """

    id: str
    truths: tuple[str | None, ...] = ()
    outcome: str = ""
    value: float = 0.0
    at: float | None = None

    @property
    def given(self) -> int:
        """How many labels (or outcomes) these are."""
        return 1 if self.outcome else len(self.truths) - self.truths.count(None)


class Claim(Struct, frozen=True):
    """What a store makes of an item. Who claims a label first is the one to count it: no other claim gets it.

    `predicted`: where something is to be counted; `fresh`: labels that are, None for the others; `outcomes`: of each
    label given (or of the outcome) a word of counts.OUTCOMES, in the order of the rows.
    """

    outcomes: tuple[str, ...]
    predicted: Predicted | None = None
    fresh: tuple[str | None, ...] = ()

    @property
    def unknown(self) -> bool:
        return "unknown" in self.outcomes


class Store(Protocol):
    """Never raises: what goes wrong is told by the claims."""

    @property
    def pending(self) -> int:
        """Rows kept here that wait for their labels."""

    def remember(self, predicted: Predicted, other: str = "") -> None:
        """Keep a prediction; never waits. A later one under the same id takes its place. `other`: see Joiner."""

    async def claim(self, items: Sequence[Item], now: float) -> list[Claim]:
        """A claim for each item. `now`: Unix seconds."""

    async def known(self, ids: Sequence[str], now: float) -> list[bool]:
        """Whether a prediction is kept, or a label of it was."""

    def sweep(self, now: float) -> None:
        """Let go of those whose time is up."""

    async def close(self) -> None:
        """Let go of everything."""


def judge(kept: Sequence[str | None], item: Item) -> tuple[list[str], list[str | None]]:
    """Outcomes and fresh labels of `item.truths` against those that a prediction already has."""
    outcomes: list[str] = []
    fresh: list[str | None] = []
    for before, truth in zip(kept, item.truths, strict=True):
        fresh.append(truth if before is None else None)
        if truth is not None:
            outcomes.append("joined" if before is None else "duplicate" if before == truth else "contradictory")
    return outcomes, fresh
