"""The events of a recording: CloudEvents of KServe's types in JSON lines or in Parquet, one a line or a row."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from .baseline_parquet import PARQUET, ParquetFile
from .errors import CliError

REQUEST: Final = "org.kubeflow.serving.inference.request"
RESPONSE: Final = "org.kubeflow.serving.inference.response"
#: What stands for an id where the payload log had none.
_UNKNOWN: Final = "unknown"
_LONGEST_LINE: Final = 64 << 20
#: Rows of Parquet that are in memory at a time: bodies may be long.
_ROWS: Final = 64
_GZIP: Final = b"\x1f\x8b"
#: What a compressed body may become.
_MOST_UNZIPPED: Final = 64 << 20
_JSON: Final = "application/json"


class Event(Struct, frozen=True):
    """A request, or the answer to it, which has the same `id`.

    `version` of the model, `path` of the request and `status` of the answer are the payload log's own. `lost`: what
    became of the body where it is not all there.
    """

    id: str
    asks: bool
    version: str
    path: bytes
    status: str
    content_type: bytes
    json_length: int | None
    body: bytes
    lost: str


class _Written(Struct):
    """What of an event is needed, as it stands in a line. Attributes may be numbers or truth values."""

    id: str
    type: str
    data: Raw = Raw()
    data_base64: str | None = None
    datacontenttype: str | None = None
    version: Any = None
    path: str | None = None
    status: Any = None
    jsonlength: Any = None
    truncated: Any = None
    omitted: Any = None


class Events:
    """Of files, one after the other. `left`: how many were left out, by why."""

    def __init__(self, paths: Sequence[Path], left: Counter[str]) -> None:
        self._paths = paths
        self._left = left

    def __iter__(self) -> Iterator[tuple[Event, float]]:
        """With the share of all files that is read by then. Raises CliError."""
        for at, path in enumerate(self._paths):
            for event, share in _of_parquet(path, self._left) if _is_parquet(path) else _of_lines(path, self._left):
                yield event, (at + share) / len(self._paths)


def is_recording(path: Path) -> bool:
    """Whether rows of Parquet are events: by their columns, and their types. Raises CliError."""
    file = ParquetFile(path)
    if not {"id", "type", "data"} <= set(file.columns):
        return False
    for batch, _ in file.batches(["type"], rows=_ROWS):
        for kind in batch["type"]:
            if kind is not None:
                return kind in (REQUEST, RESPONSE)
    return False


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as opened:
            return opened.read(len(PARQUET)) == PARQUET
    except OSError as error:
        raise CliError(f"{path}: cannot be read: {error.strerror}", code=2) from error


def _of_lines(path: Path, left: Counter[str]) -> Iterator[tuple[Event, float]]:
    decode = msgspec.json.Decoder(_Written).decode
    try:
        size = max(path.stat().st_size, 1)
        with path.open("rb") as opened:
            for number, line in enumerate(iter(lambda: opened.readline(_LONGEST_LINE), b""), 1):
                if not line.strip():
                    continue
                try:
                    written = decode(line)
                    body, inline = _body(written)
                except (ValueError, RecursionError) as error:
                    if not line.endswith(b"\n"):
                        left["lines cut off at the end"] += 1
                        return
                    raise CliError(
                        f"{path}:{number}: is no CloudEvent in JSON: {' '.join(str(error).split())}", code=2
                    ) from error
                if event := _event(msgspec.structs.asdict(written), body, left, inline=inline):
                    yield event, opened.tell() / size
    except OSError as error:
        raise CliError(f"{path}: cannot be read: {error.strerror}", code=2) from error


def _of_parquet(path: Path, left: Counter[str]) -> Iterator[tuple[Event, float]]:
    file = ParquetFile(path)
    columns = [name for name in _Written.__struct_fields__ if name in file.columns]
    for batch, share in file.batches(columns, rows=_ROWS):
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            data = row.get("data")
            body = data.encode() if isinstance(data, str) else data or b""
            if event := _event(row, body, left):
                yield event, share


def _event(written: Mapping[str, Any], body: bytes, left: Counter[str], *, inline: bool = False) -> Event | None:
    """None for what is not wanted. `inline`: the body is JSON that stands in the event as such."""
    kind, name = written["type"], written["id"]
    if kind not in (REQUEST, RESPONSE):
        left["events of another type"] += 1
        return None
    if not name or name == _UNKNOWN:
        left["events without an id"] += 1
        return None
    content_type = written.get("datacontenttype") or _JSON
    lost = "truncated" if _said(written.get("truncated")) else "omitted" if _said(written.get("omitted")) else ""
    if body.startswith(_GZIP) and not lost:
        unzipped = _unzipped(body)
        lost = "" if unzipped is not None else "compressed in a way that is not read"
        body = unzipped or b""
        content_type = _JSON
    length = str(written.get("jsonlength") or "")
    return Event(
        id=name,
        asks=kind == REQUEST,
        version=_text(written.get("version")),
        path=_text(written.get("path")).encode(),
        status=_text(written.get("status")) or "200",
        content_type=content_type.encode(),
        # Of one whose JSON is all of it nothing follows.
        json_length=int(length) if length.isdecimal() and not inline else None,
        body=b"" if lost else body,
        lost=lost,
    )


def _body(written: _Written) -> tuple[bytes, bool]:
    """And whether it is JSON inside the event. Raises ValueError where it is not what it should be."""
    if written.data_base64 is not None:
        return base64.b64decode(written.data_base64, validate=True), False
    data = bytes(written.data)
    if not data or data == b"null":
        return b"", False
    if data.startswith(b'"'):
        # Text stands in JSON as a string, and some write documents so, too.
        text: str = msgspec.json.decode(data)
        if "json" not in (written.datacontenttype or _JSON) or text.lstrip()[:1] in ("{", "["):
            return text.encode(), False
    return data, True


def _unzipped(body: bytes) -> bytes | None:
    """None where it is longer than can be kept, or damaged."""
    reader = zlib.decompressobj(wbits=31)
    try:
        found = reader.decompress(body, _MOST_UNZIPPED)
    except zlib.error:
        return None
    return found if reader.eof else None


def _said(value: Any) -> bool:
    return value not in (None, False, "", "false")


def _text(value: Any) -> str:
    return "" if value is None else str(value)
