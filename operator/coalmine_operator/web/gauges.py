"""Baselines and drift as gauges, for rules that compare the sidecars' counters with them.

`namespace`, `model` and `version` are the labels of the sidecars' series. What is told is bounded by the baselines'
files; a bin's series is a baseline's frequency of it and, of numbers, the share up to it and its width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..analysis.monitored import Kind, Watched
from ..api.baseline import Baseline, Column, Numeric, ratios, upto, widths
from ..engine.monitored import DeploymentMonitored, RevisionMonitored

_Labels = tuple[str, ...]
_REVISION: Final = ("namespace", "model", "version")

#: By name without `coalmine_`: what it says, and its labels beside those of the revision.
_FAMILIES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "baseline_loaded": ("1 if the baseline is in use, 0 if it cannot be, and the reason.", ("reason",)),
    "baseline_rows": ("Rows that the baseline was made of.", ()),
    "baseline_performance": ("A metric of the model on the data of its baseline.", ("metric",)),
    "baseline_performance_stddev": ("Standard deviation of a metric over chunks of the baseline's data.", ("metric",)),
    "drift_log_e": ("Log e-value against 'as in the baseline', over all rows.", ("kind", "name")),
    "drift_run_length_log": ("Log of the run-length statistic after the last whole window.", ("kind", "name")),
    "drift_log_e_mean": ("Log of the mean of the features' e-values.", ()),
    "drift_run_length_log_mean": ("Log of the mean of the features' run-length statistics.", ()),
    "drift_alarm_threshold_log": ("Log of the run-length statistic at which an alarm is due.", ()),
}
#: Of each kind of column, whose label is called like the kind.
_COLUMN_FAMILIES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "ratio": ("Frequency of a bin in the baseline, half a row added to each (Jeffreys' prior).", ("bin",)),
    "upto": ("Share of the baseline's numbers in this bin or a lower one.", ("bin",)),
    "width": ("Width of an inner bin.", ("bin",)),
    "mean": ("Mean of the baseline's numbers.", ()),
    "stddev": ("Standard deviation of the baseline's numbers.", ()),
}


class MonitoredGauges(Collector):
    """Made anew at every scrape of what `deployments` answers then: what went has no series."""

    def __init__(self, deployments: Callable[[], Iterable[DeploymentMonitored]]) -> None:
        self._deployments = deployments

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        told: set[_Labels] = set()
        for deployment in self._deployments():
            for revision in deployment.revisions:
                labels = (deployment.namespace, deployment.model, revision.version)
                # Two model deployments may serve the same version of a model; a series stands once in a scrape.
                if labels not in told:
                    told.add(labels)
                    _Told(families, labels).revision(revision, deployment.threshold)
        # In the order of the tables, so that two scrapes can be compared.
        yield from (families[name] for name in _names() if name in families)


class _Told:
    """Adds the series of one revision."""

    def __init__(self, families: dict[str, GaugeMetricFamily], labels: _Labels) -> None:
        self._families = families
        self._labels = labels

    def revision(self, revision: RevisionMonitored, threshold: float) -> None:
        state = revision.baseline
        self._add("baseline_loaded", state.baseline is not None, state.problem)
        if state.baseline is not None:
            self._baseline(state.baseline)
        if revision.watched is not None and revision.watched.columns:
            self._watched(revision.watched)
            self._add("drift_alarm_threshold_log", threshold)

    def _baseline(self, baseline: Baseline) -> None:
        self._add("baseline_rows", baseline.rows)
        for name, column in baseline.features.items():
            self._column("feature", name, column)
        for name, column in baseline.outputs.items():
            self._column("output", name, column)
        for name, figure in (baseline.performance.metrics if baseline.performance else {}).items():
            self._add("baseline_performance", figure.value, name)
            if figure.stddev is not None:
                self._add("baseline_performance_stddev", figure.stddev, name)

    def _column(self, kind: Kind, name: str, column: Column) -> None:
        parts = {"ratio": ratios(column)}
        if isinstance(column, Numeric):
            parts |= {"upto": upto(column), "width": widths(column)}
            self._add(f"{kind}_baseline_mean", column.mean, name)
            self._add(f"{kind}_baseline_stddev", column.stddev, name)
        for part, values in parts.items():
            for place, value in values.items():
                self._add(f"{kind}_baseline_{part}", value, name, place)

    def _watched(self, watched: Watched) -> None:
        for column in watched.columns:
            self._add("drift_log_e", column.log_e, column.kind, column.name)
            if column.run_length.windows:
                self._add("drift_run_length_log", column.run_length.log_r, column.kind, column.name)
        for name, mean in (("log_e", watched.log_e_mean), ("run_length_log", watched.log_r_mean)):
            if mean is not None:
                self._add(f"drift_{name}_mean", mean)

    def _add(self, name: str, value: float, *labels: str) -> None:
        if math.isnan(value):
            return
        family = self._families.get(name)
        if family is None:
            text, names = _described(name)
            family = self._families[name] = GaugeMetricFamily(f"coalmine_{name}", text, labels=(*_REVISION, *names))
        family.add_metric((*self._labels, *labels), value)


def _names() -> Iterator[str]:
    yield from _FAMILIES
    for kind in ("feature", "output"):
        yield from (f"{kind}_baseline_{part}" for part in _COLUMN_FAMILIES)


def _described(name: str) -> tuple[str, tuple[str, ...]]:
    if name in _FAMILIES:
        return _FAMILIES[name]
    kind, _, part = name.partition("_baseline_")
    text, labels = _COLUMN_FAMILIES[part]
    return text, (kind, *labels)
