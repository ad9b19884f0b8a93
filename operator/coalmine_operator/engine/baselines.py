"""Baselines: which revision is compared with which file, and whether that file is its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

from ..api.baseline import Baseline, Numeric, decode_baseline, digest_of
from ..api.monitoring import BaselineRef, Monitoring
from ..api.problems import show
from ..api.spec import Metadata, ModelDeploymentSpec
from .model import BaselineState, RevisionRecord
from .revisions import target_of

#: Features that are named at once.
NAMED: Final = 5


class Wanted(Struct, frozen=True, kw_only=True):
    """The baseline of one revision: where it is, and whose it has to be."""

    ref: BaselineRef
    model: str
    version: str
    task: str


class Read(Struct, frozen=True, kw_only=True):
    """What was found there. `message` begins with where it was looked for."""

    where: str
    digest: str = ""
    baseline: Baseline | None = None
    problem: Literal["", "missing", "unreadable"] = ""
    message: str = ""


def wanted_baselines(
    metadata: Metadata, spec: ModelDeploymentSpec, records: Iterable[RevisionRecord]
) -> dict[str, Wanted]:
    """By revision: what the spec says of its own, and of the others what it said while it was theirs."""
    if spec.monitoring is None:
        return {}
    known = {record.name: record for record in records}
    target = target_of(metadata, spec, 0.0)
    known[target.name] = target
    return {
        name: Wanted(ref=record.baseline, model=record.model.name, version=record.version, task=spec.monitoring.task)
        for name, record in known.items()
        if record.baseline is not None
    }


def with_bins(monitoring: Monitoring, baseline: Baseline) -> frozenset[str]:
    """Names of the features that are watched as what the baseline has them as: numbers, or names."""
    kinds = {name: "numeric" if isinstance(one, Numeric) else "categorical" for name, one in baseline.features.items()}
    return frozenset(one.name for one in monitoring.features if kinds.get(one.name) == one.type)


def without_bins(monitoring: Monitoring, baseline: Baseline) -> list[str]:
    """Names of the features of which only completeness is told: not in the baseline, or of another kind there.

    Many are cut to NAMED, and how many more there are.
    """
    known = with_bins(monitoring, baseline)
    missing = [one.name for one in monitoring.features if one.name not in known]
    return [*missing[:NAMED], *([f"and {len(missing) - NAMED} more"] if missing[NAMED:] else [])]


def read_baseline(data: bytes, where: str) -> Read:
    """A file's bytes, found at `where`, as a baseline or as the reason why they are none."""
    digest = digest_of(data)
    try:
        return Read(where=where, digest=digest, baseline=decode_baseline(data))
    except ValueError as error:
        return Read(where=where, digest=digest, problem="unreadable", message=f"{where}: {error}")


def state_of(wanted: Wanted, read: Read) -> BaselineState:
    """Whether what was read is what is wanted; everything else is a problem that says what to do."""
    meant, baseline = wanted.ref.digest, read.baseline
    if read.digest and meant and read.digest != meant:
        # Before anything is said of its content: that is of another file.
        message = (
            f"has the digest {read.digest}, and {meant} is meant: put the file back, or give the digest of this one"
        )
        return BaselineState(problem="mismatch", message=f"{read.where}: {message}")
    if read.problem or baseline is None:
        return BaselineState(problem=read.problem or "missing", message=read.message)
    for what, found, own in (
        ("model", baseline.model, wanted.model),
        ("version", baseline.version, wanted.version),
        ("task", baseline.task, wanted.task),
    ):
        if found != own:
            remedy = "name the one that is its own in spec.monitoring.baseline"
            if what == "task":
                remedy = "write it in spec.monitoring.task, or build the baseline for this one"
            message = f"is of {what} {show(found)}, not {show(own)}: {remedy}"
            return BaselineState(problem="mismatch", message=f"{read.where}: {message}")
    return BaselineState(digest=read.digest, baseline=baseline)
