"""Wire formats: whatever comes, nothing is raised; whatever was written properly is read as it was meant."""

import math
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json

from coalmine_sidecar.jsonpath import EVERY, path_problem, steps_of
from coalmine_sidecar.protocols import EXTRACT_FAILURES, Answer, extract, v2
from coalmine_sidecar.protocols.columns import column_of, prediction_id
from coalmine_sidecar.protocols.inputs import read_request
from coalmine_sidecar.protocols.outputs import MAX_COLUMNS, MAX_ROWS, MAX_WIDTH
from coalmine_sidecar.protocols.wanted import REQUEST_FAILURES, Asked, Wanted

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
KEYS = [
    "a", "b", "instances", "inputs", "data", "dataframe_split", "dataframe_records", "columns", "index", "ndarray",
    "names", "tensor", "shape", "values", "jsonData", "input_data", "Inputs", "fields", "rows", "score", "Results",
    "predictions", "predictionValues", "prediction", "label", "messages", "prompt", "content", "choices", "logprobs",
    "meta", "puid", "id",
]  # fmt: skip
#: Documents of the formats' own words, in any order.
worded = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["a", "[1]", '{"a":1}', ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=25,
)
documents = (
    json_values
    | worded
    | st.fixed_dictionaries({"instances": st.lists(st.dictionaries(st.sampled_from("abx"), worded), max_size=4)})
    | st.fixed_dictionaries({"inputs": st.lists(v2_outputs, max_size=4)})
    | st.fixed_dictionaries({"outputs": st.lists(v2_outputs, max_size=4)})
    | st.fixed_dictionaries({"predictions": json_values})
    | st.fixed_dictionaries({"outputs": json_values})
)
paths = st.sampled_from(
    [
        b"/v2/models/m/infer", b"/v1/models/m:predict", b"/score", b"/v2", b"", b"/v1/chat/completions",
        b"/predictions/m", b"/inference.GRPCInferenceService/ModelInfer",
    ]
) | st.binary(max_size=20)  # fmt: skip
protocols = st.sampled_from(["auto", "v1", "v2", "openai"])
kinds = st.sampled_from(
    [b"application/json", b"application/grpc", b"application/jsonlines", b"text/csv", b"text/csv; header=present", b""]
)
steps = st.sampled_from(["a", "b", "instances", "inputs", "data", "rows", 0, 1, 3])
json_paths = st.builds(
    lambda before, spread, after: "$" + "".join(map(written, [*before, *([EVERY] if spread else []), *after])),
    st.lists(steps, max_size=3), st.booleans(), st.lists(steps, max_size=3),
)  # fmt: skip
column_paths = st.sampled_from(["a", "b", "x[0]", "a[1]", "[0]", "[2]", "instances", "prompt_chars", "messages"])
wanteds = st.lists(json_paths | column_paths, max_size=5).map(lambda ways: Wanted((way, way) for way in ways))


def written(step: Any) -> str:
    if isinstance(step, str):
        return f"['{step}']" if len(step) > 1 else f".{step}"
    return "[*]" if step is EVERY else f"[{step}]"


def check(protocol: str, path: bytes, length: int | None, body: bytes) -> None:
    check_answer(extract(protocol, path, b"application/json", length, body), body)


def check_answer(answer: Answer, body: bytes) -> None:
    assert set(answer.failures) <= set(EXTRACT_FAILURES)
    assert len(set(answer.failures)) == len(answer.failures)
    assert 0 <= answer.rows <= len(body)
    assert len(answer.columns) <= MAX_COLUMNS
    for name, values in answer.columns:
        assert isinstance(name, str)
        assert 0 < len(values) <= MAX_ROWS
        assert all(value is None or isinstance(value, float | int | str) for value in values)


def check_request(asked: Asked, wanted: Wanted, body: bytes) -> None:
    assert set(asked.failures) <= set(REQUEST_FAILURES)
    assert len(set(asked.failures)) == len(asked.failures)
    assert 0 <= asked.rows <= max(1, len(body))
    assert set(asked.columns) <= set(wanted.names)
    for values in asked.columns.values():
        assert len(values) == min(asked.rows, MAX_ROWS)
        assert all(value is None or isinstance(value, float | int | str) for value in values)


@few
@given(protocols, paths, st.none() | st.integers(-2, 200), st.binary(max_size=200))
def test_any_bytes(protocol: str, path: bytes, length: int | None, body: bytes) -> None:
    check(protocol, path, length, body)


