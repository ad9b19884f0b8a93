"""Certificates from files: towards the model, between sidecars, at the ingress. Read again when the files change.

Connections keep the certificates they began with; new ones get those that the files hold now. Files that cannot be used
are told in one line, and the last good ones stay in force.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from ..tlsflags import TlsFiles

#: Seconds between two looks at the files. Whoever replaces them leaves the old ones valid for longer.
PERIOD: Final = 1.0
#: Seconds a stranger may take for a handshake.
HANDSHAKE: Final = 5.0
#: Seconds between two lines about handshakes with the same trouble.
QUIET: Final = 60.0
#: Different reasons that are remembered; OpenSSL has a few dozen.
MAX_TOLD: Final = 64
MAX_BYTES: Final = 1 << 20

HTTP1: Final = "http/1.1"
HTTP2: Final = "h2"

log = logging.getLogger(__name__)


class TlsError(OSError):
    """Files that can't be used; one line with the path and what to do. An OSError: no connection comes of it."""


class _Contexts(Struct, frozen=True):
    client: Mapping[str, ssl.SSLContext]
    server: ssl.SSLContext | None


class Tls:
    """The contexts of one purpose. Without good files there are none, and `problem` says why."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self.problem = f"{files.flag}: not read yet"
        #: Grows whenever other certificates come into force.
        self.generation = 0
        self._contexts: _Contexts | None = None
        self._mark: object = None
        self._doubted = False
        self._told: dict[str, float] = {}

    def client(self, protocol: str = HTTP1) -> ssl.SSLContext | None:
        return self._contexts.client.get(protocol) if self._contexts is not None else None

    @property
    def server(self) -> ssl.SSLContext | None:
        return self._contexts.server if self._contexts is not None else None

    def options(self, protocol: str) -> dict[str, Any]:
        """For `create_connection`. Raises TlsError where there are no certificates yet."""
        context = self.client(protocol)
        if context is None:
            raise TlsError(self.problem)
        return {"ssl": context, "server_hostname": self.files.server_name or None}

    def poll(self) -> None:
        """Look once whether the files changed, and take them over if they are good."""
        mark = self._marks()
        # What was wrong may be right by now without a change: a certificate that was not valid yet.
        if mark == self._mark and not self._doubted and not self.problem:
            return
        try:
            self._contexts = _build(self.files)
        except TlsError as error:
            # One file may have been replaced a moment before the other: it is told if it is still so at the next look.
            self._doubted = mark != self._mark and self._contexts is not None
            self._mark = mark
            if not self._doubted and str(error) != self.problem:
                kept = "; the last good ones stay in force" if self._contexts is not None else ""
                self.problem = str(error)
                log.error("%s%s", error, kept)  # noqa: TRY400 - one clear line
            return
        self._doubted = False
        self._mark = mark
        self.problem = ""
        self.generation += 1
        log.info("%s: certificates read", self.files.flag)

    def failed(self, peer: str, error: BaseException) -> None:
        """A handshake came to nothing: one line, and no second one for the same reason for a while."""
        why = reason(error)
        now = time.monotonic()
        known = why in self._told or len(self._told) < MAX_TOLD
        if known and now - self._told.get(why, -QUIET) >= QUIET:
            self._told[why] = now
            log.warning("%s: TLS with %s failed: %s", self.files.flag, peer, why)

    def _marks(self) -> object:
        marks: list[object] = []
        for path in (self.files.ca, self.files.cert, self.files.key):
            try:
                found = path.stat() if path is not None else None
            except OSError as error:
                marks.append((error.errno,))
            else:
                marks.append((found.st_mtime_ns, found.st_ino, found.st_size) if found is not None else ())
        return marks


def reason(error: BaseException) -> str:
    """An error of a handshake in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it cannot be read").replace("_", " ").lower()
    if isinstance(error, TimeoutError):
        return "no handshake in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _build(files: TlsFiles) -> _Contexts:
    """Raises TlsError."""
    for name, path, mark in (
        ("ca", files.ca, b"-----BEGIN CERTIFICATE-----"),
        ("cert", files.cert, b"-----BEGIN CERTIFICATE-----"),
        ("key", files.key, b"PRIVATE KEY-----"),
    ):
        if path is not None:
            _look(f"--{files.flag}-{name} {path}", path, mark)
    client = {}
    if files.connects:
        client = {protocol: _client(files, protocol) for protocol in (HTTP1, HTTP2)}
    server = _server(files) if files.serves else None
    _check_dates(files, next(iter(client.values()), server))
    if client and server is not None:
        _try(files, client[HTTP1], server)
    return _Contexts(client, server)


