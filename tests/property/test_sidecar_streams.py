"""Streams of events: however the bytes are cut, the same is read; and whatever the bytes are, nothing is raised."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from coalmine_sidecar.protocols.openai import StreamReader
from coalmine_sidecar.protocols.sse import EventReader

LIMIT = 24

_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
_lines = st.sampled_from(
    [b"", b"data: a", b"data:b", b"data", b"data: ", b"data:  c", b": note", b"event: x", b"id", b"dat"]
)
_long = st.integers(min_value=LIMIT - 8, max_value=LIMIT + 8).map(lambda size: b"data:".ljust(size, b"x"))
_other = st.binary(max_size=6).map(lambda data: data.translate(None, b"\r\n"))


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    lines = draw(st.lists(st.tuples(st.one_of(_lines, _long, _other), _ends), max_size=20))
    start = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return start + b"".join(line + end for line, end in lines) + draw(st.sampled_from([b"", b"data: cut", b"data"]))


@st.composite
def cut(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    places = sorted(draw(st.sets(st.integers(0, len(stream)), max_size=30)))
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


def as_the_standard_reads(stream: bytes) -> list[bytes | None]:
    """HTML 9.2.6, on the whole text at once."""
    *lines, _ = re.split(rb"\r\n|\n|\r", stream)
    events: list[bytes | None] = []
    data: list[bytes] = []
    size, long = 0, False
    for at, line in enumerate(lines):
        length = len(line)
        line = line.removeprefix(b"\xef\xbb\xbf") if at == 0 else line
        if not line:
            if data:
                events.append(None if long else b"\n".join(data))
            data, size, long = [], 0, False
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
            size += len(line)
            long = long or length > LIMIT or size > LIMIT
    return events


@given(st.data())
def test_events_do_not_depend_on_how_the_bytes_are_cut(data: st.DataObject):
    stream = data.draw(streams())
    reader = EventReader(LIMIT)
    events = [event for piece in data.draw(cut(stream)) for event in reader.feed(piece)]
    assert events == as_the_standard_reads(stream)


@given(st.lists(st.binary(max_size=40), max_size=40))
def test_a_reader_keeps_no_more_than_its_limits(pieces: list[bytes]):
    reader = EventReader(LIMIT)
    for piece in pieces:
        reader.feed(piece)
        assert len(reader._partial) <= LIMIT
        assert sum(len(line) + 1 for line in reader._data or ()) <= LIMIT


_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "usage", "error", "code", "finish_reason", "text", "data"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(st.lists(st.one_of(st.none(), st.binary(max_size=30), _values), max_size=8))
def test_whatever_a_server_streams_is_read_without_an_exception(events: list[object]):
    reader = StreamReader("chat")
    for at, event in enumerate(events):
        raw = event if event is None or isinstance(event, bytes) else json.dumps(event).encode()
        reader.take(raw, float(at))
    assert reader.answer().generation is reader.generation
    assert reader.status == 0 or 400 <= reader.status <= 599
