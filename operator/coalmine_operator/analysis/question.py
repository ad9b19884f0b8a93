"""A metric as a question to the counts, and what stands between counts and verdict."""

from __future__ import annotations

from typing import Any, Final, Protocol

from msgspec import Struct

from coalmine_sidecar.contract import EpochCounts

from ..api.duration import Duration
from ..api.spec import Metric

#: No metric fails, and nothing is compared with stable, on fewer requests.
HANDFUL: Final = 10
#: Seconds that `latency` forgives after the canary is ready: models warm up.
LATENCY_DELAY: Final = 120.0


class Looked(Struct, frozen=True, kw_only=True):
    """One epoch's counts, summed over pods.

    `weight`: the canary's nominal share in it, per cent; `age`: seconds from the canary being ready to its begin.
    """

    canary: EpochCounts
    stable: EpochCounts
    weight: int
    age: float


class Need(Struct, frozen=True, kw_only=True):
    """What it takes: log E of at least `log_threshold` to fail, `min_requests` of the canary to pass."""

    log_threshold: float
    min_requests: int


class Judged(Struct, frozen=True, kw_only=True):
    """`failing`: why the canary fails, or empty. `lacking`: why there is too little to pass it, or empty."""

    failing: str = ""
    lacking: str = ""


class Tally(Protocol):
    """The evidence on one metric so far: plain data, kept in the status between epochs."""

    @property
    def log_e(self) -> float: ...

    def take(self, metric: Metric, looked: Looked) -> Tally | str:
        """The evidence with an epoch added, or the reason why the epoch can't be counted."""
        ...

    def judge(self, metric: Metric, need: Need) -> Judged: ...

    def evidence(self, metric: Metric) -> dict[str, Any]:
        """For people: plain numbers, rounded."""
        ...


def seconds(metric: Metric) -> float | None:
    """The latency that `metric` asks about; None where it names none. Raises ValueError like Duration."""
    if metric.preset != "latency" or metric.threshold is None:
        return None
    return Duration.parse(metric.threshold) if isinstance(metric.threshold, str) else float(metric.threshold)


def number(metric: Metric, default: float) -> float:
    """The threshold of a preset other than latency. Raises ValueError where it is no number."""
    return default if metric.threshold is None else float(metric.threshold)


def initial_delay(metric: Metric) -> float:
    """Seconds after the canary is ready; an epoch that began earlier does not count."""
    if metric.initial_delay is not None:
        return metric.initial_delay
    return LATENCY_DELAY if metric.preset == "latency" else 0.0


def about(metric: Metric) -> str:
    """Names the question. Evidence on another one, from before the spec was edited, does not count for this."""
    parts = (
        metric.preset,
        seconds(metric),
        metric.output,
        metric.against if metric.preset == "outputDrift" else None,
        metric.tolerance,
    )
    return " ".join(str(part) for part in parts if part is not None)


def uncomparable(looked: Looked) -> str:
    """Why an epoch has nobody to compare with, or empty."""
    if looked.weight <= 0:
        return "NoTraffic"
    return "NoStableTraffic" if looked.weight >= 100 else ""
