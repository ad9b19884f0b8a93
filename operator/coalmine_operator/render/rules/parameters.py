"""What rules are made from: the few things that a ModelDeployment says about its monitoring, defaults filled in."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from coalmine_sidecar.monitoring import Task

from ...analysis import thresholds
from ...api.baseline import Baseline
from ...api.monitoring import Action, AlertName, Monitoring, Slice
from ...api.spec import ModelDeploymentSpec

Statistic = Literal["psi", "js", "hellinger", "ks", "wasserstein", "chi2"]

#: Warn and critical: what the industry takes for a moderate and for a large shift.
PSI: Final = (0.1, 0.2)


_CHUNK_ROWS: Final = 5000


class SliceRules(Struct, frozen=True, kw_only=True):
    """`favourable`: `1` the positive class, `0` the other one. `privileged`: empty: whichever group fares best."""

    attribute: str
    privileged: str = ""
    favourable: Literal["0", "1"] = "1"
    min_samples: int = 100


class Override(Struct, frozen=True, kw_only=True):
    """What a ModelDeployment says otherwise of an alert; None: as it was. `hold`: seconds before it fires."""

    threshold: float | None = None
    hold: float | None = None
    action: Action | None = None
    enabled: bool | None = None


class Parameters(Struct, frozen=True, kw_only=True):
    """`window`, `latency_budget`: seconds. `availability`, `latency_share`: shares of requests.

    `latency_budget` None: nobody said what is slow, and none is called so.

    `chunk_rows`: of the reference's chunks, whose spread of performance is the measure of what is normal.
    `baseline`: whether versions are to have one.
    """

    namespace: str
    deployment: str
    model: str
    task: Task = "binary"
    window: float = 3600.0
    statistic: Statistic = "psi"
    warn: float = PSI[0]
    critical: float = PSI[1]
    slices: tuple[SliceRules, ...] = ()
    baseline: bool = True
    feedback: bool = False
    expected_coverage: float = 0.3
    latency_budget: float | None = None
    latency_share: float = 0.99
    availability: float = 0.999
    chunk_rows: int = _CHUNK_ROWS
    defaults: bool = True
    overrides: dict[str, Override] = {}


def parameters_of(
    spec: ModelDeploymentSpec, name: str, namespace: str, baseline: Baseline | None = None
) -> Parameters | None:
    """None where nothing is monitored. `baseline`: of any version; what chunks its performance spreads over."""
    monitoring = spec.monitoring
    if monitoring is None:
        return None
    asked = thresholds(spec.analysis)
    performance = baseline.performance if baseline else None
    return Parameters(
        namespace=namespace,
        deployment=name,
        model=spec.model.name or name,
        task=monitoring.task,
        window=float(monitoring.drift.window),
        statistic=monitoring.drift.statistic,
        warn=monitoring.drift.warn,
        critical=monitoring.drift.critical,
        slices=tuple(_slice(one, monitoring) for one in monitoring.slices),
        baseline=monitoring.baseline is not None,
        feedback=monitoring.feedback is not None,
        expected_coverage=monitoring.feedback.expected_coverage if monitoring.feedback else 0.0,
        latency_budget=asked[-1] if asked else _threshold(monitoring, "ModelLatencyP99"),
        chunk_rows=performance.chunk_rows if performance else _CHUNK_ROWS,
        defaults=monitoring.alerts.defaults,
        overrides={
            one.name: Override(
                threshold=one.threshold,
                hold=None if one.for_ is None else float(one.for_),
                action=one.action,
                enabled=one.enabled,
            )
            for one in monitoring.alerts.overrides
        },
    )


def _threshold(monitoring: Monitoring, alert: AlertName) -> float | None:
    return next((one.threshold for one in monitoring.alerts.overrides if one.name == alert), None)


def _slice(one: Slice, monitoring: Monitoring) -> SliceRules:
    """Sidecars count the positive class as 1 and all others as 0, whatever their names.

    1, which is the default, means the positive class unless that one is called 0.
    """
    name = monitoring.prediction.positive
    positive = one.favourable == name or (one.favourable == "1" and name != "0")
    return SliceRules(
        attribute=one.attribute,
        privileged=one.privileged,
        favourable="1" if positive else "0",
        min_samples=one.min_samples,
    )
