"""A status as Kubernetes keeps it: our JSON, but with times as RFC 3339 text in UTC, to the microsecond.

In memory a time is Unix seconds and 0 means never; on the wire a time that never was is absent, in fields that the
types require as well. Read back, times are equal to the microsecond and all else is equal. What was read back is
written as the very same text: a status at rest is never written anew.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from .codec import to_builtins
from .problems import Invalid, Problem, index_path, key_path, show
from .status import Status, TrackStatus

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LATEST: Final = dt.datetime.max.replace(tzinfo=dt.UTC)
_LATEST_SECONDS: Final = (_LATEST - _EPOCH).total_seconds()
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_ZEROS: Final = {
    field.encode_name: field.default for field in msgspec.structs.fields(TrackStatus) if not field.required
}

#: Turns the value of one field, None where there is none, given with its path. None leaves the field out.
_Turn = Callable[[Any, str], Any]


def to_wire(status: Status) -> dict[str, Any]:
    """The value of `.status`: plain mappings, lists and scalars. Fields at their default are absent.

    Tracks are written whole, a weight of 0 too: a printer column shows only what it finds.
    """
    wire: dict[str, Any] = _walk(_described(), to_builtins(status), "status", _written)
    for track in ("stable", "canary", "fallback"):
        if track in wire:
            wire[track] = _ZEROS | wire[track]
    return wire


def from_wire(raw: Any) -> Status:
    """What `to_wire` wrote; of None or nothing, a new status. Unknown fields are left out, null is absent.

    Raises Invalid, with one problem, where it is something else.
    """
    try:
        return msgspec.convert(_walk(_described(), {} if raw is None else raw, "status", _read), Status)
    except msgspec.ValidationError as error:
        raise Invalid([Problem("status", str(error))]) from error


def time_text(seconds: float) -> str:
    """Unix seconds as RFC 3339: `2026-11-20T10:00:00.250000Z`. Before 1970 or after 9999: the nearest there is."""
    time = _LATEST if seconds >= _LATEST_SECONDS else _EPOCH + dt.timedelta(seconds=max(seconds, 0.0))
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def time_seconds(text: str) -> float:
    """Unix seconds of RFC 3339 text in any zone; 0 before 1970. Raises ValueError."""
    time = dt.datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("has no time zone")
    return max((time - _EPOCH) // _MICROSECOND, 0) / 1_000_000


def is_time(field: inspect.Field) -> bool:
    """Whether a field of a status is a time, by its type and name. All other floats are statistics."""
    return isinstance(field.type, inspect.FloatType) and (
        field.name in ("at", "since") or field.name.endswith(("_at", "_time"))
    )


@cache
def _described() -> inspect.Type:
    return inspect.type_info(Status)


def _walk(kind: inspect.Type, value: Any, path: str, turn: _Turn) -> Any:
    """`value`, which should be of `kind`, with its times turned. What it should not be stays: msgspec names it."""
    match kind:
        case inspect.StructType() if isinstance(value, Mapping):
            out = {}
            for field in kind.fields:
                where = key_path(path, field.encode_name)
                given = value.get(field.encode_name)
                turned = turn(given, where) if is_time(field) else _walk(field.type, given, where, turn)
                if turned is not None:
                    out[field.encode_name] = turned
            return out
        case inspect.VarTupleType() if isinstance(value, list | tuple):
            return [_walk(kind.item_type, item, index_path(path, i), turn) for i, item in enumerate(value)]
        case inspect.UnionType() if value is not None:
            (inner,) = (one for one in kind.types if not isinstance(one, inspect.NoneType))
            return _walk(inner, value, path, turn)
    return value


def _written(seconds: float | None, _: str) -> str | None:
    text = time_text(seconds or 0.0)
    return None if text == time_text(0.0) else text


def _read(value: Any, path: str) -> float:
    if value is None:
        return 0.0
    try:
        return time_seconds(value)
    except (TypeError, ValueError) as error:
        raise Invalid([Problem(path, f"{show(value)} is no time: write it like {time_text(0.0)}")]) from error
