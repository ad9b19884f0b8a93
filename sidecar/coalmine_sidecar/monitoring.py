"""The contract's part about predictions: what a routing file asks a sidecar to record of them, and what it tells of it.

Like `contract`, of which it is a part: the operator knows both, and nothing else of what the sidecar does. What a
baseline's file says (counts, reference performance) stays with the operator; a sidecar gets the bins that it counts in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

#: `ranking`: a score without a probability's meaning; `text`: language models.
Task = Literal["binary", "multiclass", "regression", "ranking", "text"]
FeatureType = Literal["numeric", "categorical"]

MAX_FEATURES: Final = 200
MAX_SLICES: Final = 8
#: Groups of a slice that are counted by name; all others share `_other`.
MAX_GROUPS: Final = 20
#: Bins of a feature, categories included, and of a score.
MAX_BINS: Final = 64
MAX_SCORE_BINS: Final = 200
#: Bins of the scores that have no baseline: hundredths.
DEFAULT_SCORE_EDGES: Final = tuple(i / 100 for i in range(1, 100))
#: Series of a revision, at most: of a feature without bins, of a slice (two of predictions and four of labels for each
#: group, and for the two that rows share that have none of these), and of all that is neither these nor in bins.
FEATURE_SERIES: Final = 4
SLICE_SERIES: Final = (MAX_GROUPS + 2) * 6
OTHER_SERIES: Final = 80
#: Labelled rows by their bin of the score: both classes, as they come and added up.
LABELLED_SERIES: Final = 4
#: Labels of the bins that are no interval and no category.
MISSING: Final = "missing"
UNSEEN: Final = "unseen"
#: From it on floats skip whole numbers.
_EXACT: Final = 2**53

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Path = Annotated[str, Meta(max_length=512)]
Cuts = Annotated[tuple[float, ...], Meta(max_length=MAX_BINS)]


class _Part(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """What all parts share."""


class Feature(_Part, frozen=True):
    """A value of each row of a request.

    `path`: a JSON path from the request's document (`$.instances[*].age`), or the column's name as its protocol has it
    (a tensor, a key of an instance; `NAME[3]` the fourth column of one); empty: a column called `name`.
    """

    name: Name
    path: Path = ""
    type: FeatureType = "numeric"


class Bins(_Part, frozen=True):
    """Frozen bins. `edges` ascend: below the first, between, at or above the last; or `categories`, one bin each.

    `center`: the baseline's mean, about which deviations are added up: sums of squares about 0 lose their digits.
    """

    edges: Cuts = ()
    categories: Annotated[tuple[str, ...], Meta(max_length=MAX_BINS)] = ()
    center: float = 0.0


class ScoreBins(_Part, frozen=True):
    """Bins of a binary model's score: `edges` ascend; `calibration` is the probability of the positive class in each.

    `calibration` has one entry more than `edges`; empty: none is known, and nothing is estimated without labels.
    """

    edges: Annotated[tuple[float, ...], Meta(max_length=MAX_SCORE_BINS)] = DEFAULT_SCORE_EDGES
    calibration: Annotated[tuple[Annotated[float, Meta(ge=0, le=1)], ...], Meta(max_length=MAX_SCORE_BINS + 1)] = ()


class Baseline(_Part, frozen=True):
    """Of one revision. `digest` names the file it came from: counts of different digests are never added."""

    digest: Annotated[str, Meta(min_length=1, max_length=128)]
    features: dict[str, Bins] = {}
    outputs: dict[str, Bins] = {}
    score: ScoreBins = ScoreBins()


class Prediction(_Part, frozen=True):
    """Which values of an answer are the prediction: columns or JSON paths, as `Feature.path`.

    `score`: the probability of the class `positive`, or a regression's number; empty: the answer's first number.
    `label`: the class that the model chose; empty: `score` >= `threshold`, or, without a score, the first label.
    `positive`: equal numbers are one class, so are true and 1, false and 0. Where it is one of 1 and 0, yes and no,
    positive and negative, a label is one of these two or refused; where it is another name, all others are negative.
    """

    score: Path = ""
    label: Path = ""
    threshold: float = 0.5
    positive: Annotated[str, Meta(max_length=64)] = "1"


class Output(_Part, frozen=True):
    """An output of a plain JSON answer by its path; outputs of known protocols are found without."""

    name: Name
    path: Path


class Slice(_Part, frozen=True):
    """Groups of rows, by a value of the request (`path` as in Feature) or by a header: exactly one of them.

    `privileged`: a group that is counted by name however many others come before it.
    """

    attribute: Name
    path: Path = ""
    header: Annotated[str, Meta(max_length=128)] = ""
    privileged: Annotated[str, Meta(max_length=128)] = ""


class PredictionId(_Part, frozen=True):
    """A request header that names a prediction; `generate`: who brings none gets one in the answer's header."""

    header: Annotated[str, Meta(min_length=1, max_length=128)] = "x-prediction-id"
    generate: bool = True


