"""Our types as JSON, for the local disk and for the wire between our own processes."""

from __future__ import annotations

import math
import sys
from typing import Any, TypeVar

import msgspec

from .duration import Duration
from .problems import Invalid, Problem, show
from .spec import ModelDeploymentSpec
from .status import Status

T = TypeVar("T")


def to_builtins(value: Any) -> Any:
    """Plain mappings, lists and scalars; durations become seconds; every float is finite.

    JSON has no infinity and no NaN, and msgspec would write null, which no number field reads back: infinities become
    the largest number, NaN becomes 0 (no evidence).
    """
    return _finite(msgspec.to_builtins(value, enc_hook=_encode))


def to_json(value: Any) -> bytes:
    """Compact JSON of a Status, a ModelDeploymentSpec, a RevisionRecord or any other of our types."""
    return msgspec.json.encode(to_builtins(value))


def from_json(data: bytes, kind: type[T]) -> T:
    """What `to_json` wrote. Raises Invalid, with one problem, where it is something else."""
    try:
        return msgspec.json.decode(data, type=kind, dec_hook=_decode)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid([Problem(kind.__name__, str(error).splitlines()[0])]) from error


def status_from_json(data: bytes) -> Status:
    """Raises Invalid."""
    return from_json(data, Status)


def spec_from_json(data: bytes) -> ModelDeploymentSpec:
    """Of a spec that was checked before it was stored: types are checked again, rules are not. Raises Invalid."""
    return from_json(data, ModelDeploymentSpec)


def _encode(value: Any) -> Any:
    if isinstance(value, Duration):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _decode(kind: type, value: Any) -> Any:
    if kind is Duration and isinstance(value, int | float):
        return Duration(value)
    raise TypeError(f"Expected seconds, got {show(value)}")


def _finite(value: Any) -> Any:
    match value:
        case float():
            if math.isnan(value):
                return 0.0
            return min(max(value, -sys.float_info.max), sys.float_info.max)
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value
