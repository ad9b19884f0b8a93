"""Preset `outputDrift`: does the canary answer something else than stable, or than a frozen baseline?"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
from msgspec import Struct

from coalmine_sidecar.contract import MAX_OUTPUTS, OutputCounts

from ..api.spec import Baseline, Metric
from .baseline import LEAST, log_e_drift
from .blind import BINS_CANNOT_TELL, blind_bin
from .counts import OTHER, common_classes, fold_classes, output_total
from .effect import psi
from .question import HANDFUL, Judged, Looked, Need, number, uncomparable

#: PSI that a drift must exceed: any new model changes its scores a little.
DEFAULT_PSI: Final = 0.2


class OutputDrift(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One output: sums over epochs of PSI times `weight`, n m / (n + m), and of its variance times weight squared.

    `blind`: the bin that nearly all answers so far lie in, if it cannot tell versions apart. What is counted in bins
    that can starts PSI and requests anew (`recut`), but not E, which every epoch has to answer for.
    """

    log_e: float = 0.0
    canary: int = 0
    stable: int = 0
    psi_sum: float = 0.0
    variance_sum: float = 0.0
    weight: float = 0.0
    blind: str = ""
    recut: bool = False

    @property
    def psi(self) -> float:
        return max(self.psi_sum / self.weight, 0.0) if self.weight else 0.0

    @property
    def at_least(self) -> float:
        """PSI less two standard errors.

        E crosses its threshold when PSI happens to look large. A PSI of 0.15, which is none of our business, would be
        found over 0.2 at some look in half of all rollouts; less two standard errors, in one of 300.
        """
        return (self.psi_sum - 2 * math.sqrt(self.variance_sum)) / self.weight if self.weight else 0.0

    def add(self, canary: list[int], stable: list[int], share: float, blind: str = "") -> OutputDrift:
        from .evalue import log_e_different  # numpy: 13 MB that nobody needs before there is something to judge

        log_e = self.log_e + float(log_e_different(canary, stable, share))
        if blind and self.weight and not self.blind:
            return msgspec.structs.replace(self, log_e=log_e)
        past = OutputDrift(recut=True) if self.blind and not blind else self
        n, m = sum(canary), sum(stable)
        weight = n * m / (n + m)
        value, variance = psi(canary, stable)
        return OutputDrift(
            log_e=log_e,
            canary=past.canary + n,
            stable=past.stable + m,
            psi_sum=past.psi_sum + weight * value,
            variance_sum=past.variance_sum + weight**2 * variance,
            weight=past.weight + weight,
            blind=blind,
            recut=past.recut,
        )


