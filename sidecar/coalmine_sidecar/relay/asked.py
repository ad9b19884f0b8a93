"""What a request's head asks for that is not simply passed on. Called for uncommon requests only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import Refusal
from .heads import COLON, CRLF, MARK, TRAILERS_TAKEN, Special, authority, find, without, without_h2c

if TYPE_CHECKING:
    from .exchange import Exchange


def heed_target(exchange: Exchange) -> None:
    """A target that is no path. Raises Refusal where it is no http URL either."""
    if exchange.method == b"CONNECT" or (exchange.url == b"*" and exchange.method == b"OPTIONS"):
        return
    host = authority(exchange.url)
    if host is None:
        raise Refusal(400, "the target is neither a path nor an http URL")
    # Of two hosts the target's is the one that counts (RFC 9112 3.2.2).
    if find(exchange.lines, b"host") != host:
        exchange.lines = [b"Host", COLON, host, CRLF, *without(exchange.lines, {b"host"})]


def heed_specials(exchange: Exchange, special: Special, length: int) -> None:
    """Framing, expectation, upgrade, and what is for this hop only. `length`: Content-Length, 0 where there is none."""
    if special.chunked:
        if exchange.http10:
            raise Refusal(400, "HTTP/1.0 has no transfer-encoding")
        exchange.length = None
    exchange.expect = special.expect and not exchange.http10
    if named := special.named():
        exchange.lines = without(exchange.lines, named)
    if special.takes_trailers and b"te" in special.tokens:
        exchange.lines += TRAILERS_TAKEN
    if special.shadow and not exchange.client.front.announces:
        # From the ingress of another sidecar, which lets no client say so.
        exchange.lines += MARK
    if special.upgrade and b"upgrade" in special.tokens:
        # An offer may be passed over (RFC 9110 7.8). So is h2c, which Java's client offers with its every first
        # request; and what comes with a body or from a client that leaves, where the change would be half made.
        offered = without_h2c(special.upgrade)
        if offered and not (special.chunked or length or exchange.http10 or exchange.close):
            exchange.upgrade = True
            exchange.lines += (b"connection", COLON, b"upgrade", CRLF, b"upgrade", COLON, offered, CRLF)
        else:
            exchange.ignores_upgrade = True
