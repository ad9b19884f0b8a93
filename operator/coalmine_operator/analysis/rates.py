"""Presets `errorRate` and `latency`: is a request bad more often with the canary?"""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct

from coalmine_sidecar.contract import EpochCounts

from ..api.spec import Metric
from .question import HANDFUL, Judged, Looked, Need, number, seconds, uncomparable


class Rates(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Evidence of one or more epochs.

    `expected_bad`: how many of the canary's requests would have been bad with stable: each epoch at stable's rate in
    that epoch (direct standardisation), so that shares and rates which move together do not mislead.
    """

    log_e: float = 0.0
    epochs: int = 0
    canary: int = 0
    canary_bad: int = 0
    stable: int = 0
    stable_bad: int = 0
    expected_bad: float = 0.0

    def take(self, metric: Metric, looked: Looked) -> Rates | str:
        canary, stable = bad_of_all(metric, looked.canary), bad_of_all(metric, looked.stable)
        if reason := uncomparable(looked):
            return reason
        if canary is None or stable is None:
            return "NoThreshold"
        return self.add(canary, stable, looked.weight / 100)

    def add(self, canary: tuple[int, int], stable: tuple[int, int], share: float) -> Rates:
        """`canary`, `stable`: bad requests and all requests of an epoch."""
        from .evalue import log_e_worse  # as in `drift`: numpy not before there is something to judge

        (kb, n), (mb, m) = canary, stable
        return Rates(
            log_e=self.log_e + float(log_e_worse(kb, n - kb, mb, m - mb, share)),
            epochs=self.epochs + 1,
            canary=self.canary + n,
            canary_bad=self.canary_bad + kb,
            stable=self.stable + m,
            stable_bad=self.stable_bad + mb,
            # An epoch in which stable had no request holds nothing against the canary.
            expected_bad=self.expected_bad + (n * (mb / m) if m else kb),
        )

    def judge(self, metric: Metric, need: Need) -> Judged:
        worse_by = number(metric, 0.0) if metric.preset == "errorRate" else 0.0
        fails = self.canary >= HANDFUL and self.log_e >= need.log_threshold and self._difference() > worse_by
        reason = "MoreErrors" if metric.preset == "errorRate" else "Slower"
        return Judged(failing=reason if fails else "", lacking=self._lacking(need.min_requests))

    def evidence(self, metric: Metric) -> dict[str, Any]:
        rate = self.canary_bad / self.canary if self.canary else 0.0
        return {
            "epochs": self.epochs,
            "canary": self.canary,
            "canaryBad": self.canary_bad,
            "stable": self.stable,
            "stableBad": self.stable_bad,
            "canaryRate": round(rate, 6),
            "stableRate": round(rate - self._difference(), 6),
            "logE": round(self.log_e, 3),
        }

    def _difference(self) -> float:
        return (self.canary_bad - self.expected_bad) / self.canary if self.canary else 0.0

    def _lacking(self, min_requests: int) -> str:
        if not self.canary:
            return "NoTraffic"
        if not self.stable:
            return "NoStableTraffic"
        return "TooFewRequests" if self.canary < min_requests or self.stable < HANDFUL else ""


def bad_of_all(metric: Metric, counts: EpochCounts) -> tuple[int, int] | None:
    """Bad requests and all that count; None where the sidecars did not count at this threshold.

    A 4xx is bad: both versions see the same clients, so a model that refuses more of them has changed.
    """
    if metric.preset == "errorRate":
        return min(counts.errors + counts.client_errors, counts.requests), counts.requests
    asked = seconds(metric)
    if asked is None:
        return None
    if not counts.answered:
        return 0, 0
    for threshold, over in zip(counts.thresholds, counts.over, strict=False):
        if math.isclose(threshold, asked, rel_tol=1e-9):
            return min(over, counts.answered), counts.answered
    return None