class Feedback(_Part, frozen=True):
    """`POST path` on the ingress port takes labels and outcomes of predictions. `ttl` seconds.

    `max_pending`: rows that wait for their label in a sidecar's memory. `redis`: `redis://HOST:PORT/DB`, without a
    password (the sidecar has that from its environment); empty: predictions are kept in memory.
    """

    path: Annotated[str, Meta(min_length=1, max_length=256, pattern="^/")] = "/feedback"
    ttl: Annotated[float, Meta(gt=0)] = 7 * 86400.0
    max_pending: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    redis: Annotated[str, Meta(max_length=512)] = ""


class PayloadLog(_Part, frozen=True):
    """Requests and answers as they were, of `percent` of the requests, to `url` (CloudEvents) or `file`.

    `file`: JSON lines, or Parquet where its name ends in .parquet. `redact`: JSON paths whose values are replaced.
    `max_bytes`: a longer body is cut, and said to be.
    """

    percent: Annotated[float, Meta(gt=0, le=100)]
    url: Annotated[str, Meta(max_length=1024)] = ""
    file: Annotated[str, Meta(max_length=1024)] = ""
    redact: Annotated[tuple[Path, ...], Meta(max_length=64)] = ()
    max_bytes: Annotated[int, Meta(ge=0, le=16 << 20)] = 65536


class Monitoring(_Part, frozen=True):
    """What to record of predictions. `baselines` by the names of revisions; `slices` need a prediction.

    `max_series`: of one revision; what has no room is left out and counted.
    """

    task: Task = "binary"
    prediction: Prediction = Prediction()
    prediction_id: PredictionId = PredictionId()
    outputs: Annotated[tuple[Output, ...], Meta(max_length=8)] = ()
    features: Annotated[tuple[Feature, ...], Meta(max_length=MAX_FEATURES)] = ()
    slices: Annotated[tuple[Slice, ...], Meta(max_length=MAX_SLICES)] = ()
    feedback: Feedback | None = None
    payload_log: PayloadLog | None = None
    max_series: Annotated[int, Meta(ge=1, le=100_000)] = 3000
    baselines: dict[str, Baseline] = {}


def bin_names(edges: Sequence[float]) -> list[str]:
    """Label values of the bins: half-open intervals, the outer ones included."""
    if not edges:
        return ["(-Inf,+Inf)"]
    inner = [f"[{low!r},{high!r})" for low, high in itertools.pairwise(edges)]
    return [f"(-Inf,{edges[0]!r})", *inner, f"[{edges[-1]!r},+Inf)"]


def category(value: float | int | bool | str) -> str:
    """The name of a category as bins have it."""
    if isinstance(value, str):
        return value
    text = text_of(value)
    return "_other" if text is None else text


def text_of(value: float | int | bool) -> str | None:
    """How classes and categories are called: 1, 1.0 and "1" are one, since JSON's writers do not agree on them.

    None: a whole number so large that a reader of JSON may have made another one of it.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not (value.is_integer() and abs(value) < _EXACT):
        return str(value)
    return str(int(value)) if -_EXACT < value < _EXACT else None


def problems(monitoring: Monitoring) -> Iterator[str]:
    """What no single field can say, a line each."""
    for revision, baseline in monitoring.baselines.items():
        where = f"monitoring.baselines.{revision}"
        named = itertools.chain(baseline.features.items(), baseline.outputs.items())
        cuts = [*((name, bins.edges) for name, bins in named), ("score", baseline.score.edges)]
        for name, edges in cuts:
            if not all(map(math.isfinite, edges)) or any(a >= b for a, b in itertools.pairwise(edges)):
                yield f"{where}.{name}: edges must be finite and ascend"
        calibration = baseline.score.calibration
        if calibration and len(calibration) != len(baseline.score.edges) + 1:
            yield f"{where}.score: {len(calibration)} calibrations for {len(baseline.score.edges) + 1} bins"
    for one in monitoring.slices:
        if bool(one.path) == bool(one.header):
            yield f"monitoring.slices.{one.attribute}: give a path or a header, one of them"


class BinCounts(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Rows by bin since the sidecar's start. `missing`: absent, null and non-finite; `unseen`: of another type, or a
    category that the baseline has not."""

    bins: list[int] = []
    missing: int = 0
    unseen: int = 0


class Monitored(Struct, kw_only=True, rename="camel", omit_defaults=True):
    """What a sidecar counted of one revision's predictions, in the bins of the baseline with this digest."""

    digest: str = ""
    features: dict[str, BinCounts] = {}
    outputs: dict[str, BinCounts] = {}
