"""What is counted of one revision's requests and predictions, within a budget of series."""

from __future__ import annotations

from typing import Final

from ..monitoring import LABELLED_SERIES, OTHER_SERIES, SLICE_SERIES, Baseline, Monitored, Monitoring, ScoreBins
from ..protocols.wanted import REQUEST_FAILURES
from .features import FeatureCounter
from .outputs import OutputSet
from .performance import PerformanceCounters

#: Why the values of a request, or the prediction in its answer, were not read. `size`: the body was too long to be
#: kept; `rows_differ`: the answer has other rows than the request; `no_prediction`: no score and no label in it.
READ_FAILURES: Final = (*REQUEST_FAILURES, "size", "encoding", "rows_differ", "no_prediction")


class Watched:
    """Counters of one revision. `features` are those of the routing file for which there is room.

    `series`: how many series these may become; `left_out`: features and slices that `max_series` has no room for.
    """

    __slots__ = (
        "_baseline", "_monitoring", "digest", "features", "left_out", "limit", "performance", "read_failures", "series",
    )  # fmt: skip

    def __init__(self, monitoring: Monitoring, baseline: Baseline | None) -> None:
        self._monitoring = monitoring
        self._baseline = baseline
        self.digest = baseline.digest if baseline is not None else ""
        self.limit = monitoring.max_series
        self.read_failures: dict[str, int] = dict.fromkeys(READ_FAILURES, 0)
        self.performance = PerformanceCounters(monitoring, *_score(monitoring, baseline))
        self.series = _series_of(self.performance, monitoring)
        self.left_out = {"features": 0, "slices": 0}
        for _ in monitoring.slices:
            if self.series + SLICE_SERIES > self.limit:
                self.left_out["slices"] += 1
            else:
                self.series += SLICE_SERIES
        if self.left_out["slices"]:
            kept = self.performance.slices.attributes[: len(monitoring.slices) - self.left_out["slices"]]
            self.performance.slices.attributes = kept
            del self.performance.slices.groups[len(kept) :]
        self.features: dict[str, FeatureCounter] = {}
        for feature in monitoring.features:
            bins = baseline.features.get(feature.name) if baseline is not None else None
            counter = FeatureCounter(feature, bins)
            if self.series + counter.size > self.limit:
                self.left_out["features"] += 1
            else:
                self.features[feature.name] = counter
                self.series += counter.size

    def counts_as(self, monitoring: Monitoring, baseline: Baseline | None) -> bool:
        """Whether the counters go on under another routing file: it asks for the same things in the same bins."""
        old, new = self._monitoring, monitoring
        return (
            self._baseline == baseline
            and old.features == new.features
            and old.slices == new.slices
            and (old.task, old.prediction, old.max_series) == (new.task, new.prediction, new.max_series)
            and (old.feedback is None) == (new.feedback is None)
        )

    def counts(self, outputs: OutputSet) -> Monitored:
        """A copy for the snapshot; of `outputs` those that have a baseline."""
        names = self._baseline.outputs if self._baseline is not None else {}
        return Monitored(
            digest=self.digest,
            features={name: counter.counts() for name, counter in self.features.items()},
            outputs={
                name: outputs.by_name[name].in_bins(bins.categories)
                for name, bins in names.items()
                if name in outputs.by_name
            },
        )


def _score(monitoring: Monitoring, baseline: Baseline | None) -> tuple[ScoreBins, float]:
    """The bins of the score, and the centre of a regression's truth, which is its predictions' as well."""
    if baseline is None:
        return ScoreBins(), 0.0
    bins = next(iter(baseline.outputs.values()), None) if monitoring.task == "regression" else None
    return baseline.score, bins.center if bins is not None else 0.0


def _series_of(performance: PerformanceCounters, monitoring: Monitoring) -> int:
    bins = len(performance.edges) + 1
    estimated = 3 * bins if performance.seen else 0
    labelled = LABELLED_SERIES * bins if performance.truths and monitoring.feedback is not None else 0
    return estimated + labelled + OTHER_SERIES
