"""Header blocks: read by `hpack`, written without state, checked as RFC 9113 (section 8.2) wants them."""

from __future__ import annotations

import re
from typing import Final

from .frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, LinkError

#: One field: a lower-case name and its value.
Field = tuple[bytes, bytes]
Fields = list[Field]

#: Blocks whose meaning is remembered; a peer repeats a few of them for ever.
_BLOCKS: Final = 64
#: Encoded fields that are remembered, and how long one may be.
_ENCODED: Final = 4096
_ENCODED_BYTES: Final = 256

_STATIC: Final[dict[Field, bytes]] = {
    (b":method", b"GET"): b"\x82",
    (b":method", b"POST"): b"\x83",
    (b":path", b"/"): b"\x84",
    (b":scheme", b"http"): b"\x86",
    (b":scheme", b"https"): b"\x87",
    (b":status", b"200"): b"\x88",
}
#: Not to be kept in anybody's table, ours included.
_SECRET: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"})
#: Other ones in every request: not worth a place among those that are remembered.
_UNIQUE: Final = frozenset({b"traceparent", b"tracestate", b"x-request-id"})
#: Fields of one hop or of HTTP/1.1: a message with one is malformed (section 8.2.2).
_CONNECTION: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_REQUEST: Final = frozenset({b":method", b":scheme", b":path", b":authority"})

_good_name: Final = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_bad_value: Final = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$").search

_cache: Final[dict[Field, bytes]] = {}


class Reader:
    """The decoder of one direction of a connection. Field lists it gives are shared: not to be changed."""

    __slots__ = ("_blocks", "_decoder", "_table")

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of a list of fields, counted as section 6.5.2 does."""
        from hpack import Decoder  # a MB that a pod without gRPC does not need

        self._decoder = Decoder(max_header_list_size=limit)
        self._table = self._decoder.header_table.dynamic_entries
        # Meanings of whole blocks. They hold while the table stays as it is, and a peer's table soon does: then a
        # block costs one look-up instead of some 20 us of pure Python.
        self._blocks: dict[bytes, Fields] = {}

    def read(self, block: bytes) -> Fields:
        """Raises LinkError: after a block that can't be read no later one can be."""
        fields = self._blocks.get(block)
        if fields is not None:
            return fields
        from hpack import HPACKError, OversizedHeaderListError

        table = self._table
        size, first = len(table), table[0] if table else None
        most = self._decoder.header_table.maxsize
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise LinkError(ENHANCE_YOUR_CALM, "the header list is too long") from None
        except (HPACKError, IndexError) as error:
            raise LinkError(COMPRESSION_ERROR, f"a header block that can't be read: {error}") from None
        changed = len(table) != size or (size and table[0] is not first)
        if changed or self._decoder.header_table.maxsize != most:
            self._blocks.clear()
        elif len(self._blocks) < _BLOCKS and len(block) <= 1024:
            self._blocks[block] = fields
        return fields


def write(fields: Fields) -> bytes:
    """A header block that neither needs nor changes a table: any peer can read it, and equal fields are equal bytes."""
    out = []
    for field in fields:
        encoded = _cache.get(field)
        out.append(encoded if encoded is not None else _encode(field))
    return b"".join(out)


def _encode(field: Field) -> bytes:
    name, value = field
    if field in _STATIC:
        encoded = _STATIC[field]
    elif name in _SECRET:
        return b"".join((b"\x10", _length(len(name)), name, _length(len(value)), value))
    else:
        encoded = b"".join((b"\x00", _length(len(name)), name, _length(len(value)), value))
    if len(encoded) <= _ENCODED_BYTES and name not in _UNIQUE:
        if len(_cache) >= _ENCODED:
            _cache.clear()
        _cache[name, value] = encoded
    return encoded


def _length(size: int) -> bytes:
    """RFC 7541, section 5.1, with a prefix of 7 bits."""
    if size < 127:
        return bytes((size,))
    out = [127]
    size -= 127
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)


def find(fields: Fields, name: bytes) -> bytes | None:
    """The value of the first field of a name."""
    for key, value in fields:
        if key == name:
            return value
    return None


def problem(fields: Fields, *, request: bool) -> str:
    """Why a message's head is malformed; "" for a good one."""
    seen: set[bytes] = set()
    plain = False
    for name, value in fields:
        if not _good_name(name):
            return f"{name[:64]!r} is no name of a field"
        if _bad_value(value):
            return f"{name.decode()}: a value with a control character, or with blanks around it"
        if name.startswith(b":"):
            allowed = name in _REQUEST if request else name == b":status"
            if plain or name in seen or not allowed:
                return f"{name.decode()}: not allowed there"
            seen.add(name)
        else:
            plain = True
            if name in _CONNECTION or (name == b"te" and value != b"trailers"):
                return f"{name.decode()}: not allowed in HTTP/2"
    missing = ({b":method", b":scheme", b":path"} if request else {b":status"}) - seen
    if missing:
        return f"{min(missing).decode()} is missing"
    if request and find(fields, b":path") == b"":
        return ":path is empty"
    if not request and not (find(fields, b":status") or b"").isdigit():
        return ":status is no number"
    return ""


def trailer_problem(fields: Fields) -> str:
    """The same for trailers."""
    for name, value in fields:
        if name.startswith(b":") or not _good_name(name):
            return f"{name[:64]!r} is no name of a trailer"
        if _bad_value(value):
            return f"{name.decode()}: a value with a control character, or with blanks around it"
    return ""