def _look(what: str, path: Path, mark: bytes) -> None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise TlsError(f"{what}: {error.strerror}: put the file there") from None
    if len(data) > MAX_BYTES or mark not in data:
        kind = "private key" if b"KEY" in mark else "certificate"
        raise TlsError(f"{what}: holds no {kind}: write it as PEM")


def _client(files: TlsFiles, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _strict(context)
    context.set_alpn_protocols([protocol])
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif files.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, files)
    if files.cert is not None:
        _show(context, files)
    return context


def _server(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _strict(context)
    # Whether HTTP/1.1 or HTTP/2 is spoken is told apart by the first bytes, as without TLS.
    context.set_alpn_protocols([HTTP2, HTTP1])
    # Nobody resumes: what a session would save is not worth what tickets cost.
    context.num_tickets = 0
    _show(context, files)
    if files.ca is not None:
        _trust(context, files)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _strict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION


def _trust(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_verify_locations(cafile=files.ca)
    except (ssl.SSLError, OSError) as error:
        raise TlsError(f"--{files.flag}-ca {files.ca}: {reason(error)}: write certificates as PEM") from None


def _show(context: ssl.SSLContext, files: TlsFiles) -> None:
    if files.cert is None:
        raise TlsError(f"--{files.flag}-cert: missing: name the file of the certificate")
    try:
        # An empty password, so that an encrypted key is refused and not asked for on a terminal.
        context.load_cert_chain(files.cert, files.key, password="")
    except (ssl.SSLError, OSError) as error:
        remedy = "give the certificate with its own key, both as PEM, the key without a password"
        raise TlsError(
            f"--{files.flag}-cert {files.cert}, --{files.flag}-key {files.key}: {reason(error)}: {remedy}"
        ) from None


def _check_dates(files: TlsFiles, context: ssl.SSLContext | None) -> None:
    """An authority that has expired vouches for nobody."""
    if context is None or files.ca is None or not files.verify:
        return
    ends = [ssl.cert_time_to_seconds(str(found["notAfter"])) for found in context.get_ca_certs() if "notAfter" in found]
    if ends and max(ends) < time.time():
        raise TlsError(f"--{files.flag}-ca {files.ca}: has expired: put a new one there")


def _try(files: TlsFiles, client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Between equals: what the others will say to our certificate, we can say ourselves."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=files.server_name or None),
        server.wrap_bio(up, down, server_side=True),
    ]
    try:
        for _ in range(8):
            for end in list(ends):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                ends.remove(end)
            if not ends:
                return
    except ssl.SSLError as error:
        remedy = f"it has to be valid, of --{files.flag}-ca, for {files.server_name}, for servers and for clients"
        raise TlsError(f"--{files.flag}-cert {files.cert}: {reason(error)}: {remedy}") from None


def watch(tls: Tls, loop_later: Callable[..., Any], changed: Callable[[], None]) -> None:
    """Poll from now on, every PERIOD; `changed` is called after each look that changed something."""
    before = (tls.generation, tls.problem)
    tls.poll()
    if (tls.generation, tls.problem) != before:
        changed()
    loop_later(PERIOD, watch, tls, loop_later, changed)
