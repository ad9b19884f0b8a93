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

#: Made at a time: one call of the system costs as much as making ten of them. These take 25 kB.
_IDS: Final = 64
_TRACE_ID: Final = 32
_ID: Final = 48
#: Items of one header line.
_FIELD: Final = 4


#: Header lines as `identified` adds them, a request's id, and its trace's id as `sampled_trace` has it.
Begun = tuple[tuple[bytes, ...], bytes, bytes]


class Ids:
    """Random ids, and the header lines that name them: made many at a time, taken one by one."""

    __slots__ = ("_begun", "_ending")

    def __init__(self) -> None:
        self._begun: list[Begun] = []
        self._ending = b""

    def begin(self, ending: bytes) -> Begun:
        """For a request that came without ids; lines of a trace stand before the four items of the request's id.

        Nobody had these ids before. That one is all zeros takes longer to happen than stars last.
        """
        if not self._begun or ending is not self._ending:
            self._make(ending)
        return self._begun.pop()

    def _make(self, ending: bytes) -> None:
        self._ending = ending
        self._begun = []
        digits = os.urandom(_IDS * _ID // 2).hex().encode()
        for at in range(0, len(digits), _ID):
            # A trace of one's own has the request id's digits; one that a client began may hold many requests.
            own = digits[at : at + _TRACE_ID]
            lines: tuple[bytes, ...] = (b"x-request-id", COLON, own, CRLF)
            if ending:
                value = b"00-%b-%b%b" % (own, digits[at + _TRACE_ID : at + _ID], ending)
                lines = (b"traceparent", COLON, value, CRLF, *lines)
            self._begun.append((lines, own, own if ending is SAMPLED else b""))


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
    valid = traceparent is not None and is_valid(traceparent)
    trace = sampled_trace(traceparent) if valid and traceparent is not None else b""
    if valid and request_id:
        return lines, request_id, trace
    own, own_id, own_trace = ids.begin(ending)
    if valid:
        own = own[-_FIELD:]
    else:
        trace = own_trace
        if ending and (tracestate or traceparent is not None):
            lines = without(lines, _OF_THE_TRACE)
    if request_id:
        own = own[:-_FIELD]
    lines += own
    return lines, request_id or own_id, trace


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
