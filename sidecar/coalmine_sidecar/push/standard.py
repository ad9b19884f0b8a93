"""OpenTelemetry's own variables of an OTLP exporter, which keep a receiver's key out of command lines. Pure.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/: those with METRICS_ take the place of those without, an
empty one is none, and what cannot be read is told and left out. Values of headers are never told: they are keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from ..outward import http_url

_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_METRICS: Final = "METRICS_"
_WHAT: Final = ("ENDPOINT", "HEADERS", "PROTOCOL", "TIMEOUT")
#: What else an SDK sends its metrics to; this is about OTLP.
_EXPORTERS: Final = "OTEL_METRICS_EXPORTER"
VARIABLES: Final = (*(f"{_PREFIX}{which}{what}" for which in ("", _METRICS) for what in _WHAT), _EXPORTERS)

#: Where a receiver of OTLP over HTTP takes metrics, from its base on.
METRICS_PATH: Final = "/v1/metrics"
#: Seconds that somebody may wait for a receiver.
_LONGEST: Final = 300.0
_MAX_HEADERS: Final = 32
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
#: Visible characters of ASCII, and blanks between them: no line of its own can be made of one.
_VALUE: Final = re.compile(r"[!-~]([ \t!-~]*[!-~])?")
#: What the body is said to be, which is ours to say.
_OURS: Final = ("connection", "content-encoding", "content-length", "content-type", "transfer-encoding")

Headers = tuple[tuple[str, str], ...]


class Standard(Struct, frozen=True, kw_only=True):
    """`url`: the whole one, empty: none; `timeout`: seconds, None: not said; `remarks`: a line for what is left out."""

    url: str = ""
    headers: Headers = ()
    timeout: float | None = None
    remarks: tuple[str, ...] = ()


def read_standard(environ: Mapping[str, str], url: str = "") -> Standard:
    """`url`: where somebody nearer to us said that metrics go; empty: the variables say it, or nobody does."""
    remarks: list[str] = []
    url = url or _url(environ, remarks)
    if not url:
        return Standard(remarks=tuple(remarks))
    return Standard(
        url=url,
        headers=_headers(*_of(environ, "HEADERS"), remarks),
        timeout=_timeout(*_of(environ, "TIMEOUT"), remarks),
        remarks=tuple(remarks),
    )


def metrics_url(text: str) -> str:
    """The URL for metrics of a receiver whose base or whole URL is given. Raises ValueError with one line."""
    url = http_url(text)
    path = url.path.rstrip("/")
    return str(url if path.endswith(METRICS_PATH) else url.with_path(path + METRICS_PATH, keep_query=True))


def _of(environ: Mapping[str, str], what: str) -> tuple[str, str]:
    """A variable that is set, and its text."""
    names = (f"{_PREFIX}{_METRICS}{what}", f"{_PREFIX}{what}")
    name = next((one for one in names if environ.get(one, "").strip()), names[1])
    return name, environ.get(name, "").strip()


def _url(environ: Mapping[str, str], remarks: list[str]) -> str:
    name, text = _of(environ, "ENDPOINT")
    if not text or "otlp" not in (environ.get(_EXPORTERS, "").strip() or "otlp"):
        return ""
    protocol, said = _of(environ, "PROTOCOL")
    if said == "grpc":
        remarks.append(f"{name}: left out, since {protocol} is grpc: metrics go over HTTP, mostly to port 4318")
        return ""
    try:
        return str(http_url(text)) if _METRICS in name else metrics_url(text)
    except ValueError as error:
        remarks.append(f"{name}: left out: {error}")
        return ""


def _headers(name: str, text: str, remarks: list[str]) -> Headers:
    """`key=value,key=value`, both percent-encoded as in W3C Baggage."""
    found: dict[str, str] = {}
    for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        key, equals, value = (unquote(part).strip() for part in entry.partition("="))
        key = key.lower()
        if not equals or not _NAME.fullmatch(key) or not _VALUE.fullmatch(value):
            remarks.append(f"{name}: entry {number} is left out: write NAME=VALUE, and what is not ASCII as %XX")
        elif key in _OURS:
            remarks.append(f"{name}: entry {number} is left out: {key} is not for others to say")
        elif len(found) == _MAX_HEADERS and key not in found:
            remarks.append(f"{name}: entries from {number} on are left out: at most {_MAX_HEADERS} are taken")
            break
        else:
            found[key] = value
    return tuple(found.items())


def _timeout(name: str, text: str, remarks: list[str]) -> float | None:
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text[:10]) / 1000 <= _LONGEST:
        remarks.append(f"{name}: {text[:20]!r} is left out: write milliseconds, 1 to {_LONGEST * 1000:g}")
        return None
    return int(text) / 1000
