"""Which trace a request belongs to, and its id: passed on where a client says so, made where it does not.

Source: W3C Trace Context, www.w3.org/TR/trace-context. The sidecar keeps no spans of its own, so what is valid passes
as it came; a `traceparent` that is not is replaced by a new one, and `tracestate` then means nothing any more (3.3).
"""

from __future__ import annotations

import os
import re
from typing import Final

from ..contract import NewTraces
from .heads import COLON, CRLF, without

_OF_THE_TRACE: Final = {b"traceparent", b"tracestate"}

Field = tuple[bytes, bytes]

#: Version 00 is this exactly; later ones may add fields (3.2.2, 4.2). ff is none, nor are ids of zeros.
_valid: Final = re.compile(
    rb"(?!ff)(?!00.{53}.)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
).fullmatch
#: The flag "sampled", as the last digit of flags.
_SAMPLED_DIGITS: Final = frozenset(b"13579bdf")

#: How a made `traceparent` ends. Both say that the trace id is random (level 2 of the recommendation).
SAMPLED: Final = b"-03"
UNSAMPLED: Final = b"-02"
#: By contract.Routing.new_traces; empty: none is made.
ENDINGS: Final[dict[NewTraces, bytes]] = {"sampled": SAMPLED, "unsampled": UNSAMPLED, "none": b""}

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


def identified(
    lines: list[bytes], ids: Ids, ending: bytes, traceparent: bytes | None, tracestate: bool, request_id: bytes
) -> tuple[list[bytes], bytes, bytes]:
    """A request's header lines with what was missing, its id, and its trace's id as `sampled_trace` has it.

    `traceparent` is the field's value, None where there is none and empty where there are several; `tracestate` says
    whether there is one. `ending`: SAMPLED or UNSAMPLED; empty if no trace is to be begun, then all passes as it came.
    """
    digits = trace = b""
    if traceparent is not None and is_valid(traceparent):
        trace = sampled_trace(traceparent)
    elif ending:
        if tracestate or traceparent is not None:
            lines = without(lines, _OF_THE_TRACE)
        digits = ids.next()
        trace_id = digits[:_TRACE_ID]
        lines += (b"traceparent", COLON, b"00-%b-%b%b" % (trace_id, digits[_TRACE_ID:], ending), CRLF)
        if ending is SAMPLED:
            trace = trace_id
    if not request_id:
        # A trace of one's own has the id's digits; one that a client began may hold many requests.
        request_id = digits[:_TRACE_ID] or ids.next()[:_TRACE_ID]
        lines += (b"x-request-id", COLON, request_id, CRLF)
    return lines, request_id, trace


def identified_fields(fields: list[Field], ids: Ids, ending: bytes) -> tuple[list[Field], bytes, bytes]:
    """The same for a request of HTTP/2."""
    traceparent: bytes | None = None
    tracestate = False
    request_id = b""
    for name, value in fields:
        if name == b"traceparent":
            traceparent = value if traceparent is None else b""
        elif name == b"tracestate":
            tracestate = True
        elif name == b"x-request-id":
            request_id = request_id or value
    lines, request_id, trace = identified([], ids, ending, traceparent, tracestate, request_id)
    if not lines:
        return fields, request_id, trace
    if lines[0] == b"traceparent":
        fields = [field for field in fields if field[0] not in _OF_THE_TRACE]
    return [*fields, *zip(lines[::4], lines[2::4], strict=True)], request_id, trace
