"""`spec.monitoring`: what is recorded of predictions, what they are compared with, and what is told of it.

Paths read values: a JSON path from the document's top (`$.instances[*].age`), or a column's name as its protocol has
it; `coalmine_sidecar.monitoring` says it of each. Rules over several fields are in `monitoring_rules`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, field

from coalmine_sidecar.monitoring import MAX_FEATURES, MAX_SLICES, FeatureType, Task

from .duration import Duration
from .parts import FileName, SecretName, SpecPart

#: What the rules that are rendered for a model deployment can tell.
AlertName = Literal[
    "ModelUnavailable",
    "ModelErrorBudgetBurn",
    "ModelErrorBudgetSlowBurn",
    "ModelLatencyBudgetBurn",
    "ModelLatencyP99",
    "ModelThroughputDrop",
    "ModelMemoryPressure",
    "ModelThrottled",
    "FeatureIncomplete",
    "FeatureUnseen",
    "FeatureDrift",
    "DatasetDrift",
    "OutputDrift",
    "DriftAnytimeValid",
    "OutputVarianceChange",
    "AccuracyDrop",
    "PrecisionDrop",
    "RecallDrop",
    "F1Drop",
    "AucDrop",
    "ErrorRise",
    "EstimatedPerformanceDrop",
    "ConceptDrift",
    "Miscalibrated",
    "DisparateImpact",
    "EqualizedOdds",
    "OutcomeDrop",
    "FeedbackStalled",
    "MonitoringBlind",
]
#: What an alert does to a rollout: nothing, hold it, let the fallback answer, or roll it back.
Action = Literal["none", "hold", "fallback", "rollback"]

#: The name of the verdict on a canary's baseline.
BASELINE: Final = "baseline"
MAX_OUTPUTS: Final = 8
MAX_OVERRIDES: Final = 32

Label = Annotated[str, Meta(min_length=1, max_length=128)]
Path = Annotated[str, Meta(max_length=512)]
Key = Annotated[
    str,
    Meta(min_length=1, max_length=253, pattern="^[-._a-zA-Z0-9]+$", description="letters, digits, -, _ and ."),
]
Digest = Annotated[
    str,
    Meta(
        max_length=71,
        pattern="^(sha256:[0-9a-f]{64})?$",
        description="sha256: and 64 digits from 0 to f, as sha256sum prints them",
    ),
]


class PredictionId(SpecPart, frozen=True):
    """A request header that names a prediction; `generate`: who brings none gets one in the answer's header."""

    header: Annotated[str, Meta(min_length=1, max_length=128)] = "x-prediction-id"
    generate: bool = True


class Prediction(SpecPart, frozen=True):
    """Which values of an answer are the prediction.

    `score`: the probability of the class `positive`, or a regression's number; empty: the answer's first number.
    `label`: the class that the model chose; empty: `score` >= `threshold`, or, without a score, the first label.
    `positive`: equal numbers are one class, so are true and 1, false and 0. Where it is one of 1 and 0, yes and no,
    positive and negative, a label is one of these two or refused; where it is another name, all others are negative.
    """

    score: Path = ""
    label: Path = ""
    threshold: float = 0.5
    positive: Annotated[str, Meta(min_length=1, max_length=64)] = "1"


class Output(SpecPart, frozen=True):
    """An output of a plain JSON answer; outputs of known protocols are found without."""

    name: Label
    path: Annotated[Path, Meta(min_length=1)]


class Feature(SpecPart, frozen=True):
    """A value of each row of a request. `path` is empty where the column is called `name`."""

    name: Label
    path: Path = ""
    type: FeatureType = "numeric"


class BaselineRef(SpecPart, frozen=True):
    """Where a baseline's file is: a key of a ConfigMap in the same namespace, or a path from the manifest's folder.

    `digest`: the file that is meant, and no other; empty: whatever is there. `min_samples`: rows that it needs so that
    drift is judged by it with the promised share of false alarms.
    """

    config_map: SecretName = ""
    key: Key = "baseline.json"
    file: FileName = ""
    digest: Digest = ""
    min_samples: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 5000


class SecretKey(SpecPart, frozen=True):
    """A key of a Secret in the same namespace."""

    name: Annotated[SecretName, Meta(min_length=1)]
    key: Key = "password"


