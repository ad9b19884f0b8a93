"""Fields after a chunked body: which of them are passed on, and how. Pure.

Some receivers merge them into the head. So what frames, routes, authenticates or controls a message may not come this
late (RFC 9110 6.5.1), and is dropped; a checksum, a timing or a gRPC status may.
"""

from __future__ import annotations

from typing import Final

from .heads import CRLF, kind_of

_NEVER: Final = frozenset({
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"age", b"authorization", b"cache-control",
    b"content-disposition", b"content-location", b"content-range", b"cookie", b"date", b"expires", b"forwarded",
    b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"location",
    b"max-forwards", b"pragma", b"range", b"retry-after", b"set-cookie", b"trailer", b"vary", b"via", b"warning",
    b"www-authenticate",
})  # fmt: skip
_NEVER_BEGINS: Final = (b"coalmine-", b"proxy-", b"sec-", b"x-forwarded-")


def passed_on(lines: list[bytes]) -> list[bytes]:
    """The lines of the fields that may come late."""
    kept: list[bytes] = []
    for at in range(0, len(lines), 4):
        name = lines[at].lower()
        if not kind_of(name) and name not in _NEVER and not name.startswith(_NEVER_BEGINS):
            kept += lines[at : at + 4]
    return kept


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of a chunked body."""
    return b"".join((b"0\r\n", *trailers, CRLF))
