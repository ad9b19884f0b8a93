"""Performance with and without labels as Prometheus metrics: one file's names, help texts and cumulated bins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from ..families import CounterMetricFamily, HistogramMetricFamily, Metric
from .histograms import add_histogram
from .performance import PerformanceCounters

_Labels = tuple[str, ...]
_Counted = Sequence[tuple[_Labels, PerformanceCounters]]
#: What the three sums of a tenth of the scores are.
_DECILE_SUMS: Final = ("score", "positive", "count")


def performance_metrics(names: _Labels, counted: _Counted) -> Iterator[Metric]:
    """`names` are the labels that come first, with their values beside each revision's counters.

    Nothing about labels where there is no feedback, nothing estimated where no calibration is known.
    """
    if not counted:
        return
    labelled = [(labels, c) for labels, c in counted if c.has_feedback]
    yield from _scores(names, counted)
    yield from _confusion(names, counted)
    if labelled:
        yield from _sums(names, labelled)
        yield from _delays(names, labelled)
        yield from _outcomes(names, labelled)


def _scores(names: _Labels, counted: _Counted) -> Iterator[Metric]:
    here = CounterMetricFamily(
        "coalmine_score",
        "Rows by the bin of their score and their class, labelled, or estimated by the bin's calibration.",
        labels=(*names, "truth", "class", "bin"),
    )
    beyond = CounterMetricFamily(
        "coalmine_score_from",
        "Rows whose score is in this bin or a higher one.",
        labels=(*names, "truth", "class", "bin"),
    )
    for labels, c in counted:
        if c.truths and c.has_feedback:
            for name, bins in zip(("0", "1"), c.truths, strict=True):
                _add_bins(here, (*labels, "label", name), bins)
                _add_bins(beyond, (*labels, "label", name), _cumulated(bins))
        if c.seen:
            expected = c.estimated()
            for name, shares in zip(("0", "1"), expected, strict=True):
                _add_bins(here, (*labels, "estimate", name), shares)
            _add_bins(beyond, (*labels, "estimate", "0"), _cumulated(expected[0]))
    yield from (here, beyond)


def _confusion(names: _Labels, counted: _Counted) -> Iterator[Metric]:
    known = CounterMetricFamily("coalmine_confusion", "Labelled rows by class.", labels=(*names, "actual", "predicted"))
    estimated = CounterMetricFamily(
        "coalmine_confusion_estimated",
        "Rows by class, the actual one estimated by the calibration of the score's bin.",
        labels=(*names, "actual", "predicted"),
    )
    for labels, c in counted:
        if c.has_feedback:
            for (actual, predicted), count in c.confusion.items():
                known.add_metric((*labels, actual, predicted), count)
        if c.seen:
            for (actual, predicted), expected in c.estimated_confusion().items():
                estimated.add_metric((*labels, actual, predicted), expected)
    yield from (known, estimated)


def _sums(names: _Labels, counted: _Counted) -> Iterator[Metric]:
    rows = CounterMetricFamily("coalmine_labels", "Labelled rows.", labels=names)
    scored = CounterMetricFamily(
        "coalmine_labels_scored",
        "Labelled rows whose score is known: what losses and errors are sums of.",
        labels=names,
    )
    loss = CounterMetricFamily("coalmine_label_log_loss", "Sum of the labels' log losses (natural).", labels=names)
    squared = CounterMetricFamily("coalmine_label_squared_error", "Sum of (truth - score)^2.", labels=names)
    absolute = CounterMetricFamily("coalmine_label_absolute_error", "Sum of |truth - score|.", labels=names)
    deviation = CounterMetricFamily(
        "coalmine_label_deviation", "Sum of |truth - center| on each side of it.", labels=(*names, "sign")
    )
    deviation2 = CounterMetricFamily("coalmine_label_squared_deviation", "Sum of (truth - center)^2.", labels=names)
    calibration = CounterMetricFamily(
        "coalmine_calibration",
        "Labelled rows by the tenth that their score is in: sum of the scores, positives, rows.",
        labels=(*names, "decile", "of"),
    )
    for labels, c in counted:
        rows.add_metric(labels, c.labels)
        if c.task not in ("binary", "regression"):
            continue
        scored.add_metric(labels, c.scored)
        squared.add_metric(labels, c.squared_error)
        absolute.add_metric(labels, c.absolute_error)
        if c.task == "regression":
            for sign, amount in zip(("above", "below"), c.deviation, strict=True):
                deviation.add_metric((*labels, sign), amount)
            deviation2.add_metric(labels, c.squared_deviation)
            continue
        loss.add_metric(labels, c.log_loss)
        for decile, sums in enumerate(c.deciles):
            for what, amount in zip(_DECILE_SUMS, sums, strict=True):
                calibration.add_metric((*labels, str(decile), what), amount)
    for family in (rows, scored, loss, squared, absolute, deviation, deviation2, calibration):
        if family.samples:
            yield family


def _delays(names: _Labels, counted: _Counted) -> Iterator[Metric]:
    delay = HistogramMetricFamily(
        "coalmine_label_delay_seconds", "From a prediction to its label, for each row.", labels=names
    )
    for labels, c in counted:
        add_histogram(delay, labels, c.delay)
    yield delay


def _outcomes(names: _Labels, counted: _Counted) -> Iterator[Metric]:
    gained = CounterMetricFamily(
        "coalmine_outcome_sum", "Sum of a business outcome's values above zero.", labels=(*names, "outcome")
    )
    lost = CounterMetricFamily(
        "coalmine_outcome_negative_sum", "Sum of the amounts of those below zero.", labels=(*names, "outcome")
    )
    count = CounterMetricFamily("coalmine_outcome_count", "How often it came.", labels=(*names, "outcome"))
    for labels, c in counted:
        for name, outcome in c.outcomes.items():
            gained.add_metric((*labels, name), outcome.gained)
            lost.add_metric((*labels, name), outcome.lost)
            count.add_metric((*labels, name), outcome.count)
    yield from (gained, lost, count)


def _add_bins(family: CounterMetricFamily, labels: _Labels, counts: Sequence[float]) -> None:
    for at, count in enumerate(counts):
        family.add_metric((*labels, f"{at:03}"), count)


def _cumulated(counts: Sequence[float]) -> list[float]:
    """Of each bin and all higher ones."""
    return list(accumulate(reversed(counts)))[::-1]