class Redis(SpecPart, frozen=True):
    """`redis://HOST:PORT/DB`, without a password: a spec is no secret."""

    url: Annotated[str, Meta(min_length=1, max_length=512)]
    password_secret: SecretKey | None = None


class Feedback(SpecPart, frozen=True):
    """`POST path` on the ingress port takes labels and outcomes of predictions that are not older than `ttl`.

    `max_pending`: rows that wait for their label in a sidecar's memory. `expected_coverage`: the share of predictions
    that get a label; much fewer is an alert.
    """

    path: Annotated[str, Meta(min_length=1, max_length=256)] = "/feedback"
    ttl: Duration = Duration(7 * 86400)
    max_pending: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    expected_coverage: Annotated[float, Meta(ge=0, le=1)] = 0.3
    redis: Redis | None = None


class Slice(SpecPart, frozen=True):
    """Groups of rows, by a value of the request or by a header: exactly one of `path` and `header`.

    `privileged`: the group that others are compared with; empty: the one that does best. `favourable`: the predicted
    class that people want. `min_samples`: rows of a group below which nothing is said of it.
    """

    attribute: Label
    path: Path = ""
    header: Annotated[str, Meta(max_length=128)] = ""
    privileged: Annotated[str, Meta(max_length=128)] = ""
    favourable: Annotated[str, Meta(min_length=1, max_length=64)] = "1"
    min_samples: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 100


class Drift(SpecPart, frozen=True):
    """How live data is compared with the baseline.

    `statistic` over `window` raises an alert above `warn` and a worse one above `critical`. `average_run_length`: how
    long it takes on average until the anytime-valid alert fires though nothing drifts.
    """

    statistic: Literal["psi", "js", "hellinger", "ks", "wasserstein", "chi2"] = "psi"
    warn: Annotated[float, Meta(gt=0)] = 0.1
    critical: Annotated[float, Meta(gt=0)] = 0.2
    window: Duration = Duration(3600)
    average_run_length: Duration = Duration(30 * 86400)


class AlertOverride(SpecPart, frozen=True):
    """Changes one alert; what is left out stays as it is by default. `for_`: how long its condition has to hold.

    `enabled`: false turns it off.
    """

    name: AlertName
    threshold: Annotated[float, Meta(ge=0)] | None = None
    for_: Duration | None = field(default=None, name="for")
    action: Action | None = None
    enabled: bool | None = None


class Alerts(SpecPart, frozen=True):
    """`defaults`: all that apply to what is monitored; otherwise only those that `overrides` name."""

    defaults: bool = True
    overrides: Annotated[tuple[AlertOverride, ...], Meta(max_length=MAX_OVERRIDES)] = ()


class PayloadLog(SpecPart, frozen=True):
    """Requests and answers as they were, of `percent` of the requests: to `url` or to `file`, one of them.

    `file`: a path from the manifest's folder, for JSON lines, or for Parquet where it ends in .parquet. `redact`: JSON
    paths whose values are replaced. `max_bytes`: a longer body is cut.
    """

    percent: Annotated[float, Meta(gt=0, le=100)] = 1.0
    url: Annotated[str, Meta(max_length=1024)] = ""
    file: FileName = ""
    redact: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=512)], ...], Meta(max_length=64)] = ()
    max_bytes: Annotated[int, Meta(ge=0, le=16 << 20)] = 65536


class Monitoring(SpecPart, frozen=True):
    """`max_series`: of one revision in one sidecar; what has no room is left out and counted."""

    task: Task = "binary"
    prediction_id: PredictionId = PredictionId()
    prediction: Prediction = Prediction()
    outputs: Annotated[tuple[Output, ...], Meta(max_length=MAX_OUTPUTS)] = ()
    features: Annotated[tuple[Feature, ...], Meta(max_length=MAX_FEATURES)] = ()
    baseline: BaselineRef | None = None
    feedback: Feedback | None = None
    slices: Annotated[tuple[Slice, ...], Meta(max_length=MAX_SLICES)] = ()
    drift: Drift = Drift()
    alerts: Alerts = Alerts()
    payload_log: PayloadLog | None = None
    max_series: Annotated[int, Meta(ge=1, le=100_000)] = 3000
