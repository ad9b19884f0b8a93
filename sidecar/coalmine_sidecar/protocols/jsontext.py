"""JSON as models write it: strict, or with the NaN and Infinity that Python's and TensorFlow's writers add to it.

A number that no double holds is infinite as well, which is what Python and JavaScript make of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from typing import Any, Final, TypeVar

import msgspec

#: The reader of NaN is slow; beyond this many bytes it would hold up requests.
MAX_LENIENT: Final = 256 << 10

Strict = TypeVar("Strict")
Lenient = TypeVar("Lenient")

_decoder: Final = msgspec.json.Decoder()
_decode = _decoder.decode
#: What msgspec says of a number that is too large: the body is JSON all the same.
_TOO_LARGE: Final = "out of range"
#: Digits of a whole number that is within a double's range whatever they are.
_DIGITS: Final = 308


def read_json(body: bytes) -> Any:
    """The JSON value; NaN and Infinity are what they are called. Raises ValueError where there is none."""
    try:
        return _decode(body)
    except (ValueError, RecursionError) as error:
        return _lenient(body, float, str(error))


def read_lines(body: bytes) -> list[Any]:
    """JSON lines: a value of each. Raises ValueError where one is none."""
    try:
        return _decoder.decode_lines(body)
    except (ValueError, RecursionError) as error:
        lines = [line for line in body.split(b"\n") if line.strip()]
        return list(_lenient(b"[%b]" % b",".join(lines), float, str(error)))


def read_as(body: bytes, decode: Callable[[bytes], Strict], lenient: type[Lenient]) -> Strict | Lenient:
    """What `decode`, a typed reader, makes of strict JSON, and of other JSON its twin `lenient`, whose values are read.

    Raises ValueError where there is none, or none of that type.
    """
    try:
        return decode(body)
    except msgspec.ValidationError:
        raise
    except ValueError:
        return msgspec.convert(read_json(body), lenient)


def strict_json(body: bytes) -> bytes:
    """The same document with null for NaN and Infinity. Raises ValueError where these are not what is wrong with it."""
    try:
        return msgspec.json.encode(_lenient(body, lambda _: None))
    except (RecursionError, OverflowError) as error:
        raise ValueError("nested too deep or a number out of range") from error


def float_of(whole: int) -> float:
    """A whole number as a float, infinite where that is too large for one."""
    try:
        return float(whole)
    except OverflowError:
        return inf if whole > 0 else -inf


def _lenient(body: bytes, constant: Callable[[str], float | None], problem: str = "") -> Any:
    """`constant`: what NaN, Infinity or -Infinity becomes; `problem`: what the strict reader says of the body."""
    if len(body) > MAX_LENIENT or not (_TOO_LARGE in problem or b"NaN" in body or b"Infinity" in body):
        raise ValueError("no JSON")
    try:
        return json.loads(body, parse_constant=constant, parse_int=_whole)
    except (RecursionError, OverflowError) as error:
        raise ValueError("nested too deep or a number out of range") from error


def _whole(digits: str) -> float:
    """int() takes ever longer, and gives up at last."""
    return int(digits) if len(digits) <= _DIGITS else float(digits)
