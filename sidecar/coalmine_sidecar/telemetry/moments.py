"""Sums that a mean and a variance are made of, over pods as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: The square of a larger deviation may be no finite number.
LARGEST: Final = 1e150


class Moments:
    """Sums of deviations from a fixed `center`: what a mean and a variance over pods are made of.

    Deviations above and below it are added up apart: each sum only grows, as Prometheus' counters have to. About the
    baseline's mean the sums keep their digits where sums of squares lose them (NIST StRD, NumAcc3 and 4).
    """

    __slots__ = ("above", "below", "center", "squared")

    def __init__(self, center: float) -> None:
        self.center = center
        self.above = 0.0
        self.below = 0.0
        self.squared = 0.0

    def add(self, value: float) -> None:
        """A finite value; one beyond LARGEST would leave nothing of the sums, and is left out."""
        if not -LARGEST < value < LARGEST:
            return
        deviation = value - self.center
        if deviation > 0:
            self.above += deviation
        else:
            self.below -= deviation
        self.squared += deviation * deviation

    def add_all(self, values: Iterable[float]) -> None:
        for value in values:
            self.add(value)
