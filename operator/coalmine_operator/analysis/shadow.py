"""Preset `shadowDisagreement`: does the canary predict something else than stable, asked the same?

Unlike all other presets it compares answers in pairs, one of each version to one request, so it needs no comparison of
groups and no user on the canary. The null is that each comparison, whatever came before it, disagrees with a
probability of at most p0, the threshold. Against it stand bets p > p0; for each of them

    (p / p0)^k ((1 - p) / (1 - p0))^(n - k),    k of n disagreeing,

is a test supermartingale: its expected factor grows with the true probability and is 1 at p0. So is a mixture of them,
hence P(E ever >= 1/alpha) <= alpha however often one looks (Ville). The null does not move, so counts of epochs are
summed.
"""

from __future__ import annotations

import math
from typing import Any, Final

from msgspec import Struct

from ..api.spec import Metric
from .question import HANDFUL, Judged, Looked, Need, number

#: The share of comparisons that may disagree: any new model predicts a little differently.
DEFAULT_SHARE: Final = 0.05
#: By how much the log-odds of the bets exceed p0's: geometric, so that no truth is missed by more than a seventh.
_SHIFTS: Final = tuple(0.1 * 1.3**i for i in range(18))


class Disagreements(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Evidence of one or more epochs: answers compared, and those of them that disagreed."""

    epochs: int = 0
    compared: int = 0
    disagreed: int = 0
    log_e: float = 0.0

    def take(self, metric: Metric, looked: Looked) -> Disagreements | str:
        compared = self.compared + looked.canary.compared
        disagreed = self.disagreed + min(looked.canary.disagreed, looked.canary.compared)
        return Disagreements(
            epochs=self.epochs + (looked.canary.compared > 0),
            compared=compared,
            disagreed=disagreed,
            log_e=log_e_more_often(disagreed, compared, number(metric, DEFAULT_SHARE)),
        )

    def judge(self, metric: Metric, need: Need) -> Judged:
        share = number(metric, DEFAULT_SHARE)
        too_often = self.disagreed > share * self.compared
        log_e = log_e_more_often(self.disagreed, self.compared, share)
        fails = too_often and self.compared >= HANDFUL and log_e >= need.log_threshold
        lacking = "TooFewRequests" if self.compared < need.min_requests else ""
        return Judged(failing="Disagrees" if fails else "", lacking=lacking if self.compared else "NothingCompared")

    def evidence(self, metric: Metric) -> dict[str, Any]:
        return {
            "epochs": self.epochs,
            "compared": self.compared,
            "disagreed": self.disagreed,
            "rate": round(self.disagreed / self.compared, 6) if self.compared else 0.0,
            "logE": round(self.log_e, 3),
        }


def log_e_more_often(k: int, n: int, share: float) -> float:
    """Log e-value for "disagrees with a probability over `share`" (strictly between 0 and 1), from k of n."""
    odds = share / (1 - share)
    bets = []
    for shift in _SHIFTS:
        p = 1 / (1 + math.exp(-shift) / odds)
        bets.append(k * math.log(p / share) + (n - k) * math.log((1 - p) / (1 - share)))
    top = max(bets)
    return top + math.log(math.fsum(math.exp(bet - top) for bet in bets) / len(bets))
