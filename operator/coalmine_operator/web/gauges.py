"""Baselines and drift as gauges, for rules that compare the sidecars' counters with them.

`namespace`, `model` and `version` are the labels of the sidecars' series. What is told is bounded by the baselines'
files; a bin's series are a baseline's frequency of it and, of numbers, the share up to it and its width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.metrics_core import Metric

from ..analysis.monitored import Kind, Watched
from ..api.baseline import Baseline, Column, Numeric, ratios, upto, widths
from ..engine.monitored import DeploymentMonitored, RevisionMonitored

#: Bytes of text kept from one scrape to the next. 20 features and 2 outputs of 10 bins are 80 kB a revision.
KEPT_BYTES: Final = 64 << 20
#: Series of a piece of what is pushed, if no revision has more: some hundred kilobytes of JSON.
PIECE: Final = 2000

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


class MonitoredGauges:
    """Writes the text format itself: prometheus_client takes eight times as long, and alerts wait meanwhile.

    A baseline's text never changes, so it is kept as long as it is told.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[_Labels, str], dict[str, bytes]] = {}

    def render(self, deployments: Iterable[DeploymentMonitored]) -> bytes:
        """All series of `deployments`, and of nothing that went."""
        families: dict[str, list[bytes]] = {}
        kept: dict[tuple[_Labels, str], dict[str, bytes]] = {}
        room = KEPT_BYTES
        for labels, revision, threshold in _revisions(deployments):
            live = _Text(labels)
            _live(live, revision, threshold)
            texts = [live.encoded()]
            state = revision.baseline
            if state.baseline is not None:
                key = (labels, state.digest)
                text = self._kept.get(key)
                if text is None:
                    lines = _Text(labels)
                    _baseline(lines, state.baseline)
                    text = lines.encoded()
                texts.append(text)
                room -= sum(map(len, text.values()))
                if room >= 0:
                    kept[key] = text
            for text in texts:
                for name, part in text.items():
                    families.setdefault(name, []).append(part)
        self._kept = kept
        return b"".join(part for name in _names() if name in families for part in (_head(name), *families[name]))


def pieces(deployments: Iterable[DeploymentMonitored], size: int = PIECE) -> Iterator[list[Metric]]:
    """The same series as prometheus_client's, whole revisions at a time: about `size` series a piece, none twice."""
    families: dict[str, Metric] = {}
    count = 0
    for labels, revision, threshold in _revisions(deployments):
        samples = _Samples(labels, families)
        _live(samples, revision, threshold)
        if revision.baseline.baseline is not None:
            _baseline(samples, revision.baseline.baseline)
        count += samples.count
        if count >= size:
            yield list(families.values())
            families, count = {}, 0
    if families:
        yield list(families.values())


def _revisions(deployments: Iterable[DeploymentMonitored]) -> Iterator[tuple[_Labels, RevisionMonitored, float]]:
    """With the labels of its series and the threshold of its alarms.

    Two model deployments may serve the same version of a model; a series stands once in a scrape.
    """
    told: set[_Labels] = set()
    for deployment in deployments:
        for revision in deployment.revisions:
            labels = (deployment.namespace, deployment.model, revision.version)
            if labels not in told:
                told.add(labels)
                yield labels, revision, deployment.threshold


class _Sink(ABC):
    """Takes the series of one revision."""

    def add(self, name: str, value: float, *labels: str) -> None:
        """`labels`: those beside the revision's. What is not finite is nothing to compare anything with."""
        if math.isfinite(value):
            self.put(name, float(value), labels)

    @abstractmethod
    def put(self, name: str, value: float, labels: _Labels) -> None: ...


class _Text(_Sink):
    """Lines, by family."""

    def __init__(self, labels: _Labels) -> None:
        self._labels = ",".join(_pairs(_REVISION, labels))
        self._lines: dict[str, list[str]] = {}

    def put(self, name: str, value: float, labels: _Labels) -> None:
        pairs = ",".join((self._labels, *_pairs(_described(name)[1], labels)))
        self._lines.setdefault(name, []).append(f"coalmine_{name}{{{pairs}}} {value!r}\n")

    def encoded(self) -> dict[str, bytes]:
        return {name: "".join(lines).encode() for name, lines in self._lines.items()}


class _Samples(_Sink):
    """Samples of prometheus_client, added to `families`; `count` of them."""

    def __init__(self, labels: _Labels, families: dict[str, Metric]) -> None:
        self._labels = dict(zip(_REVISION, labels, strict=True))
        self._families = families
        self.count = 0

    def put(self, name: str, value: float, labels: _Labels) -> None:
        called, (text, names) = f"coalmine_{name}", _described(name)
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = Metric(called, text, "gauge")
        family.add_sample(called, self._labels | dict(zip(names, labels, strict=True)), value)
        self.count += 1


def _live(sink: _Sink, revision: RevisionMonitored, threshold: float) -> None:
    sink.add("baseline_loaded", revision.baseline.baseline is not None, revision.baseline.problem)
    if revision.watched is not None and revision.watched.columns:
        _watched(sink, revision.watched)
        sink.add("drift_alarm_threshold_log", threshold)


def _watched(sink: _Sink, watched: Watched) -> None:
    for column in watched.columns:
        sink.add("drift_log_e", column.log_e, column.kind, column.name)
        if column.run_length.windows:
            sink.add("drift_run_length_log", column.run_length.log_r, column.kind, column.name)
    for name, mean in (("log_e", watched.log_e_mean), ("run_length_log", watched.log_r_mean)):
        if mean is not None:
            sink.add(f"drift_{name}_mean", mean)


def _baseline(sink: _Sink, baseline: Baseline) -> None:
    sink.add("baseline_rows", baseline.rows)
    for name, column in baseline.features.items():
        _column(sink, "feature", name, column)
    for name, column in baseline.outputs.items():
        _column(sink, "output", name, column)
    for name, figure in (baseline.performance.metrics if baseline.performance else {}).items():
        sink.add("baseline_performance", figure.value, name)
        if figure.stddev is not None:
            sink.add("baseline_performance_stddev", figure.stddev, name)


def _column(sink: _Sink, kind: Kind, name: str, column: Column) -> None:
    parts = {"ratio": ratios(column)}
    if isinstance(column, Numeric):
        parts |= {"upto": upto(column), "width": widths(column)}
        sink.add(f"{kind}_baseline_mean", column.mean, name)
        sink.add(f"{kind}_baseline_stddev", column.stddev, name)
    for part, values in parts.items():
        for place, value in values.items():
            sink.add(f"{kind}_baseline_{part}", value, name, place)


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


def _head(name: str) -> bytes:
    return f"# HELP coalmine_{name} {_described(name)[0]}\n# TYPE coalmine_{name} gauge\n".encode()


def _pairs(names: Iterable[str], values: Iterable[str]) -> Iterator[str]:
    for name, value in zip(names, values, strict=True):
        escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        yield f'{name}="{escaped}"'
