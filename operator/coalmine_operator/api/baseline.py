"""A baseline: what a model's features, outputs and performance were on data that it is trusted with.

One JSON file a model version, written by `coalmine baseline build` and named by the digest of its bytes. Live data is
counted in its bins and compared with its counts; bins and counts never change once the file is written.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from coalmine_sidecar import monitoring
from coalmine_sidecar.monitoring import MISSING, UNSEEN, Task, bin_names

from .baseline_figures import wrong_counts, wrong_head, wrong_labelled, wrong_moments, wrong_name
from .problems import key_path, show

SCHEMA: Final = 1
#: A longer file is no baseline: 200 features of 64 bins are half a megabyte.
MAX_BYTES: Final = 8 << 20
_PREFIX: Final = "sha256:"

Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Counts = Annotated[tuple[Count, ...], Meta(max_length=monitoring.MAX_BINS + 1)]
ScoreCounts = Annotated[tuple[Count, ...], Meta(max_length=monitoring.MAX_SCORE_BINS + 1)]
Text = Annotated[str, Meta(max_length=512)]


class _Part(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What all parts share."""


class Numeric(_Part, frozen=True, kw_only=True, tag_field="type", tag="numeric"):
    """A column of numbers. `counts` has one entry more than `edges`: below the first, between, at or above the last.

    `missing`: rows without a finite number; `unseen`: rows whose value is no number. `mean` and `stddev` (of the
    sample: n - 1), `min` and `max` are of the finite numbers.
    """

    edges: Annotated[monitoring.Cuts, Meta(min_length=1)]
    counts: Counts
    missing: Count = 0
    unseen: Count = 0
    mean: float
    stddev: Annotated[float, Meta(ge=0)]
    min: float
    max: float


class Categorical(_Part, frozen=True, kw_only=True, tag_field="type", tag="categorical"):
    """A column of names, one count each; `unseen`: rows of names that have no bin of their own."""

    categories: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=monitoring.MAX_BINS)]
    counts: Counts
    missing: Count = 0
    unseen: Count = 0


Column = Numeric | Categorical


class Score(_Part, frozen=True, kw_only=True):
    """Of a binary model: rows with a label and their positives, by bins of the score.

    `calibration`: the probability of the class `positive` in each bin, never falling (isotonic regression).
    """

    threshold: float
    positive: Annotated[str, Meta(max_length=64)]
    edges: Annotated[tuple[float, ...], Meta(min_length=1, max_length=monitoring.MAX_SCORE_BINS)]
    calibration: Annotated[tuple[Share, ...], Meta(max_length=monitoring.MAX_SCORE_BINS + 1)]
    counts: ScoreCounts
    positives: ScoreCounts


