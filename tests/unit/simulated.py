"""Traffic made up for the simulations: outcomes drawn, labels dealt, counts summed at every look. Arrays throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from coalmine_operator.analysis.evalue import log_e_different, log_e_worse

Array = NDArray[np.float64]
DECK = 100


@dataclass(frozen=True)
class Stretch:
    """A stretch of an epoch: `looks` looks after 100 requests each, with these chances of every outcome bin."""

    share: float
    looks: int
    stable: Sequence[float]
    canary: Sequence[float] = ()
    epoch: int = 0


@dataclass(frozen=True)
class Traffic:
    """Cumulative counts within each epoch, [runs, looks, bins], and for each look its epoch's share and name."""

    canary: Array
    stable: Array
    share: Array
    epoch: Array

    def total(self) -> tuple[Array, Array]:
        """Counts pooled over epochs: what must not be done."""
        new = np.diff(self.epoch, prepend=self.epoch[0]) != 0
        sums = []
        for counts in (self.canary, self.stable):
            past = np.zeros_like(counts)
            for at in np.flatnonzero(new):
                past[:, at:] += counts[:, at - 1 : at]
            sums.append(counts + past)
        return sums[0], sums[1]

    def log_e(self, statistic: str) -> Array:
        """Log E at each look, [runs, looks], epochs multiplied."""
        result = np.zeros(self.canary.shape[:2])
        banked = np.zeros((self.canary.shape[0], 1))
        for epoch in np.unique(self.epoch):
            at = np.flatnonzero(self.epoch == epoch)
            share = float(self.share[at[0]])
            result[:, at] = banked + e_values(statistic, self.canary[:, at], self.stable[:, at], share)
            banked = result[:, at[-1:]]
        return result


def e_values(statistic: str, canary: Array, stable: Array, share: float) -> Array:
    if statistic == "worse":
        return log_e_worse(canary[..., 0], canary[..., 1], stable[..., 0], stable[..., 1], share)
    parts = zip(np.array_split(canary, 10), np.array_split(stable, 10), strict=True)  # bounds the memory
    return np.concatenate([log_e_different(k, m, share) for k, m in parts])


def traffic(stretches: Sequence[Stretch], *, runs: int, seed: int, decks: bool) -> Traffic:
    """Labels are dealt by decks of 100 with the exact share, or tossed one by one. `canary` defaults to `stable`."""
    rng = np.random.default_rng(seed)
    canaries, stables, shares, epochs = [], [], [], []
    before: Stretch | None = None
    for stretch in stretches:
        kept = (runs, stretch.looks)
        drawn = np.full(kept, round(stretch.share * DECK)) if decks else rng.binomial(DECK, stretch.share, size=kept)
        canary, stable = _outcomes(rng, stretch, drawn)
        for counts, sums in ((canary, canaries), (stable, stables)):
            counts = np.cumsum(counts, axis=1)
            if before is not None and before.epoch == stretch.epoch:
                counts = counts + sums[-1][:, -1:]
            sums.append(counts.astype(np.float64))
        shares += [stretch.share] * stretch.looks
        epochs += [stretch.epoch] * stretch.looks
        before = stretch
    return Traffic(
        np.concatenate(canaries, 1), np.concatenate(stables, 1), np.array(shares), np.array(epochs, dtype=np.float64)
    )


def _outcomes(rng: np.random.Generator, stretch: Stretch, drawn: NDArray[np.int64]) -> tuple[Array, Array]:
    """With labels dealt first, outcomes are independent given them."""
    return (
        rng.multinomial(drawn, np.asarray(stretch.canary or stretch.stable)),
        rng.multinomial(DECK - drawn, np.asarray(stretch.stable)),
    )


def median_to_find(log_e: Array, canary: Array, alpha: float) -> float:
    """Median over runs of the canary requests counted when E first reached 1/alpha; infinite where it did not."""
    hit = log_e >= np.log(1 / alpha)
    first = np.where(hit.any(axis=1), hit.argmax(axis=1), -1)
    found = np.where(first >= 0, canary.sum(axis=-1)[np.arange(len(first)), first], np.inf)
    return float(np.median(found))


def ever(log_e: Array, alpha: float) -> float:
    """The share of runs in which some look found E at 1/alpha or above."""
    return float((log_e >= np.log(1 / alpha)).any(axis=1).mean())


def shifted(base: Sequence[float], by: float) -> list[float]:
    """A normal score cut into bins of these chances, after its mean moved by `by` standard deviations."""
    edges = norm.ppf(np.cumsum(base)[:-1])
    return [float(x) for x in np.diff(norm.cdf(edges - by), prepend=0.0, append=1.0)]


def true_psi(q: Sequence[float], p: Sequence[float]) -> float:
    return float(sum((a - b) * np.log(a / b) for a, b in zip(q, p, strict=True)))
