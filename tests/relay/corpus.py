"""Requests and answers that two programs may read in two ways, and what the relay has to make of each.

From RFC 9112's "MUST" and "MUST NOT", PortSwigger's and Kettle's desync papers, the http-garden and the CVEs of the last
years. `{next}` in a request is a request to be smuggled: as a request of its own it may only be seen where the first
one has ended for every reader.
"""

from __future__ import annotations

from typing import NamedTuple

NEXT = "GET /smuggled HTTP/1.1\r\nHost: m\r\n\r\n"
POST = "POST /p HTTP/1.1\r\nHost: m\r\n"
GET = "GET /g HTTP/1.1\r\nHost: m\r\n"
CHUNKED = POST + "Transfer-Encoding: chunked\r\n"


class Seen(NamedTuple):
    """A request as the model has to see it."""

    target: str
    body: bytes = b""
    host: str = "m"


class Sent(NamedTuple):
    """What a client sends: refused with `status`, or passed on as `seen`."""

    name: str
    data: bytes
    status: int
    seen: tuple[Seen, ...] = ()
    #: Why it may be passed on though nginx refuses it or makes something else of it.
    unlike_nginx: str = ""


def refused(name: str, text: str, status: int = 400) -> Sent:
    return Sent(name, text.format(next=NEXT).encode("latin-1"), status)


def passed(name: str, text: str, *seen: Seen, unlike_nginx: str = "") -> Sent:
    return Sent(name, text.format(next=NEXT).encode("latin-1"), 200, seen, unlike_nginx)


P = Seen("/p", b"abc")
G = Seen("/g")
TAB = "a tab is white space as well (RFC 9110 5.6.3)"
SMUGGLED = Seen("/smuggled")

