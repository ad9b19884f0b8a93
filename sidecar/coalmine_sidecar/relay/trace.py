"""Which trace a request belongs to, and its id: passed on where a client says so, made where it does not.

Source: W3C Trace Context, www.w3.org/TR/trace-context. The sidecar keeps no spans of its own, so what is valid passes as
it came; a `traceparent` that is not is replaced by a new one, and then `tracestate` means nothing any more (3.3).
"""

from __future__ import annotations

import os
import re
from typing import Final

from .heads import COLON, CRLF, without

_TRACEPARENT: Final = b"traceparent"
_REQUEST_ID: Final = b"x-request-id"

#: Version 00 is this exactly; later ones may add fields (3.2.2, 4.2). ff is none, nor are ids of zeros.
_valid: Final = re.compile(
    rb"(?!ff)(?!00.{53}.)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
).fullmatch
#: The flag "sampled", as the last digit of flags.
_SAMPLED_DIGITS: Final = frozenset(b"13579bdf")

#: How a made `traceparent` ends. Both say that the trace id is random (level 2 of the recommendation).
SAMPLED: Final = b"-03"
UNSAMPLED: Final = b"-02"

#: Ids made at a time: one call of the system costs as much as making ten of them.
_IDS: Final = 256
_TRACE_ID: Final = 32
_ID: Final = 48


class Ids:
    """Random ids, cheap by the piece: a trace id and a span id in 48 hexadecimal digits."""

    __slots__ = ("_at", "_digits")

    def __init__(self) -> None:
        self._digits = b""
        self._at = 0

    def next(self) -> bytes:
        """Digits nobody had before. That one of the two ids is all zeros takes longer to happen than stars last."""
        at = self._at
        if at >= len(self._digits):
            self._digits = os.urandom(_IDS * _ID // 2).hex().encode()
            at = 0
        self._at = end = at + _ID
        return self._digits[at:end]


def is_valid(traceparent: bytes) -> bool:
    return _valid(traceparent) is not None


def sampled_trace(traceparent: bytes) -> bytes:
    """The trace id of a valid `traceparent`; empty if nobody keeps the trace, so that nobody could look it up."""
    return traceparent[3:35] if traceparent[54] in _SAMPLED_DIGITS else b""


class Identity:
    """What a request is known by. `trace`: the id of its trace, empty where there is none to look up."""

    __slots__ = ("request_id", "trace")

    def __init__(self, request_id: bytes, trace: bytes) -> None:
        self.request_id = request_id
        self.trace = trace
