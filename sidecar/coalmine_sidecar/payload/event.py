"""A request and its answer as two CloudEvents, of the shape that KServe's logger sends: pure.

Both have the same id, and types `org.kubeflow.serving.inference.request` and `.response`; who reads KServe's events
reads these. What KServe has no attribute for stands in extensions of our own. Headers are never part of an event.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote

import msgspec

from .redact import MAX_READ, Redaction

REQUEST: Final = "org.kubeflow.serving.inference.request"
RESPONSE: Final = "org.kubeflow.serving.inference.response"

_OCTETS: Final = "application/octet-stream"
_GZIP: Final = b"\x1f\x8b"
#: What a row of a Parquet file has, beside `DATA`: all attributes that an event may have, and the type of its data.
ATTRIBUTES: Final = (
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "inferenceservicename",
    "namespace",
    "component",
    "endpoint",
    "metadata",
    "model",
    "revision",
    "version",
    "track",
    "path",
    "status",
    "durationseconds",
    "jsonlength",
    "truncated",
    "omitted",
    "size",
    "datacontenttype",
)
DATA: Final = "data"
#: Characters of an attribute; longer values are cut.
_LONGEST: Final = 1024
#: What a header of the HTTP binding holds as it is: printable ASCII but blank, quote and per cent.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')

#: What became of a body beside being passed on: cut, or left out because a redaction could not read it.
Change = Literal["", "truncated", "omitted_not_json", "omitted_size"]


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """`json_length`: the message's Inference-Header-Content-Length. `size`: of the body as it was, where `data` is but
    its beginning; -1: `data` is all of it."""

    data: bytes
    content_type: str = ""
    json_length: int | None = None
    size: int = -1


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was answered. `id`: the prediction's, or the request's.

    `started`: Unix seconds; `duration`: seconds to the answer's last byte. `path`: the request's target. `status`: of
    the answer, 0 if there was none.
    """

    id: str
    revision: str
    version: str
    track: str
    started: float
    duration: float
    path: str
    status: int
    request: Body
    response: Body


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Who tells."""

    model: str
    namespace: str
    deployment: str
    pod: str


class Event(msgspec.Struct, frozen=True):
    """`attributes` without the type of `data`, which is None where the body was left out."""

    attributes: dict[str, str]
    content_type: str
    data: bytes | None
    change: Change


def make_events(exchange: Exchange, source: Source, redaction: Redaction, max_bytes: int) -> tuple[Event, Event]:
    """The request's and the answer's; bodies redacted first, then cut to `max_bytes`."""
    common = {
        "specversion": "1.0",
        "id": exchange.id or "unknown",
        "source": f"/namespaces/{source.namespace}/modeldeployments/{source.deployment}/pods/{source.pod}",
        "inferenceservicename": source.deployment,
        "namespace": source.namespace,
        "component": "predictor",
        "endpoint": "default" if exchange.track == "stable" else exchange.track,
        # Headers that KServe was told to pass on: there are none here.
        "metadata": "{}",
        "model": source.model,
        "revision": exchange.revision,
        "version": exchange.version,
        "track": exchange.track,
        "path": exchange.path.partition("?")[0],
    }
    request = common | {"type": REQUEST, "time": _time(exchange.started)}
    response = common | {
        "type": RESPONSE,
        "time": _time(exchange.started + exchange.duration),
        "status": str(exchange.status),
        "durationseconds": f"{exchange.duration:.6f}",
    }
    return (
        _event(request, exchange.request, redaction, max_bytes),
        _event(response, exchange.response, redaction, max_bytes),
    )


def to_headers(event: Event) -> dict[str, str]:
    """The event's headers in the HTTP binding's binary mode; its data are the body."""
    headers = {f"ce-{name}": quote(value, safe=_PLAIN) for name, value in event.attributes.items()}
    if event.data is not None:
        headers["Content-Type"] = event.content_type
    return headers


def to_line(event: Event) -> bytes:
    """The event in structured mode, with a newline at its end and nowhere else."""
    document: dict[str, str | msgspec.Raw] = dict(event.attributes)
    if event.data is not None:
        document["datacontenttype"] = event.content_type
        if event.change != "truncated" and _is_json(event.data):
            document["data"] = msgspec.Raw(_one_line(event.data))
        else:
            document["data_base64"] = base64.b64encode(event.data).decode()
    return msgspec.json.encode(document) + b"\n"


def to_row(event: Event) -> list[bytes | None]:
    """Its values for `ATTRIBUTES` and `DATA`; None: it has none."""
    attributes = event.attributes
    if event.data is not None:
        attributes = attributes | {"datacontenttype": event.content_type}
    return [*(attributes[name].encode() if name in attributes else None for name in ATTRIBUTES), event.data]


def _event(attributes: Mapping[str, str], body: Body, redaction: Redaction, max_bytes: int) -> Event:
    shown = {name: _printable(value) for name, value in attributes.items()}
    size = body.size if body.size >= 0 else len(body.data)
    data, content_type, json_length = body.data, _printable(body.content_type) or _OCTETS, body.json_length
    if redaction:
        try:
            if size > MAX_READ or len(data) < size:
                return Event(shown | {"omitted": "size", "size": str(size)}, "", None, "omitted_size")
            # A body of nothing has no secrets.
            data = msgspec.json.encode(redaction.apply(data)) if data else data
        except ValueError:
            return Event(shown | {"omitted": "notjson", "size": str(size)}, "", None, "omitted_not_json")
        json_length = None
    elif data.startswith(_GZIP):
        content_type = "application/gzip"
    if json_length is not None:
        shown["jsonlength"] = str(json_length)
    if len(data) > max_bytes or len(body.data) < size:
        shown |= {"truncated": "true", "size": str(size)}
        # The beginning of a document is no document.
        return Event(shown, _OCTETS, data[:max_bytes], "truncated")
    return Event(shown, content_type, data, "")


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST])


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return False
    return True


def _one_line(document: bytes) -> bytes:
    """The same JSON without line breaks; numbers stay as they were written."""
    return msgspec.json.format(document, indent=-1) if b"\n" in document or b"\r" in document else document
