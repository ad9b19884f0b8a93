"""E-processes for "the version made no difference", from counts alone.

The sidecar draws each request's version at random: canary with probability w, whatever the request is. So if the
version makes no difference, a request's label (canary or stable) is independent of its outcome, and given all
outcomes the labels are coin tosses with one w. That holds under drifting traffic and in an outage both versions
share, for these move outcomes, not labels; and it needs no model of the outcomes.

Against it stands a bet: request outcomes fall into bins b, and labels in bin b are tossed with a theta_b of its own,
drawn from a mixture around the nominal share. By universal inference (Wasserman, Ramdas and Balakrishnan 2020, PNAS
117:16880)

    E = (mixture likelihood of the labels) / (sup over w of their likelihood with one w)

is at any time at most a test martingale, for every true w, so P(E ever >= 1/alpha) <= alpha however often one looks
(Ville). E depends on the order of requests through their counts only, so counts may be summed over pods first. The
nominal `share` (strictly between 0 and 1) is where the bet is placed: a wrong one costs power, never validity. Epochs
multiply.

The bets are finite mixtures over shifts of the log-odds: geometric in size, so no shift is missed by more than a
fifth of itself, and part of the stake is kept back, so that a long quiet epoch cannot ruin the next ones.

Assumed: requests are labelled one by one. With affinity a user is; then users, not requests, should be many. Shares
dealt by shuffled decks of 100 instead of coin tosses have 100/99 of the variance that matters here; the simulations
run both. Requests that are drawn but not counted (cancelled ones) only move w, unless the version decides which.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def _geometric(low: float, high: float, ratio: float, centre: float, spread: float, idle: float) -> tuple[Array, Array]:
    """Shifts low, low*ratio, ... and the logarithms of their stakes: log-normal around `centre`, `idle` on no shift."""
    shifts = np.exp(np.arange(np.log(low), np.log(high), np.log(ratio)))
    stakes = np.exp(-0.5 * (np.log(shifts / centre) / spread) ** 2)
    stakes *= (1 - idle) / stakes.sum()
    if idle:
        shifts, stakes = np.concatenate(([0.0], shifts)), np.concatenate(([idle], stakes))
    return shifts, np.log(stakes)


# Tuned by simulation (tests/unit/test_simulation_power.py) for 5 % against 2 %: a beta-binomial in each bin, the
# textbook mixture, needs half as many requests again, because it bets on both directions and on all sizes.
_UP: Final = _geometric(0.05, 8.0, 1.25, centre=0.8, spread=0.8, idle=0.0)
_DOWN: Final = _geometric(0.01, 8.0, 1.4, centre=0.03, spread=1.5, idle=0.6)
#: A true share other than the nominal one, for good and bad alike.
_OFF: Final = (np.array([0.0, -0.2, -0.1, 0.1, 0.2]), np.log([0.8, 0.05, 0.05, 0.05, 0.05]))

#: The part of the stake that each epoch keeps back: no epoch costs the next ones more than log(1/KEPT).
KEPT: Final = 0.1

# A bin of an output: its shift is normal with one of these scales, the same one for all bins. Gauss-Hermite nodes.
_SCALES: Final = np.array([0.15, 0.4, 1.0, 2.5])
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
_LOG_WEIGHTS: Final = np.log(_WEIGHTS / _WEIGHTS.sum())


def log_e_worse(
    canary_bad: ArrayLike, canary_good: ArrayLike, stable_bad: ArrayLike, stable_good: ArrayLike, share: float
) -> Array:
    """Log e-value for "a request is bad more often with the canary", of one epoch; arrays of one shape, or numbers.

    It is valid for the one-sided null too, a canary that is no worse: bad outcomes labelled canary with probability
    t_bad <= t_good. For every single bet has theta_bad >= theta_good, so some w lies between or beside both pairs with
    (t_bad - w)(theta_bad - w) <= 0 and (t_good - w)(theta_good - w) <= 0: against that w no label is expected to gain.
    """
    kb, kg, mb, mg = (np.asarray(x, dtype=np.float64) for x in (canary_bad, canary_good, stable_bad, stable_good))
    (up, up_stake), (down, down_stake) = _UP, _DOWN
    offs, off_stake = _OFF
    bets = [
        _logsumexp(_likelihood(kb, mb, share, off + up) + up_stake)
        + _logsumexp(_likelihood(kg, mg, share, off - down) + down_stake)
        for off in offs
    ]
    return _keep_back(_logsumexp(np.stack(bets, axis=-1) + off_stake) - _best(kb + kg, mb + mg))


def log_e_different(canary: ArrayLike, stable: ArrayLike, share: float) -> Array:
    """Log e-value for "outcomes fall into other bins with the canary", of one epoch; bins are the last axis."""
    k, m = np.asarray(canary, dtype=np.float64), np.asarray(stable, dtype=np.float64)
    bets = [
        _logsumexp(_likelihood(k, m, share, scale * _NODES) + _LOG_WEIGHTS).sum(axis=-1) - np.log(len(_SCALES))
        for scale in _SCALES
    ]
    return _keep_back(_logsumexp(np.stack(bets, axis=-1)) - _best(k.sum(axis=-1), m.sum(axis=-1)))


def _keep_back(log_e: Array) -> Array:
    """A part of the stake is not bet: KEPT + (1 - KEPT) E."""
    result: Array = np.logaddexp(np.log(KEPT), np.log1p(-KEPT) + log_e)
    return result


def _likelihood(k: Array, m: Array, share: float, shifts: Array) -> Array:
    """Log-likelihood of k canary and m stable labels, the odds of `share` shifted by each of `shifts` (last axis)."""
    odds = np.log(share / (1 - share)) + shifts
    result: Array = -k[..., None] * np.log1p(np.exp(-odds)) - m[..., None] * np.log1p(np.exp(odds))
    return result


def _best(k: Array, m: Array) -> Array:
    """Largest log-likelihood of k canary and m stable labels: at their own share."""
    total = np.maximum(k + m, 1.0)
    result: Array = k * np.log(np.maximum(k, 1.0) / total) + m * np.log(np.maximum(m, 1.0) / total)
    return result


def _logsumexp(values: Array) -> Array:
    top = values.max(axis=-1)
    result: Array = top + np.log(np.exp(values - top[..., None]).sum(axis=-1))
    return result
