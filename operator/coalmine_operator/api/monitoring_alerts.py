"""What each alert of `spec.monitoring` is told of: a rule that is not rendered for a model cannot be overridden."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from coalmine_sidecar.monitoring import Task

from .monitoring import AlertName, Monitoring
from .problems import show


class _Needs(Struct, frozen=True, kw_only=True):
    """`tasks`: empty: any. `feedback`, `slices`: whether there must be such parts."""

    tasks: tuple[Task, ...] = ()
    feedback: bool = False
    slices: bool = False


_CLASSES: Final = _Needs(tasks=("binary", "multiclass"), feedback=True)
_PROBABILITIES: Final = _Needs(tasks=("binary",), feedback=True)
#: All others are told of any model. tests/unit/test_monitoring_alerts.py holds them against the rules themselves.
_NEEDS: Final[Mapping[AlertName, _Needs]] = {
    "AccuracyDrop": _CLASSES,
    "PrecisionDrop": _CLASSES,
    "RecallDrop": _CLASSES,
    "F1Drop": _CLASSES,
    "AucDrop": _Needs(tasks=("binary", "ranking"), feedback=True),
    "EstimatedPerformanceDrop": _Needs(tasks=("binary",)),
    "ConceptDrift": _PROBABILITIES,
    "Miscalibrated": _PROBABILITIES,
    "ErrorRise": _Needs(tasks=("regression",), feedback=True),
    "DisparateImpact": _Needs(slices=True),
    "EqualizedOdds": _Needs(slices=True, feedback=True),
    "OutcomeDrop": _Needs(feedback=True),
    "FeedbackStalled": _Needs(feedback=True),
}
#: These need to know what is slow.
OF_LATENCY: Final[tuple[AlertName, ...]] = ("ModelLatencyP99", "ModelLatencyBudgetBurn")


def lacks(name: AlertName, monitoring: Monitoring) -> str:
    """Why an alert is never told of such a model, and what to do about it; empty: it is."""
    needs = _NEEDS.get(name, _Needs())
    if needs.tasks and monitoring.task not in needs.tasks:
        return f"{show(name)} is of task {' or '.join(needs.tasks)}, and this one is {monitoring.task}: leave it out"
    if needs.slices and not monitoring.slices:
        return f"{show(name)} compares groups: give spec.monitoring.slices"
    if needs.feedback and monitoring.feedback is None:
        return f"{show(name)} is by labels: give spec.monitoring.feedback"
    return ""