# A case a line reads best, and some are long.
# ruff: noqa: E501
REQUESTS = [
    # Length and chunks at once
    refused("length, then chunked", POST + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}"),
    refused("chunked, then length", CHUNKED + "Content-Length: 4\r\n\r\n0\r\n\r\n{next}"),
    refused("length 0, then chunked", POST + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    refused("length and Chunked", POST + "Content-Length: 4\r\ntransfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n{next}"),
    refused("length and an unknown coding", POST + "Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n\r\nabcd{next}"),
    refused("length and an empty coding", POST + "Content-Length: 4\r\nTransfer-Encoding: \r\n\r\nabcd{next}"),
    refused("length and identity", POST + "Content-Length: 4\r\nTransfer-Encoding: identity\r\n\r\nabcd{next}"),
    # Codings
    refused("chunked twice", CHUNKED + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}"),
    refused("chunked, chunked", POST + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{next}"),
    refused("chunked, identity", POST + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{next}"),
    refused("chunked, then identity", CHUNKED + "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n{next}"),
    refused("identity, then chunked", POST + "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    refused("identity", POST + "Transfer-Encoding: identity\r\n\r\n", 501),
    refused("gzip, chunked", POST + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    refused("gzip", POST + "Transfer-Encoding: gzip\r\n\r\n", 501),
    refused("xchunked", POST + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    refused("chunkedx", POST + "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", 501),
    refused("chunked in quotes", POST + 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 501),
    refused("chunked with a parameter", POST + "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 501),
    refused("chunked and a comma", POST + "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
    refused("a comma and chunked", POST + "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 501),
    refused("chunked behind a vertical tab", POST + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    refused("chunked behind a line end", POST + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    refused("chunked before a no-break space", POST + "Transfer-Encoding: chunked\xa0\r\n\r\n0\r\n\r\n", 501),
    refused("an empty coding", POST + "Transfer-Encoding:\r\n\r\n"),
    refused("chunked in HTTP/1.0", "POST /p HTTP/1.0\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("a space before the coding's colon", POST + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    refused("a NUL before Transfer-Encoding", POST + "\0Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    passed("a tab before chunked", POST + "Transfer-Encoding:\tchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{next}", P, SMUGGLED, unlike_nginx=TAB),
    passed("spaces after chunked", POST + "Transfer-Encoding: chunked  \r\n\r\n3\r\nabc\r\n0\r\n\r\n{next}", P, SMUGGLED),
    passed("CHUNKED", POST + "TRANSFER-ENCODING: CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n", P),
    passed("another header named alike", POST + "Transfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", P),
    passed("yet another header", POST + "X-Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", P),
    # Lengths
    refused("two lengths", POST + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    refused("the same length twice", POST + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    refused("a list of one length", POST + "Content-Length: 3, 3\r\n\r\nabc"),
    refused("a list of lengths", POST + "Content-Length: 3, 40\r\n\r\nabc{next}"),
    refused("a length below 0", POST + "Content-Length: -3\r\n\r\nabc"),
    refused("a length with a sign", POST + "Content-Length: +3\r\n\r\nabc"),
    refused("a length in hex", POST + "Content-Length: 0x3\r\n\r\nabc"),
    refused("a length with a point", POST + "Content-Length: 3.0\r\n\r\nabc"),
    refused("a length with a gap", POST + "Content-Length: 3 4\r\n\r\nabc"),
    refused("a length in quotes", POST + 'Content-Length: "3"\r\n\r\nabc'),
    refused("no length in Content-Length", POST + "Content-Length: \r\n\r\n{next}"),
    refused("a length of 2**64 + 3", POST + "Content-Length: 18446744073709551619\r\n\r\nabc"),
    refused("a length of 2**63", POST + "Content-Length: 9223372036854775808\r\n\r\nabc", 413),
    refused("a length with a superscript", POST + "Content-Length: \xb3\r\n\r\nabc"),
    refused("a folded length", POST + "Content-Length: 0\r\n 3\r\n\r\nabc"),
    refused("a space before the length's colon", POST + "Content-Length : 3\r\n\r\nabc"),
    refused("length, then length with a space", POST + "Content-Length: 0\r\nContent-Length : 3\r\n\r\nabc"),
    passed("a length with zeros", POST + "Content-Length: 0003\r\n\r\nabc{next}", P, SMUGGLED),
    passed("a length between blanks", POST + "Content-Length: \t 3 \t\r\n\r\nabc{next}", P, SMUGGLED, unlike_nginx=TAB),
    passed("a body with GET", GET + "Content-Length: 3\r\n\r\nabc{next}", Seen("/g", b"abc"), SMUGGLED),
    # Chunks
    refused("a chunk size that is none", CHUNKED + "\r\nzz\r\nabc\r\n0\r\n\r\n"),
    refused("no chunk size", CHUNKED + "\r\n\r\nabc\r\n0\r\n\r\n"),
    refused("a chunk size below 0", CHUNKED + "\r\n-1\r\nabc\r\n0\r\n\r\n"),
    refused("a chunk size with a sign", CHUNKED + "\r\n+3\r\nabc\r\n0\r\n\r\n"),
    refused("a chunk size with 0x", CHUNKED + "\r\n0x3\r\nabc\r\n0\r\n\r\n{next}"),
    refused("a chunk size with _", CHUNKED + "\r\n0_3\r\nabc\r\n0\r\n\r\n"),
    refused("a chunk size behind a space", CHUNKED + "\r\n 3\r\nabc\r\n0\r\n\r\n"),
    refused("a chunk size before a space", CHUNKED + "\r\n3 \r\nabc\r\n0\r\n\r\n"),
    refused("a chunk size of 2**64 + 3", CHUNKED + "\r\n10000000000000003\r\nabc\r\n0\r\n\r\n"),
    refused("a line feed after a chunk size", CHUNKED + "\r\n3\nabc\r\n0\r\n\r\n"),
    refused("a line feed after a chunk", CHUNKED + "\r\n3\r\nabc\n0\r\n\r\n"),
    refused("a carriage return after a chunk size", CHUNKED + "\r\n3\rXabc\r\n0\r\n\r\n"),
    refused("nothing after a chunk", CHUNKED + "\r\n3\r\nabc0\r\n\r\n{next}"),
    refused("a chunk longer than it says", CHUNKED + "\r\n3\r\nabcdef\r\n0\r\n\r\n"),
    refused("a line feed in an extension", CHUNKED + "\r\n3;a\nb\r\nabc\r\n0\r\n\r\n"),
    refused("a carriage return in an extension", CHUNKED + "\r\n3;a\rb\r\nabc\r\n0\r\n\r\n"),
    refused("a line feed after the last chunk", CHUNKED + "\r\n3\r\nabc\r\n0\n\n{next}"),
    refused("a request in the trailers", CHUNKED + "\r\n3\r\nabc\r\n0\r\n{next}"),
    refused("a length in the trailers", CHUNKED + "\r\n3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n"),
    refused("a coding in the trailers", CHUNKED + "\r\n3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    passed("a host in the trailers", CHUNKED + "\r\n3\r\nabc\r\n0\r\nHost: evil\r\n\r\n{next}", P, SMUGGLED),
    passed("an extension", CHUNKED + '\r\n3;a="b;c"\r\nabc\r\n0;d\r\n\r\n{next}', P, SMUGGLED),
    passed("sizes with zeros", CHUNKED + "\r\n0003\r\nabc\r\n000\r\n\r\n{next}", P, SMUGGLED),
    passed("a size in capitals", CHUNKED + "\r\nA\r\n0123456789\r\n0\r\n\r\n", Seen("/p", b"0123456789")),
    # Lines
    refused("line feeds alone", "GET /g HTTP/1.1\nHost: m\n\n"),
    refused("a line feed after the request line", "GET /g HTTP/1.1\nHost: m\r\n\r\n"),
    refused("a line feed after a header", GET + "X: a\nY: b\r\n\r\n"),
    refused("a header behind a line feed", GET + "X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("a line feed ends the head", GET + "X: a\r\n\n"),
    refused("a carriage return in a value", GET + "X: a\rb\r\n\r\n"),
    refused("a header behind a carriage return", GET + "X: a\rContent-Length: 3\r\n\r\nabc"),
    refused("two carriage returns", GET + "X: a\r\r\n\r\n"),
    refused("a carriage return after the request line", "GET /g HTTP/1.1\rHost: m\r\n\r\n"),
    refused("a folded header", GET + "X: a\r\n b\r\n\r\n"),
    refused("a header folded with a tab", GET + "X: a\r\n\tb\r\n\r\n"),
    refused("a fold before the first header", "GET /g HTTP/1.1\r\n X: a\r\nHost: m\r\n\r\n"),
    refused("a fold that hides a length", GET + "X: a\r\n Content-Length: 3\r\n\r\nabc"),
    refused("a NUL in a value", GET + "X: a\0b\r\n\r\n"),
    refused("a control character in a value", GET + "X: a\x01b\r\n\r\n"),
    refused("a delete in a value", GET + "X: a\x7fb\r\n\r\n"),
    refused("a NUL in a name", GET + "X\0: a\r\n\r\n"),
    refused("a space in a name", GET + "X y: a\r\n\r\n"),
    refused("a space after a name", GET + "X : a\r\n\r\n"),
    refused("a tab after a name", GET + "X\t: a\r\n\r\n"),
    refused("brackets in a name", GET + "(X): a\r\n\r\n"),
    refused("a name beyond ASCII", GET + "X\xe9: a\r\n\r\n"),
    refused("no name", GET + ": a\r\n\r\n"),
    refused("no colon", GET + "X\r\n\r\n"),
    passed("empty lines before a request", "\r\n\r\n" + GET + "\r\n{next}", G, SMUGGLED),
    # Request lines
    refused("a space before the method", " " + GET + "\r\n"),
    passed("two spaces before the target", "GET  /g HTTP/1.1\r\nHost: m\r\n\r\n", G),
    passed("two spaces before the version", "GET /g  HTTP/1.1\r\nHost: m\r\n\r\n", G),
    refused("a space in the target", "GET /g h HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("a tab before the target", "GET\t/g HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("a tab in the target", "GET /g\t HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("a space after the version", "GET /g HTTP/1.1 \r\nHost: m\r\n\r\n"),
    refused("a NUL in the target", "GET /g\0 HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("a target beyond ASCII", "GET /\xe9 HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("no version", "GET /g\r\nHost: m\r\n\r\n", 505),
    refused("no target", "GET HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("a version in small letters", "GET /g http/1.1\r\nHost: m\r\n\r\n"),
    refused("version 1.10", "GET /g HTTP/1.10\r\nHost: m\r\n\r\n"),
    refused("version 1.2", "GET /g HTTP/1.2\r\nHost: m\r\n\r\n"),
    refused("version 0.9", "GET /g HTTP/0.9\r\nHost: m\r\n\r\n", 505),
    refused("version 2.0", "GET /g HTTP/2.0\r\nHost: m\r\n\r\n", 505),
    passed("another protocol", "GET /g RTSP/1.0\r\nHost: m\r\n\r\n", G, unlike_nginx="llhttp reads it, and it is written anew as HTTP"),
    refused("an unknown method", "FETCH /g HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("a method in small letters", "get /g HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("a preface of HTTP/2 that goes wrong", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
    refused("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    refused("a target that is no path", "GET g HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("* with GET", "GET * HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("a target of another scheme", "GET ftp://m/g HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("user information in the target", "GET http://u:p@m/g HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("no host in the target", "GET http:///g HTTP/1.1\r\nHost: m\r\n\r\n"),
    refused("CONNECT", "CONNECT m:443 HTTP/1.1\r\nHost: m\r\n\r\n", 501),
    # Hosts
    refused("no host", "GET /g HTTP/1.1\r\n\r\n"),
    refused("two hosts", GET + "Host: other\r\n\r\n"),
    refused("the same host twice", GET + "Host: m\r\n\r\n"),
    refused("a list of hosts", "GET /g HTTP/1.1\r\nHost: m, other\r\n\r\n"),
    refused("a path in the host", "GET /g HTTP/1.1\r\nHost: m/evil\r\n\r\n"),
    refused("user information in the host", "GET /g HTTP/1.1\r\nHost: u@m\r\n\r\n"),
    refused("a space before the host's colon", "GET /g HTTP/1.1\r\nHost : m\r\n\r\n"),
    refused("a folded host", "GET /g HTTP/1.1\r\nHost: m\r\n .evil\r\n\r\n"),
    refused("a host beyond ASCII", "GET /g HTTP/1.1\r\nHost: m\xe9\r\n\r\n"),
    refused("a host with a gap", "GET /g HTTP/1.1\r\nHost: m evil\r\n\r\n"),
    passed("an empty host", "GET /g HTTP/1.1\r\nHost:\r\n\r\n", Seen("/g", host=""), unlike_nginx="RFC 9112 3.2 allows it"),
    passed("another host in the target", "GET http://other/g HTTP/1.1\r\nHost: m\r\n\r\n", Seen("http://other/g", host="other"), unlike_nginx="an absolute target stays absolute; its host is the Host, which nginx leaves as it was"),
    # Hop by hop
    passed("a request behind a close", GET + "Connection: close\r\n\r\n{next}", G),
    passed("a request behind HTTP/1.0", "GET /g HTTP/1.0\r\nHost: m\r\n\r\n{next}", G),
    passed("a Connection that names the length", POST + "Connection: content-length\r\nContent-Length: 3\r\n\r\nabc{next}", P, SMUGGLED),
    passed("a Connection that names the coding", CHUNKED + "Connection: transfer-encoding\r\n\r\n3\r\nabc\r\n0\r\n\r\n{next}", P, SMUGGLED),
    passed("a Connection that names the host", GET + "Connection: host\r\n\r\n", G),
    passed("an offer of h2c with a request behind it", GET + "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n\r\n{next}", G, SMUGGLED),
    passed("a declined upgrade with a request behind it", GET + "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n{next}", G, SMUGGLED),
    passed("an upgrade with a body", POST + "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc{next}", P, SMUGGLED),
    refused("an unknown expectation", POST + "Expect: miracles\r\nContent-Length: 0\r\n\r\n", 417),
    # Sizes
    refused("a head that is too long", GET + "X: " + "v" * 70_000 + "\r\n\r\n", 431),
    refused("too many headers", GET + "X: v\r\n" * 12_000 + "\r\n", 431),
    refused("a target that is too long", "GET /" + "u" * 70_000 + " HTTP/1.1\r\nHost: m\r\n\r\n", 431),
]  # fmt: skip


class Told(NamedTuple):
    """What a model says: passed on as `status` and `body`; None: cut off, so that no client takes it for whole."""

    name: str
    data: bytes
    status: int | None
    body: bytes = b""
    #: The model ends the connection after it.
    ends: bool = False


def broken(name: str, text: str, *, ends: bool = False) -> Told:
    return Told(name, text.encode("latin-1"), 502, ends=ends)


def cut(name: str, text: str, *, ends: bool = False) -> Told:
    return Told(name, text.encode("latin-1"), None, ends=ends)


def heard(name: str, text: str, body: bytes, status: int = 200, *, ends: bool = False) -> Told:
    return Told(name, text.encode("latin-1"), status, body, ends)


OK = "HTTP/1.1 200 OK\r\n"
IN_CHUNKS = OK + "Transfer-Encoding: chunked\r\n\r\n"
EVIL = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

ANSWERS = [
    # Length and chunks at once
    broken("length, then chunked", OK + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL),
    broken("chunked, then length", OK + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + EVIL),
    broken("length and an unknown coding", OK + "Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n\r\nabcd"),
    broken("length and an empty coding", OK + "Content-Length: 4\r\nTransfer-Encoding:\r\n\r\nabcd"),
    # Codings
    broken("chunked twice", OK + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    broken("gzip, chunked", OK + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    broken("gzip", OK + "Transfer-Encoding: gzip\r\n\r\nabc", ends=True),
    broken("identity", OK + "Transfer-Encoding: identity\r\n\r\nabc", ends=True),
    broken("xchunked", OK + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", ends=True),
    broken("a vertical tab before chunked", OK + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", ends=True),
    broken("a space before the coding's colon", OK + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    # Lengths
    broken("two lengths", OK + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    broken("the same length twice", OK + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    broken("a list of lengths", OK + "Content-Length: 3, 3\r\n\r\nabc"),
    broken("a length below 0", OK + "Content-Length: -3\r\n\r\nabc"),
    broken("a length with a sign", OK + "Content-Length: +3\r\n\r\nabc"),
    broken("a length in hex", OK + "Content-Length: 0x3\r\n\r\nabc"),
    broken("no length in Content-Length", OK + "Content-Length: \r\n\r\nabc"),
    broken("a length of 2**64 + 3", OK + "Content-Length: 18446744073709551619\r\n\r\nabc"),
    broken("a folded length", OK + "Content-Length: 0\r\n 3\r\n\r\nabc"),
    cut("a body shorter than its length", OK + "Content-Length: 5\r\n\r\nabc", ends=True),
    heard("a body longer than its length", OK + "Content-Length: 3\r\n\r\nabcdef", b"abc"),
    heard("an answer too many", OK + "Content-Length: 3\r\n\r\nabc" + EVIL, b"abc"),
    heard("half an answer too many", OK + "Content-Length: 3\r\n\r\nabc" + EVIL[:20], b"abc"),
    heard("a line end too many", OK + "Content-Length: 3\r\n\r\nabc\r\n", b"abc"),
    # Chunks
    cut("a chunk size that is none", IN_CHUNKS + "3\r\nabc\r\nzz\r\nabc\r\n0\r\n\r\n"),
    cut("a chunk size below 0", IN_CHUNKS + "3\r\nabc\r\n-1\r\nabc\r\n0\r\n\r\n"),
    cut("a chunk size with 0x", IN_CHUNKS + "3\r\nabc\r\n0x3\r\nabc\r\n0\r\n\r\n"),
    cut("a chunk size of 2**64 + 3", IN_CHUNKS + "3\r\nabc\r\n10000000000000003\r\nabc\r\n0\r\n\r\n"),
    cut("a line feed after a chunk size", IN_CHUNKS + "3\r\nabc\r\n3\nabc\r\n0\r\n\r\n"),
    cut("a line feed after a chunk", IN_CHUNKS + "3\r\nabc\n0\r\n\r\n"),
    cut("nothing after a chunk", IN_CHUNKS + "3\r\nabc0\r\n\r\n"),
    cut("a chunk longer than it says", IN_CHUNKS + "3\r\nabcdef\r\n0\r\n\r\n"),
    cut("an extension with a line feed", IN_CHUNKS + "3;a\nb\r\nabc\r\n0\r\n\r\n"),
    cut("an answer in the trailers", IN_CHUNKS + "3\r\nabc\r\n0\r\n" + EVIL, ends=True),
    cut("no last chunk", IN_CHUNKS + "3\r\nabc\r\n", ends=True),
    cut("a half chunk", IN_CHUNKS + "3\r\nab", ends=True),
    heard("an answer behind the last chunk", IN_CHUNKS + "3\r\nabc\r\n0\r\n\r\n" + EVIL, b"abc"),
    heard("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
    heard("neither length nor chunks", OK + "\r\nabc" + EVIL, b"abc" + EVIL.encode(), ends=True),
    # Status lines
    broken("no status", "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("a status of 0", "HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n"),
    broken("a status below 100", "HTTP/1.1 099 Below\r\nContent-Length: 0\r\n\r\n"),
    broken("no version", "200 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("HTTP/0.9", "<html>abc</html>", ends=True),
    broken("version 2", "HTTP/2 200\r\nContent-Length: 0\r\n\r\n"),
    broken("a version in small letters", "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("another protocol", "ICY 200 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("a space before the version", " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    broken("line feeds alone", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    heard("an unknown status", "HTTP/1.1 799 Own\r\nContent-Length: 3\r\n\r\nabc", b"abc", 799),
    # Lines
    broken("a folded header", OK + "X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc"),
    broken("a NUL in a value", OK + "X: a\0b\r\nContent-Length: 3\r\n\r\nabc"),
    broken("a carriage return in a value", OK + "X: a\rSet-Cookie: evil\r\nContent-Length: 3\r\n\r\nabc"),
    broken("a line feed in a value", OK + "X: a\nSet-Cookie: evil\r\nContent-Length: 3\r\n\r\nabc"),
    broken("a control character in a value", OK + "X: a\x01\r\nContent-Length: 3\r\n\r\nabc"),
    broken("a space after a name", OK + "X : a\r\nContent-Length: 3\r\n\r\nabc"),
    broken("a space in a name", OK + "X y: a\r\nContent-Length: 3\r\n\r\nabc"),
    broken("no name", OK + ": a\r\nContent-Length: 3\r\n\r\nabc"),
    broken("no colon", OK + "X\r\nContent-Length: 3\r\n\r\nabc"),
    # Interim answers
    broken("101 that nobody asked for", "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nbytes"),
    broken("101 that says nothing", "HTTP/1.1 101 Go\r\n\r\nbytes"),
    broken("an end after 100", "HTTP/1.1 100 Continue\r\n\r\n", ends=True),
    heard("100 with a length", "HTTP/1.1 100 Continue\r\nContent-Length: 4\r\n\r\n" + OK + "Content-Length: 3\r\n\r\nabc", b"abc"),
    # Bodies where none belong
    heard("204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", b"", 204),
    heard("204 with chunks", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", b"", 204),
    heard("304 with a body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", b"", 304),
    heard("204 and an answer", "HTTP/1.1 204 No Content\r\n\r\n" + EVIL, b"", 204),
    # Sizes and ends
    broken("nothing at all", "", ends=True),
    broken("half a status line", "HTTP/1.1 20", ends=True),
    broken("half a head", OK + "X: a\r\nContent-Le", ends=True),
    broken("a head that is too long", OK + "X: " + "v" * 300_000 + "\r\n\r\n"),
    broken("a phrase that is too long", "HTTP/1.1 200 " + "v" * 300_000 + "\r\n\r\n"),
    broken("a head without end", OK + "X: " + "v" * 70_000, ends=True),
]  # fmt: skip
