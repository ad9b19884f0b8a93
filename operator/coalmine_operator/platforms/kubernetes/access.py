"""Where the API server is and who we are to it: a pod's service account, or a kubeconfig file.

Both parts that talk to it, the client and the watches, get their sessions here, so that a token that rotates is one
matter. What a program outside would have to be run for (`exec`, `auth-provider`) is refused: in a cluster, where the
operator lives, nobody needs it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import hdrs

#: What kubelet puts into a pod.
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: Seconds for which a token is used as it was last read; kubelet writes it anew long before it ends.
TOKEN_PERIOD: Final = 60.0
USER_AGENT: Final = "coalmine-operator"

_CLUSTER_KEYS: Final = frozenset(
    ("server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "proxy-url")
)
_USER_KEYS: Final = frozenset(
    ("token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data")
)
#: They change nothing for us.
_IGNORED_KEYS: Final = frozenset(("extensions", "disable-compression"))


class AccessError(Exception):
    """No way to a cluster; one line."""


class Token:
    """A bearer token, from a file that is written anew where there is one."""

    def __init__(self, text: str = "", path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises AccessError where the file cannot be read now; later the last token stays in use."""
        self._text = text
        self._path = path
        self._clock = clock
        self._read_at = clock()
        if path is not None:
            try:
                self._text = path.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise AccessError(f"{path}: {_reason(error)}") from error
            if not self._text:
                raise AccessError(f"{path}: empty: a token is expected")

    def now(self) -> str:
        """Empty: there is none."""
        if self._path is not None and self._clock() - self._read_at >= TOKEN_PERIOD:
            return self.anew()
        return self._text

    def anew(self) -> str:
        """As it stands in the file at this moment."""
        if self._path is not None:
            self._read_at = self._clock()
            # In the middle of being written the old one is still good for a while.
            with contextlib.suppress(OSError, UnicodeDecodeError):
                self._text = self._path.read_text().strip() or self._text
        return self._text


class Access:
    """`server`: URL. `tls`: None for plain HTTP."""

    def __init__(
        self, server: str, tls: ssl.SSLContext | None = None, token: Token | None = None, proxy: str = ""
    ) -> None:
        self.server = server.rstrip("/")
        self._tls = tls
        self._token = token or Token()
        self._proxy = proxy

    def session(self, connections: int = 0) -> aiohttp.ClientSession:
        """The caller's to close; at most so many connections at once, 0 for any number."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=self._tls or True),
            headers={hdrs.USER_AGENT: USER_AGENT},
            middlewares=(self._authorize,),
            proxy=self._proxy or None,
            # Answers are of the API server alone: no cookies.
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def _authorize(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """A token that rotated between two looks at its file is read anew, once."""
        token = self._token.now()
        if not token:
            return await handler(request)
        request.headers[hdrs.AUTHORIZATION] = f"Bearer {token}"
        response = await handler(request)
        if response.status == HTTPStatus.UNAUTHORIZED and (newer := self._token.anew()) != token:
            response.release()
            request.headers[hdrs.AUTHORIZATION] = f"Bearer {newer}"
            response = await handler(request)
        return response


def in_pod(environ: Mapping[str, str] = os.environ, folder: Path = SERVICE_ACCOUNT) -> Access:
    """As the pod's service account. Raises AccessError."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise AccessError("this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
    shown = f"[{host}]" if ":" in host else host
    authority = folder / "ca.crt"
    return Access(f"https://{shown}:{port}", _tls(_file(authority)), Token(path=folder / "token"))


def from_kubeconfig(path: Path) -> Access:
    """As the user of the file's current context. Raises AccessError."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AccessError(f"{path}: {_reason(error)}") from error
    try:
        return _Kubeconfig(path, document).access()
    except AccessError as error:
        raise AccessError(f"{path}: {error}") from error


class _Kubeconfig:
    def __init__(self, path: Path, document: Any) -> None:
        self._folder = path.parent
        self._document = document if isinstance(document, dict) else {}

    def access(self) -> Access:
        context = self._named("contexts", "context", str(self._document.get("current-context") or ""))
        cluster = self._named("clusters", "cluster", str(context.get("cluster") or ""))
        user = self._named("users", "user", str(context.get("user") or "")) if context.get("user") else {}
        _refuse_unknown("cluster", cluster, _CLUSTER_KEYS)
        _refuse_unknown("user", user, _USER_KEYS)
        server = cluster.get("server")
        if not isinstance(server, str) or not server.startswith(("https://", "http://")):
            raise AccessError(f"cluster.server: {server!r} is no URL")
        tls = None
        if server.startswith("https://"):
            tls = _tls(
                self._data(cluster, "certificate-authority"),
                certificate=self._data(user, "client-certificate"),
                key=self._data(user, "client-key"),
                verify=cluster.get("insecure-skip-tls-verify") is not True,
            )
        return Access(server, tls, self._token(user), str(cluster.get("proxy-url") or ""))

    def _named(self, plural: str, singular: str, name: str) -> Mapping[str, Any]:
        for entry in self._document.get(plural) or ():
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(singular), dict):
                found: Mapping[str, Any] = entry[singular]
                return found
        raise AccessError(f"{plural}: there is no {name!r}: see `kubectl config view`")

    def _token(self, user: Mapping[str, Any]) -> Token:
        file = user.get("tokenFile")
        return Token(path=self._folder / str(file)) if file else Token(str(user.get("token") or ""))

    def _data(self, entry: Mapping[str, Any], field: str) -> bytes:
        """Of `FIELD-data`, in base64, or of the file that FIELD names; empty: neither is given."""
        if inline := entry.get(f"{field}-data"):
            try:
                return base64.b64decode(str(inline), validate=True)
            except binascii.Error:
                raise AccessError(f"{field}-data: no base64") from None
        return _file(self._folder / str(entry[field])) if entry.get(field) else b""


def _refuse_unknown(where: str, entry: Mapping[str, Any], known: frozenset[str]) -> None:
    for key in sorted(set(entry) - known - _IGNORED_KEYS):
        raise AccessError(
            f"{where}.{key}: not supported: use a token (`kubectl create token`), or a client certificate; "
            f"known are {', '.join(sorted(known))}"
        )


def _tls(authority: bytes, *, certificate: bytes = b"", key: bytes = b"", verify: bool = True) -> ssl.SSLContext:
    """PEM; without `authority` those that the machine trusts. Raises AccessError."""
    try:
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
        # From 3.13 on the default, which the authorities of many clusters would not pass: they lack key identifiers.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate or key:
            # Python reads them from a file only. Its default rights are the owner's alone.
            with tempfile.NamedTemporaryFile() as file:
                file.write(certificate + b"\n" + key)
                file.flush()
                context.load_cert_chain(file.name)
    except (ssl.SSLError, OSError, UnicodeDecodeError) as error:
        raise AccessError(f"certificates: {_reason(error)}") from error
    return context


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror
    return " ".join(str(error).split())[:300]
