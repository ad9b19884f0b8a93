"""Wire formats: whatever comes, nothing is raised; whatever was written properly is read as it was meant."""

import math
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json

from coalmine_sidecar.protocols import EXTRACT_FAILURES, extract, v2
from coalmine_sidecar.protocols.outputs import MAX_COLUMNS, MAX_ROWS, MAX_WIDTH

few = settings(max_examples=80, deadline=None)

CODES = {
    "UINT8": ("B", st.integers(0, 2**8 - 1)),
    "UINT16": ("H", st.integers(0, 2**16 - 1)),
    "UINT32": ("I", st.integers(0, 2**32 - 1)),
    "UINT64": ("Q", st.integers(0, 2**64 - 1)),
    "INT8": ("b", st.integers(-(2**7), 2**7 - 1)),
    "INT16": ("h", st.integers(-(2**15), 2**15 - 1)),
    "INT32": ("i", st.integers(-(2**31), 2**31 - 1)),
    "INT64": ("q", st.integers(-(2**63), 2**63 - 1)),
    "FP16": ("e", st.floats(width=16)),
    "FP32": ("f", st.floats(width=32)),
    "FP64": ("d", st.floats(width=64)),
    "BOOL": ("?", st.booleans()),
}
labels = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | labels,
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(labels, inner, max_size=10),
    max_leaves=30,
)
#: Documents that get past the first checks.
v2_outputs = st.fixed_dictionaries(
    {
        "name": labels,
        "shape": st.lists(st.integers(-1, 12) | st.just(2**40), max_size=4),
        "datatype": st.sampled_from([*CODES, "BYTES", "BF16", "fp32"]),
    },
    optional={
        "data": json_values,
        "parameters": st.none()
        | st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 60) | json_values}),
    },
)
documents = (
    json_values
    | st.fixed_dictionaries({"outputs": st.lists(v2_outputs, max_size=4)})
    | st.fixed_dictionaries({"predictions": json_values})
    | st.fixed_dictionaries({"outputs": json_values})
)
paths = st.sampled_from([b"/v2/models/m/infer", b"/v1/models/m:predict", b"/score", b"/v2", b""]) | st.binary(
    max_size=20
)
protocols = st.sampled_from(["auto", "v1", "v2"])


def check(protocol: str, path: bytes, length: int | None, body: bytes) -> None:
    answer = extract(protocol, path, b"application/json", length, body)
    assert set(answer.failures) <= set(EXTRACT_FAILURES)
    assert len(set(answer.failures)) == len(answer.failures)
    assert 0 <= answer.rows <= len(body)
    assert len(answer.columns) <= MAX_COLUMNS
    for name, values in answer.columns:
        assert isinstance(name, str)
        assert 0 < len(values) <= MAX_ROWS
        assert all(value is None or isinstance(value, float | int | str) for value in values)


@few
@given(protocols, paths, st.none() | st.integers(-2, 200), st.binary(max_size=200))
def test_any_bytes(protocol: str, path: bytes, length: int | None, body: bytes) -> None:
    check(protocol, path, length, body)


@few
@given(protocols, paths, st.booleans(), documents, st.binary(max_size=80), st.integers(0, 30))
def test_any_document_whole_followed_by_bytes_or_cut(
    protocol: str, path: bytes, with_length: bool, document: Any, tail: bytes, cut: int
) -> None:
    head = json.encode(document)
    check(protocol, path, len(head) if with_length else None, head + tail)
    check(protocol, path, None, head)
    check(protocol, path, None, head[:-cut])


@st.composite
def tensors(draw: st.DrawFn) -> tuple[dict[str, Any], list[Any]]:
    """A tensor's description and its elements, row-major."""
    rows, width = draw(st.integers(1, 6)), draw(st.integers(1, MAX_WIDTH))
    datatype = draw(st.sampled_from([*CODES, "BYTES"]))
    element = labels if datatype == "BYTES" else CODES[datatype][1]
    elements = draw(st.lists(element, min_size=rows * width, max_size=rows * width))
    return {"shape": [rows, width], "datatype": datatype}, elements


def pack(datatype: str, elements: list[Any]) -> bytes:
    if datatype == "BYTES":
        texts = [element.encode() for element in elements]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return struct.pack(f"<{len(elements)}{CODES[datatype][0]}", *elements)


def same(read: Any, meant: Any, *, as_json: bool) -> bool:
    if isinstance(meant, float) and not math.isfinite(meant):
        # JSON has no such numbers; ours are null.
        return read is None if as_json else read == meant or (math.isnan(read) and math.isnan(meant))
    return type(read) is type(meant) and read == meant


@few
@given(st.lists(st.tuples(tensors(), st.booleans(), st.booleans()), min_size=1, max_size=4))
def test_tensors_written_in_any_way_are_read_as_meant(
    written: list[tuple[tuple[dict[str, Any], list[Any]], bool, bool]],
) -> None:
    outputs, blocks = [], b""
    for i, ((about, elements), binary, nested) in enumerate(written):
        out = {"name": str(i), **about}
        if binary:
            block = pack(about["datatype"], elements)
            out["parameters"] = {"binary_data_size": len(block)}
            blocks += block
        else:
            _, width = about["shape"]
            rows = [elements[at : at + width] for at in range(0, len(elements), width)]
            out["data"] = rows if nested else elements
        outputs.append(out)
    head = json.encode({"model_name": "m", "outputs": outputs})
    answer = v2.read(head + blocks, len(head))
    assert answer.failures == []
    assert answer.rows == max(about["shape"][0] for (about, _), _, _ in written)
    columns = dict(answer.columns)
    for i, ((about, elements), binary, _) in enumerate(written):
        _, width = about["shape"]
        for k in range(width):
            read = columns.pop(str(i) if width == 1 else f"{i}.{k}")
            for value, meant in zip(read, elements[k::width], strict=True):
                assert same(value, meant, as_json=not binary)
    assert not columns
