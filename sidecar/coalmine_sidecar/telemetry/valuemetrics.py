"""Features, and what baselines add to outputs, as metric families."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from ..families import CounterMetricFamily, Metric
from ..monitoring import MISSING, UNSEEN, bin_names
from .features import FeatureCounter
from .moments import Moments
from .outputs import OutputCounter

_Labels = tuple[str, ...]


def feature_metrics(names: _Labels, counted: Sequence[tuple[_Labels, FeatureCounter]]) -> Iterator[Metric]:
    """`names` are the labels that come first, with their values beside each feature's counter."""
    if not counted:
        return
    bins = CounterMetricFamily(
        "coalmine_feature_bin",
        "Values of a feature in each bin of its baseline (not cumulative); unseen: of another type or category.",
        labels=(*names, "feature", "bin"),
    )
    values = _Values("feature", names)
    for labels, feature in counted:
        named = (*labels, feature.name)
        places = bin_names(feature.edges) if feature.edges else feature.categories
        for name, count in zip(places, feature.bins, strict=True):
            bins.add_metric((*named, name), count)
        bins.add_metric((*named, MISSING), feature.missing)
        bins.add_metric((*named, UNSEEN), feature.unseen)
        values.add(named, feature.edges, feature.bins, feature.values, feature.nonfinite, feature.moments)
    yield bins
    yield from values


def output_metrics(names: _Labels, counted: Sequence[tuple[_Labels, OutputCounter]]) -> Iterator[Metric]:
    """What `coalmine_output_bin` does not say of the outputs that have a baseline."""
    told = [(labels, output) for labels, output in counted if output.moments is not None]
    if not told:
        return
    values = _Values("output", names)
    for labels, output in told:
        values.add((*labels, output.name), output.edges, output.bins, output.values, output.nonfinite, output.moments)
    yield from values


class _Values:
    """The families of all features, or of all outputs."""

    def __init__(self, kind: str, names: _Labels) -> None:
        def family(name: str, text: str, *labels: str) -> CounterMetricFamily:
            return CounterMetricFamily(f"coalmine_{kind}_{name}", text, labels=(*names, kind, *labels))

        self._upto = family("upto", "Values in this bin or a lower one: PromQL cannot add up bins.", "bin")
        self._values = family("values", "Rows looked at, those without a value included.")
        self._nonfinite = family(
            "nonfinite", "Numbers that are not finite, or a feature beyond 1e150; they count as missing, too."
        )
        self._deviation = family("deviation", "Sums of the distances from the baseline's mean.", "sign")
        self._squared = family("squared_deviation", "Sum of the squared distances from the baseline's mean.")

    def __iter__(self) -> Iterator[Metric]:
        return iter((self._upto, self._values, self._nonfinite, self._deviation, self._squared))

    def add(
        self,
        labels: _Labels,
        edges: tuple[float, ...],
        bins: Sequence[int],
        values: int,
        nonfinite: int,
        moments: Moments | None,
    ) -> None:
        self._values.add_metric(labels, values)
        self._nonfinite.add_metric(labels, nonfinite)
        if edges and bins:
            for name, count in zip(bin_names(edges), accumulate(bins), strict=True):
                self._upto.add_metric((*labels, name), count)
        if moments is not None:
            self._deviation.add_metric((*labels, "above"), moments.above)
            self._deviation.add_metric((*labels, "below"), moments.below)
            self._squared.add_metric(labels, moments.squared)
