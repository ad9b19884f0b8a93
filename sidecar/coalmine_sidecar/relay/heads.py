"""Rules for HTTP/1.1 heads: what is passed on, what is dropped, what is refused. Pure; llhttp has done the syntax.

llhttp, strict as it is used in here, already refuses Content-Length beside Transfer-Encoding, a second
Content-Length, folded lines, bare line feeds and control characters. What is left are the rules of meaning.

Headers travel as a flat list `[name, b": ", value, b"\\r\\n", ...]`: one join makes the new head.
"""

from __future__ import annotations

import re
from typing import Final

from .errors import Refusal, phrase_of, status_line

COLON: Final = b": "
CRLF: Final = b"\r\n"
CHUNKED: Final = b"transfer-encoding: chunked\r\n"
CLOSE: Final = b"connection: close\r\n"
KEEP_ALIVE: Final = b"connection: keep-alive\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
#: Header lines that say that fields after a chunked body are understood.
TRAILERS_TAKEN: Final = (b"te", COLON, b"trailers", CRLF, b"connection", COLON, b"te", CRLF)
#: Tells a model that the request is a copy, and that nobody waits for its answer.
MARK: Final = (b"coalmine-shadow", COLON, b"true", CRLF)

# What a header is to the relay. PLAIN ones pass as they came.
PLAIN: Final = 0
LENGTH: Final = 1
HOST: Final = 2
TYPE: Final = 3  # Content-Type
CONNECTION: Final = 4
ENCODING: Final = 5  # Transfer-Encoding
EXPECT: Final = 6
UPGRADE: Final = 7
CODED: Final = 8  # Content-Encoding
JSON_LENGTH: Final = 9  # Inference-Header-Content-Length
REASON: Final = 10  # coalmine-reason
TE: Final = 11
HOP: Final = 12  # Meant for the next hop only, or a name only the relay writes.
SHADOW: Final = 13  # coalmine-shadow
# What a request is known by.
TRACEPARENT: Final = 14
TRACESTATE: Final = 15
REQUEST_ID: Final = 16
BLAME: Final = 17  # coalmine-error

_KINDS: Final = {
    b"content-length": LENGTH,
    b"host": HOST,
    b"content-type": TYPE,
    b"connection": CONNECTION,
    b"transfer-encoding": ENCODING,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"content-encoding": CODED,
    b"inference-header-content-length": JSON_LENGTH,
    b"coalmine-error": BLAME,
    b"coalmine-reason": REASON,
    b"coalmine-revision": HOP,
    b"coalmine-shadow": SHADOW,
    b"http2-settings": HOP,
    b"keep-alive": HOP,
    b"proxy-authenticate": HOP,
    b"proxy-authorization": HOP,
    b"proxy-connection": HOP,
    b"te": TE,
    b"traceparent": TRACEPARENT,
    b"tracestate": TRACESTATE,
    b"x-request-id": REQUEST_ID,
}
#: A Connection header may not name these: they are not the last hop's to take away.
_NEVER_NAMED: Final = frozenset({b"host", b"content-length", b"content-type", b"close", b"keep-alive"})


#: A host and perhaps a port: without user information, which has no place there (RFC 9110 4.2.4), and without the comma
#: that would be legal in a name and is a list in practice.
_HOST: Final = rb"(?:[a-z0-9._~!$&'()*+;=%-]+|\[[0-9a-f:.]+\])(?::\d*)?"
_HOST_FIELD: Final = re.compile(rb"(?:%b)?" % _HOST, re.IGNORECASE)
_ABSOLUTE: Final = re.compile(rb"https?://(%b)(?:[/?]|$)" % _HOST, re.IGNORECASE)

#: Nearly every answer has its status's own phrase, and a line that is ready.
_STATUS_LINES: Final = {
    status: (phrase_of(status), status_line(status, phrase_of(status))) for status in range(200, 600)
}
#: RFC 9112 4, but for the empty one.
_PHRASE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]+")

#: Header name as spelt -> kind. A plain dict, so that the common case is one lookup; `kind_of` fills it.
KINDS: Final[dict[bytes, int]] = {}
MAX_SPELLINGS: Final = 4096
#: Host fields that were found good, for the same reason; `check_host` fills it.
HOSTS: Final[set[bytes]] = set()
MAX_HOSTS: Final = 1024


