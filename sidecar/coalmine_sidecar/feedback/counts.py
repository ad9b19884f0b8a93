"""What became of labels and outcomes, and of the predictions that wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..families import CounterMetricFamily, GaugeMetricFamily, Metric

#: What becomes of a label, or of a business outcome: exactly one of these. `late`: after the prediction's time was up;
#: `unknown`: no prediction has this id; `duplicate`, `contradictory`: its prediction has this label, or another one;
#: `mismatch`: not as many labels as rows; `malformed`: no label at all, or none of the two
#: classes (`labels.Truths`); `too_many`: in a post that is too long;
#: `retired`: its revision is not counted any more; `store_error`, `peer_error`: Redis, or the pod that knows the
#: prediction, did not answer; `busy`: a post that came while too many others were read. A post that is turned
#: away unread counts as one label.
OUTCOMES: Final = (
    "joined", "late", "unknown", "duplicate", "contradictory", "mismatch", "malformed", "too_many", "retired",
    "store_error", "peer_error", "busy",
)  # fmt: skip
#: Why a prediction can have no label any more, or never could. `evicted`: newer ones needed its place; `expired`: its
#: time was up; `repeated`: another one came under its id; `id`: none that can be kept; `queue`: Redis was too slow;
#: `no_store`: Redis' client or its address is missing.
LOSSES: Final = ("evicted", "expired", "repeated", "id", "queue", "no_store")


class FeedbackCounts:
    """`outcomes`: labels and outcomes by what became of them. `lost`: rows of predictions that can't be joined."""

    __slots__ = ("lost", "outcomes")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.lost = dict.fromkeys(LOSSES, 0)


def feedback_metrics(model: str, counts: FeedbackCounts, *, pending: int, held: int) -> Iterator[Metric]:
    """`pending`: rows kept here that wait for labels; `held`: labels that wait for their predictions."""
    outcomes = CounterMetricFamily(
        "coalmine_feedback",
        "Labels and outcomes by what became of them; a post that was turned away unread counts as one.",
        labels=("model", "outcome"),
    )
    for outcome, count in counts.outcomes.items():
        outcomes.add_metric((model, outcome), count)
    lost = CounterMetricFamily(
        "coalmine_feedback_lost", "Predicted rows that no label can join any more.", labels=("model", "reason")
    )
    for reason, count in counts.lost.items():
        lost.add_metric((model, reason), count)
    waiting = GaugeMetricFamily("coalmine_feedback_pending", "Predicted rows that wait for labels.", labels=("model",))
    waiting.add_metric((model,), pending)
    early = GaugeMetricFamily("coalmine_feedback_held", "Labels that wait for their prediction.", labels=("model",))
    early.add_metric((model,), held)
    yield from (outcomes, lost, waiting, early)
