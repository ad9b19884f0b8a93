"""What the engine calls: verdicts on the evidence so far, and banking an epoch that is over.

`judge` decides on exactly what `bank` would keep, so an epoch's end changes no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from coalmine_sidecar.contract import MAX_THRESHOLDS

from ..api.spec import Analysis, Metric
from ..api.status import Banked, Verdict, VerdictName
from .drift import BaselineDrift, Drift
from .question import Looked, Need, Tally, about, initial_delay, seconds
from .rates import Rates
from .shadow import Disagreements

_ABOUT = "about"


def judge(analysis: Analysis, looked: Looked | None, banked: Sequence[Banked]) -> tuple[Verdict, ...]:
    """One verdict a metric, in the order of the spec. `looked`: the present epoch, None when there is none.

    The chance that any metric ever fails though the versions do not differ is at most `analysis.alpha`: it is split
    evenly over the metrics that test.
    """
    testing = sum(metric.preset is not None for metric in analysis.metrics)
    need = Need(log_threshold=math.log(max(testing, 1) / analysis.alpha), min_requests=analysis.min_requests)
    return tuple(_judge(metric, looked, banked, need) for metric in analysis.metrics)


def bank(analysis: Analysis, looked: Looked | None, banked: Sequence[Banked]) -> tuple[Banked, ...]:
    """The evidence with the epoch that ends now folded in: one entry for each metric that tests."""
    return tuple(
        Banked(metric=metric.name, log_e=tally.log_e, evidence={_ABOUT: about(metric)} | msgspec.to_builtins(tally))
        for metric in analysis.metrics
        if metric.preset is not None
        for tally in (_tally(metric, looked, banked)[0],)
    )


def worst(verdicts: Iterable[Verdict]) -> VerdictName:
    """Fail over Unknown over Pass. Of nothing: Pass."""
    names = {verdict.verdict for verdict in verdicts}
    return "Fail" if "Fail" in names else "Unknown" if "Unknown" in names else "Pass"


def by_shadow(analysis: Analysis, verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts that a canary without users can get: those on answers to copies of requests."""
    names = {metric.name for metric in analysis.metrics if metric.preset == "shadowDisagreement"}
    return tuple(verdict for verdict in verdicts if verdict.metric in names)


def thresholds(analysis: Analysis) -> tuple[float, ...]:
    """Seconds, ascending: what the sidecars have to count for the latency metrics."""
    found = {asked for metric in analysis.metrics if (asked := seconds(metric)) is not None}
    return tuple(sorted(found)[:MAX_THRESHOLDS])


def baseline_bins(analysis: Analysis) -> dict[str, tuple[float, ...]]:
    """Edges that metrics against a baseline need the sidecars to count with, by output; they go before frozen ones."""
    found: dict[str, tuple[float, ...]] = {}
    for metric in analysis.metrics:
        if metric.preset == "outputDrift" and metric.against == "baseline":
            for baseline in metric.baseline:
                found.setdefault(baseline.output, baseline.edges)
    return found


def epoch_boundaries(analysis: Analysis) -> tuple[float, ...]:
    """Seconds since the canary was ready at which a new epoch has to begin: the ends of grace periods."""
    return tuple(sorted({delay for metric in analysis.metrics if (delay := initial_delay(metric)) > 0}))


def _judge(metric: Metric, looked: Looked | None, banked: Sequence[Banked], need: Need) -> Verdict:
    if metric.preset is None:
        return Verdict(metric=metric.name, verdict="Unknown", reason="NoPrometheus")
    tally, uncounted = _tally(metric, looked, banked)
    judged = tally.judge(metric, need)
    return Verdict(
        metric=metric.name,
        verdict="Fail" if judged.failing else "Unknown" if judged.lacking else "Pass",
        # Why the present epoch does not count says more than that there is too little.
        reason=judged.failing or (judged.lacking and (uncounted or judged.lacking)) or "NoRegression",
        statistic=tally.log_e,
        threshold=need.log_threshold,
        evidence=tally.evidence(metric),
    )


def _tally(metric: Metric, looked: Looked | None, banked: Sequence[Banked]) -> tuple[Tally, str]:
    """The evidence on `metric` with the present epoch, or without it and why it does not count."""
    tally = _restore(metric, banked)
    if looked is None:
        return tally, "NoTraffic"
    if looked.age < initial_delay(metric):
        return tally, "WarmingUp"
    taken = tally.take(metric, looked)
    return (tally, taken) if isinstance(taken, str) else (taken, "")


def _restore(metric: Metric, banked: Sequence[Banked]) -> Tally:
    kept = next((b.evidence for b in banked if b.metric == metric.name and b.evidence.get(_ABOUT) == about(metric)), {})
    match metric.preset:
        case "shadowDisagreement":
            return msgspec.convert(kept, Disagreements)
        case "outputDrift" if metric.against == "baseline":
            return msgspec.convert(kept, BaselineDrift)
        case "outputDrift":
            return msgspec.convert(kept, Drift)
    return msgspec.convert(kept, Rates)