class Figure(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """One metric: over all rows, and its mean and deviation (n - 1) over chunks; None where there are too few."""

    value: float
    mean: float | None = None
    stddev: Annotated[float, Meta(ge=0)] | None = None


class Performance(_Part, frozen=True, kw_only=True):
    """By the metrics' names (`auc`, `recall`, …); what is estimated without labels ends in `_estimated`."""

    chunk_rows: Annotated[int, Meta(ge=1)]
    metrics: Annotated[dict[str, Figure], Meta(max_length=128)] = {}


class Baseline(_Part, frozen=True, kw_only=True, omit_defaults=True):
    """The file. `model` and `version` are whose baseline it is; `created_at` is RFC 3339, for people."""

    schema: Literal[1]
    model: Annotated[str, Meta(min_length=1, max_length=253)]
    version: Annotated[str, Meta(min_length=1, max_length=253)]
    task: Task
    rows: Count
    created_at: Text = ""
    source: Text = ""
    features: Annotated[dict[monitoring.Name, Column], Meta(max_length=monitoring.MAX_FEATURES)] = {}
    outputs: Annotated[dict[monitoring.Name, Column], Meta(max_length=8)] = {}
    score: Score | None = None
    performance: Performance | None = None


#: Keys whose own keys have a line each.
_BY_LINE: Final = ("features", "outputs", "performance", "metrics")
#: The mappings of a file, and what they are.
_MAPPINGS: Final[tuple[tuple[str, Any], ...]] = (
    ("features", dict[monitoring.Name, Column]),
    ("outputs", dict[monitoring.Name, Column]),
    ("performance.metrics", dict[str, Figure]),
)


def digest_of(data: bytes) -> str:
    """`sha256:` and the hexadecimal digest of a file's bytes."""
    return _PREFIX + hashlib.sha256(data).hexdigest()


def encode_baseline(baseline: Baseline) -> bytes:
    """The file's bytes, a line for each column; the same for the same baseline. NaN has no JSON: give none."""
    return _lines(msgspec.to_builtins(baseline), _BY_LINE) + b"\n"


def decode_baseline(data: bytes, *, digest: str = "") -> Baseline:
    """What `encode_baseline` wrote. Raises ValueError with one line that says where and what.

    `digest`: the file is only taken if it has this one; empty: any.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"baseline: {len(data)} bytes, and a baseline has at most {MAX_BYTES}")
    if digest and (found := digest_of(data)) != digest:
        raise ValueError(f"baseline: the digest is {found}, not {digest}: another file, or it was changed since")
    try:
        baseline = msgspec.json.decode(data, type=Baseline)
    except msgspec.ValidationError as error:
        raise ValueError(_wrong_type(data, error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"baseline: is no JSON: {' '.join(str(error).split())}") from error
    for problem in _problems(baseline):
        raise ValueError(problem)
    return baseline


def for_sidecar(baseline: Baseline, digest: str) -> monitoring.Baseline:
    """What a sidecar needs of it: bins, centres and calibration, no counts."""
    score = monitoring.ScoreBins()
    if baseline.score:
        score = monitoring.ScoreBins(edges=baseline.score.edges, calibration=baseline.score.calibration)
    return monitoring.Baseline(
        digest=digest,
        features={name: _bins(column) for name, column in baseline.features.items()},
        outputs={name: _bins(column) for name, column in baseline.outputs.items()},
        score=score,
    )


def labels(column: Column) -> list[str]:
    """The `bin` labels of a column's counts in their order, without `missing` and `unseen`."""
    return bin_names(column.edges) if isinstance(column, Numeric) else list(column.categories)


def ratios(column: Column) -> dict[str, float]:
    """Frequencies by `bin` label, `missing` and `unseen` included; they sum to 1.

    Half a row is added to each (Jeffreys' prior), so that none is 0 and a logarithm exists everywhere.
    """
    counts = dict(zip(labels(column), column.counts, strict=True)) | {MISSING: column.missing, UNSEEN: column.unseen}
    total = sum(counts.values()) + len(counts) / 2
    return {name: (count + 0.5) / total for name, count in counts.items()}


def upto(column: Numeric) -> dict[str, float]:
    """The share of the numbers in this bin or a lower one, by `bin` label; missing and unseen rows are not in it."""
    total = sum(column.counts) or 1
    return {name: n / total for name, n in zip(labels(column), itertools.accumulate(column.counts), strict=True)}


def widths(column: Numeric) -> dict[str, float]:
    """Widths of the inner bins by `bin` label, in the column's own unit; the outer ones have none."""
    inner = (high - low for low, high in itertools.pairwise(column.edges))
    return dict(zip(labels(column)[1:-1], inner, strict=True))


def _lines(document: dict[str, Any], by_line: tuple[str, ...], indent: bytes = b" ") -> bytes:
    """JSON with a line for each key, and for each key of those in `by_line`."""
    written = []
    for key, value in document.items():
        if key in by_line and isinstance(value, dict) and value:
            # A column may have any name, so only the file's own keys are looked at.
            inner = _lines(value, _BY_LINE if key == "performance" else (), indent + b" ")
        else:
            inner = msgspec.json.encode(value)
        written.append(indent + msgspec.json.encode(key) + b": " + inner)
    return b"{\n" + b",\n".join(written) + b"\n" + indent[1:] + b"}"


def _bins(column: Column) -> monitoring.Bins:
    if isinstance(column, Numeric):
        return monitoring.Bins(edges=column.edges, center=column.mean)
    return monitoring.Bins(categories=column.categories)


def _problems(baseline: Baseline) -> Iterator[str]:
    """What no single field's type can say."""
    yield from wrong_head(baseline)
    for part, columns in (("features", baseline.features), ("outputs", baseline.outputs)):
        for name, column in columns.items():
            where = key_path(part, name)
            yield from wrong_name(part, name)
            if isinstance(column, Numeric):
                yield from _wrong_edges(where, column.edges, counts=len(column.counts))
                yield from wrong_moments(where, column)
            else:
                yield from _wrong_categories(where, column)
            yield from wrong_counts(where, column, baseline.rows)
    if score := baseline.score:
        lengths = {"calibration": len(score.calibration), "positives": len(score.positives)}
        yield from _wrong_edges("score", score.edges, counts=len(score.counts), **lengths)
        yield from wrong_labelled(score, baseline.rows)
        for i, (positives, count) in enumerate(zip(score.positives, score.counts, strict=True)):
            if positives > count:
                yield f"score.positives[{i}]: {positives} of {count} rows"
        for i, (low, high) in enumerate(itertools.pairwise(score.calibration), 1):
            if low > high:
                yield f"score.calibration[{i}]: {show(high)} after {show(low)}: a calibration never falls"


def _wrong_edges(where: str, edges: tuple[float, ...], **lengths: int) -> Iterator[str]:
    if not all(map(math.isfinite, edges)):
        yield f"{where}.edges: edges are finite: the outer bins are open without one"
    for i, (low, high) in enumerate(itertools.pairwise(edges), 1):
        if low >= high:
            yield f"{where}.edges[{i}]: {show(high)} after {show(low)}: edges ascend"
    for name, length in lengths.items():
        if length != len(edges) + 1:
            yield f"{where}.{name}: {length} for {len(edges) + 1} bins"


def _wrong_categories(where: str, column: Categorical) -> Iterator[str]:
    if len(column.counts) != len(column.categories):
        yield f"{where}.counts: {len(column.counts)} for {len(column.categories)} categories"
    seen: set[str] = set()
    for i, name in enumerate(column.categories):
        yield from wrong_name(f"{where}.categories[{i}]", name)
        if name in (MISSING, UNSEEN):
            yield f"{where}.categories[{i}]: {show(name)} is the name of another bin"
        if name in seen:
            yield f"{where}.categories[{i}]: {show(name)} stands twice"
        seen.add(name)


def _wrong_type(data: bytes, error: msgspec.ValidationError) -> str:
    """msgspec does not say which key of a mapping is wrong (`$.features[...].counts`): look for it."""
    message, _, path = str(error).replace(" - at `key` in `$", " in a key - at `$").partition(" - at `$")
    if "[...]" in path:
        raw: Any = msgspec.json.decode(data)
        for part, kind in _MAPPINGS:
            found = raw
            for key in part.split("."):
                found = found.get(key) if isinstance(found, dict) else None
            for name, value in found.items() if isinstance(found, dict) else ():
                try:
                    msgspec.convert({name: value}, kind)
                except msgspec.ValidationError as wrong:
                    message, _, rest = str(wrong).partition(" - at `$[...]")
                    return f"{key_path(part, name)}{rest.rstrip('`')}: {_lower(message)}"
    return f"{path.rstrip('`').removeprefix('.') or 'baseline'}: {_lower(message)}"


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:].replace("`", "")
