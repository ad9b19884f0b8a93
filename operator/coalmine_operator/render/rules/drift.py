"""Records about features and outputs: how far live values are from the baseline, how complete, about which mean.

Sums over pods first, then one figure for each version: a histogram of all pods, never a mean of the pods' figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal

from .parameters import PSI, Parameters, Statistic
from .promql import RARE, VERSION, Rule, Scope, chi2_rare, number, ratio

Kind = Literal["feature", "output"]

#: Of numbers only: categories have no order.
ORDERED: Final = ("ks", "wasserstein")


def drift_records(scope: Scope, kind: Kind, parameters: Parameters) -> Iterator[Rule]:
    """`coalmine:KIND_STATISTIC:baseline` for each of the six statistics, and what they are computed from."""
    yield from _bins(scope, kind)
    yield from _statistics(scope, kind)
    yield from _cumulated(scope, kind)
    yield scope.record(f"coalmine:{kind}_drift:noise", noise(scope, kind, parameters.statistic))
    yield scope.record(
        f"coalmine:drifted_{kind}s:ratio", f"avg by ({VERSION}) (\n{drifted(scope, kind, parameters, bool_=True)}\n)"
    )


def value_records(scope: Scope, kind: Kind) -> Iterator[Rule]:
    """Completeness, mean and variance."""
    by = f"{VERSION}, {kind}"
    rows = scope.increase(f"coalmine_{kind}_values_total", by)
    for name, counter, more in (
        ("missing", "bin", 'bin="missing"'), ("unseen", "bin", 'bin="unseen"'), ("nonfinite", "nonfinite", ""),
    ):  # fmt: skip
        counted = scope.increase(f"coalmine_{kind}_{counter}_total", by, more)
        yield scope.record(f"coalmine:{kind}_{name}:ratio", ratio(counted, rows))
    yield scope.record(f"coalmine:{kind}:completeness", f"1 - {scope.recorded(f'coalmine:{kind}_missing:ratio', by)}")
    # About the baseline's mean: sums of squares about 0 lose their digits.
    above, below = (scope.increase(f"coalmine_{kind}_deviation_total", by, f'sign="{s}"') for s in ("above", "below"))
    numbers = scope.recorded(f"coalmine:{kind}_numbers:increase", by)
    yield scope.record(f"coalmine:{kind}_deviation:mean", f"({above} - {below})\n/ ({numbers} > 0)")
    deviation = scope.recorded(f"coalmine:{kind}_deviation:mean", by)
    yield scope.record(f"coalmine:{kind}:mean", f"{deviation}\n+ {scope.gauge(f'coalmine_{kind}_baseline_mean', by)}")
    squares = scope.increase(f"coalmine_{kind}_squared_deviation_total", by)
    yield scope.record(f"coalmine:{kind}:variance", f"clamp_min({squares} / ({numbers} > 0)\n- {deviation} ^ 2, 0)")
    stddev = scope.gauge(f"coalmine_{kind}_baseline_stddev", by)
    yield scope.record(
        f"coalmine:{kind}_variance:baseline_ratio",
        f"{scope.recorded(f'coalmine:{kind}:variance', by)}\n/ ({stddev} > 0) ^ 2",
    )


def noise(scope: Scope, kind: Kind, statistic: Statistic) -> str:
    """What the statistic stays under in 999 of 1000 windows without a drift; with it, each version's own bins count.

    chi2 and PSI: chi-square's quantile over n (Yurdakul and Naranjo, J. Risk Model Validation 14, 2020), and since a
    small PSI is 8 H² and 8 ln 2 JS², those of Hellinger and JS. Kolmogorov-Smirnov: the inequality of Dvoretzky,
    Kiefer and Wolfowitz with Massart's constant, P(D > d) <= 2 exp(-2 n d²). Wasserstein: D times what all inner bins
    span.
    """
    by = f"{VERSION}, {kind}"
    df = f"(count by ({by}) ({scope.gauge(f'coalmine_{kind}_baseline_ratio', f'{by}, bin')}) - 1)"
    rows = scope.recorded(f"coalmine:{kind}_rows:increase", by)
    chi2 = f"{chi2_rare(df)}\n/ ({rows} > 0)"
    if statistic == "js":
        return f"sqrt({chi2} / {number(8 * math.log(2))})"
    if statistic == "hellinger":
        return f"sqrt({chi2} / 8)"
    if statistic not in ORDERED:
        return chi2
    numbers = scope.recorded(f"coalmine:{kind}_numbers:increase", by)
    largest = f"sqrt({number(math.log(2 / RARE) / 2)} / ({numbers} > 0))"
    if statistic == "ks":
        return largest
    span = f"sum by ({by}) ({scope.gauge(f'coalmine_{kind}_baseline_width', f'{by}, bin')})"
    return f"{largest} * {span}\n/ ({scope.gauge(f'coalmine_{kind}_baseline_stddev', by)} > 0)"


def statistic_of(scope: Scope, kind: Kind, statistic: Statistic) -> str:
    """The recorded statistic; chi-square by its rows, which makes it a measure of the drift and not of the traffic."""
    by = f"{VERSION}, {kind}"
    recorded = scope.recorded(f"coalmine:{kind}_{statistic}:baseline", by)
    if statistic != "chi2":
        return recorded
    return f"{recorded} / {scope.recorded(f'coalmine:{kind}_rows:increase', by)}"


def drifted(
    scope: Scope, kind: Kind, parameters: Parameters, threshold: float | None = None, *, bool_: bool = False
) -> str:
    """The statistic where it is over `threshold` (default: that of a warning), or 1 and 0; nothing with too few rows.

    Where the statistic is one of numbers, categories are judged by their PSI.
    """
    by = f"{VERSION}, {kind}"
    word = "bool " if bool_ else ""
    statistic = parameters.statistic
    over = parameters.warn if threshold is None else threshold
    value = statistic_of(scope, kind, statistic)
    enough = scope.recorded(f"coalmine:{kind}_drift:noise", by)
    found = f"({value} > {word}{number(over)}\nand {enough} <= {number(over)})"
    if statistic not in ORDERED:
        return found
    over = PSI[0 if over <= parameters.warn else 1]
    psi = statistic_of(scope, kind, "psi")
    enough = noise(scope, kind, "psi")
    return f"{found}\nor ({psi} > {word}{number(over)}\nand {enough} <= {number(over)}\nunless {value})"


def _bins(scope: Scope, kind: Kind) -> Iterator[Rule]:
    """Rows of the window by bin. Bins of another baseline, which a window may still hold, are left out."""
    by, bins = f"{VERSION}, {kind}", f"{VERSION}, {kind}, bin"
    live = scope.increase(f"coalmine_{kind}_bin_total", bins)
    baseline = scope.gauge(f"coalmine_{kind}_baseline_ratio", bins)
    counted = f"({live}\nand {baseline})\nor ({baseline} * 0 and on ({by}) {live})"
    if kind == "output":
        counted = f"{_classes(scope, by, baseline)}\nor {counted}"
    yield scope.record(f"coalmine:{kind}_bin:increase", counted)
    rows = f"sum by ({by}) ({scope.own(f'coalmine:{kind}_bin:increase')})"
    yield scope.record(f"coalmine:{kind}_rows:increase", rows)
    part = scope.recorded(f"coalmine:{kind}_bin:increase", bins)
    whole = scope.recorded(f"coalmine:{kind}_rows:increase", by)
    yield scope.record(f"coalmine:{kind}_bin:ratio", f"{part}\n/ on ({by}) group_left () ({whole} > 0)")


def _classes(scope: Scope, by: str, baseline: str) -> str:
    """Rows of an output that is a name, which sidecars count by class, in its baseline's bins.

    Whole numbers are counted both ways: where the baseline has them in order they are no names.
    """
    counted = scope.increase("coalmine_output_class_total", f"{by}, class")
    named = f'sum by ({by}, bin) (label_replace({counted}, "bin", "$1", "class", "(.*)"))'
    named = f"({named}\nunless on ({by}) {scope.gauge('coalmine_output_baseline_upto', f'{by}, bin')})"
    other = f'label_replace(sum by ({by}) ({named}\nunless {baseline}), "bin", "unseen", "", "")'
    return f"({named}\nand {baseline})\nor ({other}\nand {baseline})"


def _statistics(scope: Scope, kind: Kind) -> Iterator[Rule]:
    by, bins = f"{VERSION}, {kind}", f"{VERSION}, {kind}, bin"
    q = scope.recorded(f"coalmine:{kind}_bin:ratio", bins)
    p = scope.gauge(f"coalmine_{kind}_baseline_ratio", bins)
    count = scope.recorded(f"coalmine:{kind}_bin:increase", bins)
    rows = scope.recorded(f"coalmine:{kind}_rows:increase", by)
    # Jeffreys' half row in each bin, as the baseline has it: no logarithm of 0.
    smooth = f"(({count} + 0.5)\n/ on ({by}) group_left () sum by ({by}) ({count} + 0.5))"
    yield scope.record(
        f"coalmine:{kind}_psi:baseline",
        f"sum by ({by}) (({smooth} - {p})\n* ln({smooth} / {p}))\nand {rows} > 0",
    )
    mean = f"(({q} + {p}) / 2)"
    yield scope.record(
        f"coalmine:{kind}_js:baseline",
        f"sqrt(clamp_min(0.5 * sum by ({by}) (\n{q} * log2(clamp_min({q}, 1e-12) / {mean})\n"
        f"+ {p} * log2({p} / {mean})), 0))",
    )
    yield scope.record(
        f"coalmine:{kind}_hellinger:baseline", f"sqrt(clamp_min(1 - sum by ({by}) (sqrt({q} * {p})), 0))"
    )
    yield scope.record(f"coalmine:{kind}_chi2:baseline", f"sum by ({by}) (({q} - {p}) ^ 2 / {p})\n* {rows}")


def _cumulated(scope: Scope, kind: Kind) -> Iterator[Rule]:
    """Kolmogorov-Smirnov and Wasserstein, of numbers only; the latter in the baseline's standard deviations."""
    by, bins = f"{VERSION}, {kind}", f"{VERSION}, {kind}, bin"
    expected = scope.gauge(f"coalmine_{kind}_baseline_upto", bins)
    upto = f"({scope.increase(f'coalmine_{kind}_upto_total', bins)}\nand {expected})"
    yield scope.record(f"coalmine:{kind}_numbers:increase", f"max by ({by}) {upto}")
    numbers = scope.recorded(f"coalmine:{kind}_numbers:increase", by)
    yield scope.record(
        f"coalmine:{kind}_upto:difference",
        f"abs({upto}\n/ on ({by}) group_left () ({numbers} > 0)\n- {expected})",
    )
    yield scope.record(
        f"coalmine:{kind}_ks:baseline", f"max by ({by}) ({scope.own(f'coalmine:{kind}_upto:difference')})"
    )
    apart = scope.recorded(f"coalmine:{kind}_upto:difference", bins)
    width = scope.gauge(f"coalmine_{kind}_baseline_width", bins)
    stddev = scope.gauge(f"coalmine_{kind}_baseline_stddev", by)
    yield scope.record(f"coalmine:{kind}_wasserstein:baseline", f"sum by ({by}) ({apart} * {width})\n/ ({stddev} > 0)")