class Drift(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Evidence against stable, of one or more epochs. `requests`: the canary's, answered or not."""

    epochs: int = 0
    requests: int = 0
    outputs: dict[str, OutputDrift] = {}

    @property
    def log_e(self) -> float:
        """Of the mean of the outputs' e-values, which is an e-value however they depend on each other."""
        return _log_mean([o.log_e for o in self.outputs.values()])

    def take(self, metric: Metric, looked: Looked) -> Drift | str:
        if reason := uncomparable(looked):
            return reason
        outputs = dict(self.outputs)
        # What stable never answers can't be compared: a new output is no drift.
        names = [name for name in sorted(looked.stable.outputs) if metric.output in (None, name)]
        for name in names:
            canary, stable = looked.canary.outputs.get(name, OutputCounts()), looked.stable.outputs[name]
            pair = _categories(canary, stable)
            if pair and sum(pair[1]) and (name in outputs or len(outputs) < MAX_OUTPUTS):
                past = outputs.get(name, OutputDrift())
                outputs[name] = past.add(*pair, looked.weight / 100, blind_bin(canary, stable))
        return Drift(epochs=self.epochs + 1, requests=self.requests + looked.canary.requests, outputs=outputs)

    def judge(self, metric: Metric, need: Need) -> Judged:
        limit = number(metric, DEFAULT_PSI)
        drifted = any(
            o.canary >= HANDFUL and o.log_e >= need.log_threshold and o.at_least > limit for o in self.outputs.values()
        )
        fails = drifted and self.log_e >= need.log_threshold
        return Judged(failing="OutputDrift" if fails else "", lacking=self._lacking(need.min_requests))

    def evidence(self, metric: Metric) -> dict[str, Any]:
        outputs = {
            name: {"canary": o.canary, "stable": o.stable, "psi": round(o.psi, 4), "logE": round(o.log_e, 3)}
            for name, o in self.outputs.items()
        }
        found = {"epochs": self.epochs, "requests": self.requests, "outputs": outputs, "logE": round(self.log_e, 3)}
        if blind := [f"{name} in {o.blind}" for name, o in self.outputs.items() if o.blind]:
            found["problem"] = (
                f"nearly all answers of both lie in one bin, which cannot tell them apart: {', '.join(blind)}"
            )
        return found

    def _lacking(self, min_requests: int) -> str:
        if not self.requests:
            return "NoTraffic"
        canary = max((o.canary for o in self.outputs.values()), default=0)
        stable = max((o.stable for o in self.outputs.values()), default=0)
        # An output that the canary never gave though it had many occasions is not passed over in silence.
        lost = any(not o.canary and o.stable * canary >= HANDFUL * stable for o in self.outputs.values())
        if not canary or lost:
            return "NoOutputs"
        if canary >= min(HANDFUL, min_requests) and any(o.blind for o in self.outputs.values()):
            return BINS_CANNOT_TELL
        # An output whose bins were cut on the way must not pass by what others showed meanwhile.
        few = any(o.canary < min_requests or o.stable < HANDFUL for o in self.outputs.values() if o.recut)
        return "TooFewRequests" if few or canary < min_requests or stable < HANDFUL else ""


class BaselineDrift(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Evidence against a baseline, of one or more epochs: it does not move, so the canary's counts are summed."""

    epochs: int = 0
    requests: int = 0
    log_e: float = 0.0
    counts: dict[str, list[int]] = {}

    def take(self, metric: Metric, looked: Looked) -> BaselineDrift | str:
        counts = dict(self.counts)
        for baseline in metric.baseline:
            live = looked.canary.outputs.get(baseline.output)
            if live and live.edges == baseline.edges and len(live.bins) == len(baseline.counts):
                past = counts.get(baseline.output, [0] * len(live.bins))
                counts[baseline.output] = [a + b for a, b in zip(past, live.bins, strict=True)]
        taken = BaselineDrift(epochs=self.epochs + 1, requests=self.requests + looked.canary.requests, counts=counts)
        return msgspec.structs.replace(taken, log_e=taken._against(metric).log_e)

    def judge(self, metric: Metric, need: Need) -> Judged:
        asked = [b for b in metric.baseline if metric.output in (None, b.output)]
        if not asked:
            return Judged(lacking="NoBaseline")
        if any(sum(b.counts) < LEAST for b in asked):
            return Judged(lacking="BaselineTooSmall")
        return self._against(metric).judge(metric, need)

    def evidence(self, metric: Metric) -> dict[str, Any]:
        return self._against(metric).evidence(metric)

    def _against(self, metric: Metric) -> Drift:
        """The baselines in the place of stable."""
        outputs = {}
        for baseline in metric.baseline:
            live = self.counts.get(baseline.output, [])
            if metric.output in (None, baseline.output) and len(live) == len(baseline.counts):
                value, variance = psi(live, baseline.counts)
                outputs[baseline.output] = OutputDrift(
                    log_e=log_e_drift(live, baseline.counts),
                    canary=sum(live),
                    stable=sum(baseline.counts),
                    psi_sum=value,
                    variance_sum=variance,
                    weight=1.0,
                    blind=_blind_to_baseline(live, baseline),
                )
        return Drift(epochs=self.epochs, requests=self.requests, outputs=outputs)


def _categories(canary: OutputCounts, stable: OutputCounts) -> tuple[list[int], list[int]] | None:
    """Both counted over the same categories: bins or classes, and missing. None where their bins differ.

    Each request must weigh once, and sidecars count a whole number in a bin and as a class. So where there are bins,
    classes only say how many answers were no number.
    """
    if canary.bins and stable.bins and canary.edges != stable.edges:
        return None
    if not output_total(canary) + output_total(stable):
        return None
    if size := max(len(canary.bins), len(stable.bins)):
        one, other = (
            [*(c.bins or [0] * size), max(0, sum(c.classes.values()) - sum(c.bins)), c.missing]
            for c in (canary, stable)
        )
        return one, other
    kept = common_classes([canary.classes, stable.classes])
    names = [*sorted(kept), OTHER]
    one, other = (
        [*(folded.get(name, 0) for name in names), c.missing]
        for c in (canary, stable)
        for folded in (fold_classes(c.classes, kept),)
    )
    return one, other


def _blind_to_baseline(live: list[int], baseline: Baseline) -> str:
    """Somebody chose these bins, and a rare class may have one of two: only what has one alone tells nothing."""
    one, other = (OutputCounts(edges=baseline.edges, bins=list(bins)) for bins in (live, baseline.counts))
    return blind_bin(one, other, stray=0.0)


def _log_mean(logs: list[float]) -> float:
    if not logs:
        return 0.0
    top = max(logs)
    return top + math.log(math.fsum(math.exp(value - top) for value in logs) / len(logs))