@few
@given(protocols, paths, kinds, st.none() | st.integers(-2, 200), st.binary(max_size=200), wanteds)
def test_any_bytes_of_a_request(
    protocol: str, path: bytes, kind: bytes, length: int | None, body: bytes, wanted: Wanted
) -> None:
    check_request(read_request(protocol, path, kind, length, body, wanted), wanted, body)
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    check_request(read_request(protocol, path, kind, length, framed, wanted), wanted, framed)
    found = prediction_id(path, kind, body, Answer(), length)
    assert found is None or 0 < len(found) <= 256


@few
@given(protocols, paths, kinds, st.booleans(), documents, st.binary(max_size=40), st.integers(0, 20), wanteds)
def test_any_document_of_a_request(
    protocol: str, path: bytes, kind: bytes, with_length: bool, document: Any, tail: bytes, cut: int, wanted: Wanted
) -> None:
    head = json.encode(document)
    check_request(read_request(protocol, path, kind, len(head), head + tail, wanted), wanted, head + tail)
    for body in (head, head + tail, head[:-cut], head + b"\n" + head):
        length = len(head) if with_length else None
        check_request(read_request(protocol, path, kind, length, body, wanted), wanted, body)


@few
@given(protocols, paths, kinds, documents, wanteds, st.booleans())
def test_any_answer_whose_outputs_are_named(
    protocol: str, path: bytes, kind: bytes, document: Any, wanted: Wanted, posted: bool
) -> None:
    body = json.encode(document)
    answer = extract(protocol, path, kind, None, body, outputs=wanted, posted=posted)
    check_answer(answer, body)
    for name in (*wanted.names, ""):
        for meant in ("number", "label"):
            found = column_of(answer, name, meant)
            assert found is None or len(found) > 0
    for values in answer.picked.values():
        assert len(values) == min(answer.rows, MAX_ROWS)


def naive(document: Any, way: tuple[Any, ...]) -> list[Any]:
    """What a JSON path selects, None for what is not there, by the book: one step after the other."""
    found = [document]
    for step in way:
        following: list[Any] = []
        for node in found:
            if step is EVERY:
                following += node if isinstance(node, list) else []
            elif isinstance(step, str):
                following.append(node.get(step) if isinstance(node, dict) else None)
            else:
                following.append(node[step] if isinstance(node, list) and step < len(node) else None)
        found = following
    return found


@settings(max_examples=300, deadline=None)
@given(worded, json_paths)
def test_json_paths_select_what_a_naive_evaluator_does(document: Any, path: str) -> None:
    document = json.decode(json.encode(document))  # NaN is null
    assert path_problem(path) == ""
    way = steps_of(path)
    expected = naive(document, way)
    asked = read_request("auto", b"/x", b"application/json", None, json.encode(document), Wanted([("x", path)]))
    if EVERY not in way and isinstance(expected[0], list) and len(expected[0]) != 1:
        expected = expected[0]  # a list without [*] is a column all the same
    found = asked.columns.get("x")
    if found is None:
        # Nothing is at the path, or what is there does not fit the rows that the format has.
        assert all(value is None for value in expected) or "shape" in asked.failures
        return
    plain = [value for value in expected if not isinstance(value, list | dict)]
    if len(plain) == len(expected) and len(expected) == len(found):
        assert list(found) == expected
    else:
        assert len(expected) in (1, len(found))


@few
@given(st.text(max_size=30) | st.text("$.[]*'\"a0", max_size=12).map("${}".format))
def test_any_path_is_compiled_or_refused_in_one_line(path: str) -> None:
    problem = path_problem(path)
    if not problem:
        Wanted([("x", path)])
        return
    assert problem.startswith("path ")
    assert "\n" not in problem


@few
@given(st.lists(st.fixed_dictionaries({name: st.floats(allow_nan=False) | labels for name in "abc"}), min_size=1))
def test_one_table_is_the_same_in_all_formats(rows: list[dict[str, Any]]) -> None:
    header = ["c", "a", "b"]
    arrays = [[row[name] for name in header] for row in rows]
    by_column = {name: [row[name] for row in rows] for name in header}
    wanted = Wanted([(name, "") for name in "abc"])
    finite = [[value if value not in (math.inf, -math.inf) else None for value in row] for row in arrays]
    expected = {name: [row[at] for row in finite] for at, name in enumerate(header)}
    for document in (
        {"instances": rows},
        {"inputs": by_column},
        {"dataframe_split": {"columns": header, "data": arrays}},
        {"input_data": {"columns": header, "index": list(range(len(rows))), "data": arrays}},
        {"data": {"names": header, "ndarray": arrays}},
        {"data": {"names": header, "tensor": {"shape": [len(rows), 3], "values": [v for row in arrays for v in row]}}},
        rows,
    ):
        asked = read_request("auto", b"/predict", b"application/json", None, json.encode(document), wanted)
        assert {name: list(values) for name, values in asked.columns.items()} == expected
        assert (asked.rows, asked.failures) == (len(rows), [])


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
