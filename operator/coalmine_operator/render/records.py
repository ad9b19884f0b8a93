"""A revision's record as its ControllerRevision keeps it: what never changes as data, the rest as annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..api.codec import from_json, to_builtins
from ..api.monitoring import BaselineRef
from ..engine.model import RevisionRecord
from . import labels, patch

Object = dict[str, Any]
Patch = tuple[patch.Operation, ...]
T = TypeVar("T")

#: Fields of a revision and of its model that came after the first release, and what says the same as their absence.
_LATER: Final[Mapping[str, object]] = {
    "warmup": [], "tls": None, "containerConcurrency": 0, "queueDepth": None, "newTraces": "sampled",
}  # fmt: skip


class Kept(Struct, frozen=True, kw_only=True):
    """What a ControllerRevision holds. `injected`: empty where nothing is known."""

    record: RevisionRecord
    injected: Patch = ()


def kept(controller_revision: Mapping[str, Any]) -> Kept:
    """What `manifests` put into a ControllerRevision. Raises Invalid where it is somebody else's."""
    record = from_json(msgspec.json.encode(controller_revision.get("data")), RevisionRecord)
    annotations = controller_revision.get("metadata", {}).get("annotations") or {}
    return Kept(
        record=replace(record, baseline=_read(annotations, labels.BASELINE, BaselineRef, None)),
        injected=_read(annotations, labels.INJECTED, tuple[dict[str, Any], ...], ()),
    )


def data(record: RevisionRecord) -> Object:
    """As the first operator that knew the revision wrote it: the API server lets nobody add as much as a null."""
    whole: Object = to_builtins(record)
    # It may come later, and becomes another one when the spec says so.
    del whole["baseline"]
    whole["model"] = _without_later(whole["model"])
    return _without_later(whole)


def annotated(record: RevisionRecord, injected: Patch) -> dict[str, str]:
    found = {labels.INJECTED: msgspec.json.encode(injected, order="deterministic").decode()}
    if record.baseline is not None:
        found[labels.BASELINE] = msgspec.json.encode(record.baseline).decode()
    return found


def _read(given: Mapping[str, Any], name: str, kind: type[T], otherwise: T) -> T:
    """`otherwise` where it is not there, or somebody wrote into it."""
    try:
        return msgspec.json.decode(given[name], type=kind)
    except (KeyError, TypeError, msgspec.MsgspecError):
        return otherwise


def _without_later(values: Object) -> Object:
    return {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}