def kind_of(name: bytes) -> int:
    """The kind of a header whose spelling is not in KINDS; remembered there while there is room."""
    kind = _KINDS.get(name.lower(), PLAIN)
    if len(KINDS) < MAX_SPELLINGS and len(name) <= 64:
        KINDS[name] = kind
    return kind


def check_host(host: bytes) -> None:
    """Raises Refusal for a Host field that is none (RFC 9112 3.2). A good one that is not in HOSTS is put there."""
    if not _HOST_FIELD.fullmatch(host.strip(b" \t")):
        raise Refusal(400, "the Host header is no host")
    if len(HOSTS) < MAX_HOSTS and len(host) <= 256:
        HOSTS.add(host)


class Special:
    """Headers of one message that mean something to the relay beyond its length; made only where there are such."""

    __slots__ = (
        "blames",
        "chunked",
        "coded",
        "expect",
        "identified",
        "json_length",
        "reason",
        "shadow",
        "takes_trailers",
        "tokens",
        "trailers",
        "upgrade",
    )

    def __init__(self) -> None:
        self.tokens: set[bytes] = set()
        self.chunked = False
        self.expect = False
        self.upgrade = b""
        self.coded = False
        self.json_length: int | None = None
        self.reason = b""
        self.shadow = False
        self.takes_trailers = False
        #: It has a `coalmine-error`.
        self.blames = False
        #: An answer has a request id of its own.
        self.identified = False
        #: Header lines that came after a chunked body, of those that may be passed on.
        self.trailers: list[bytes] = []

    def note(self, kind: int, value: bytes) -> bool:
        """Take in one header; whether it is passed on. Raises Refusal for codings and expectations not known here."""
        value = value.strip(b" \t")
        if kind == CONNECTION:
            self.tokens.update(token.strip(b" \t") for token in value.lower().split(b","))
        elif kind == ENCODING:
            if self.chunked or value.lower() != b"chunked":
                raise Refusal(501, "transfer-encoding: only chunked is known here")
            self.chunked = True
        elif kind == EXPECT:
            if value.lower() != b"100-continue":
                raise Refusal(417, "expect: only 100-continue is known here")
            self.expect = True
        elif kind == UPGRADE:
            self.upgrade += b", " + value if self.upgrade else value
        elif kind == CODED:
            self.coded = value.lower() not in (b"", b"identity")
            return True
        elif kind == JSON_LENGTH:
            self.json_length = int(value) if value.isdigit() and len(value) < 12 else None
            return True
        elif kind == REASON:
            self.reason = value
        elif kind == SHADOW:
            self.shadow = True
        elif kind >= TRACEPARENT:
            self.identified = self.identified or kind == REQUEST_ID
            self.blames = self.blames or kind == BLAME
            return True
        elif kind == TE:
            self.takes_trailers = b"trailers" in value.lower()
        return False

    def named(self) -> set[bytes]:
        """The headers that a Connection header declares to be for the last hop only."""
        return self.tokens - _NEVER_NAMED


def authority(url: bytes) -> bytes | None:
    """The host, and perhaps the port, of an absolute http URL; None for anything else."""
    found = _ABSOLUTE.match(url)
    return found[1] if found else None


def without_h2c(offered: bytes) -> bytes:
    """The protocols of an Upgrade header but HTTP/2."""
    protocols = (protocol.strip(b" \t") for protocol in offered.split(b","))
    return b", ".join(p for p in protocols if p and p.lower() not in (b"h2c", b"h2", b"http/2.0"))


def first_line(status: int, phrase: bytes) -> bytes:
    """An answer's status line with the model's own phrase; with the standard's if that is empty or not allowed."""
    known = _STATUS_LINES.get(status)
    if known is not None and known[0] == phrase:
        return known[1]
    return status_line(status, phrase if _PHRASE.fullmatch(phrase) else phrase_of(status))


def head_size(lines: list[bytes]) -> int:
    return sum(map(len, lines))


def find(lines: list[bytes], name: bytes) -> bytes | None:
    """The value of the first header of this lower-case name."""
    for at in range(0, len(lines), 4):
        if lines[at].lower() == name:
            return lines[at + 2]
    return None


def without(lines: list[bytes], names: set[bytes]) -> list[bytes]:
    """The lines but those of these lower-case names."""
    kept: list[bytes] = []
    for at in range(0, len(lines), 4):
        if lines[at].lower() not in names:
            kept += lines[at : at + 4]
    return kept
