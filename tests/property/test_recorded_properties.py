"""Reading without knowing what is in it: what is found has the names by which a sidecar finds the same values."""

from __future__ import annotations

import csv
import io
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from tests.property.test_sidecar_protocols import documents, few, kinds, paths
from tests.relay.grpc_model import INFER, field, tensor

from coalmine_sidecar.jsonpath import path_problem
from coalmine_sidecar.protocols.inputs import read_request
from coalmine_sidecar.protocols.outputs import EXTRACT_FAILURES
from coalmine_sidecar.protocols.wanted import REQUEST_FAILURES, Wanted
from coalmine_sidecar.recorded import MAX_COLUMNS, AnswerReader, RequestReader

JSON = b"application/json"
#: A request as it was: its target, content type, JSON length and body.
Request = tuple[bytes, bytes, int | None, bytes]
names = st.sampled_from(["age", "a b", "x.y", "t [C]", "0", "Größe", "$a", "id", "data!"])
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Columns by name, of numbers, of words or of vectors."""
    count = draw(st.integers(1, 4))
    column = st.sampled_from([numbers, st.sampled_from(["ny", "ca", "tx"]), st.lists(numbers, min_size=3, max_size=3)])
    return {
        name: draw(st.lists(draw(column), min_size=count, max_size=count))
        for name in draw(st.lists(names, min_size=1, max_size=5, unique=True))
    }


def requests(table: dict[str, list[Any]]) -> list[Request]:
    """The same rows in the formats that have names."""
    header = list(table)
    arrays = [list(row) for row in zip(*table.values(), strict=True)]
    rows = [dict(zip(header, row, strict=True)) for row in arrays]
    split = {"columns": header, "data": arrays}
    found: list[Any] = [
        {"instances": rows},
        {"inputs": rows},
        {"inputs": table},
        {"dataframe_split": split},
        {"dataframe_records": rows},
        {"input_data": split},
        {"Inputs": {"data": rows}},
        {"Inputs": {"input1": {"ColumnNames": header, "Values": arrays}}},
        {"data": {"names": header, "ndarray": arrays}},
        {"jsonData": rows},
        {"inputs": [{"name": name, "shape": shape(v), "datatype": kind(v), "data": v} for name, v in table.items()]},
        rows,
    ]
    lines = b"\n".join(map(json.encode, rows))
    whole: list[Request] = [(b"/predict", JSON, None, json.encode(document)) for document in found]
    return [*whole, (b"/invocations", b"application/jsonlines", None, lines), binary(table), grpc(table)]


def shape(values: list[Any]) -> list[int]:
    return [len(values), *([3] if isinstance(values[0], list) else [])]


def kind(values: list[Any]) -> str:
    return "BYTES" if isinstance(values[0], str) else "FP32"


def block(values: list[Any]) -> bytes:
    if isinstance(values[0], str):
        return b"".join(struct.pack("<I", len(one)) + one.encode() for one in values)
    flat = [one for row in values for one in row] if isinstance(values[0], list) else values
    return struct.pack(f"<{len(flat)}f", *flat)


def binary(table: dict[str, list[Any]]) -> Request:
    inputs = [
        {"name": name, "shape": shape(v), "datatype": kind(v), "parameters": {"binary_data_size": len(block(v))}}
        for name, v in table.items()
    ]
    head = json.encode({"id": "1", "inputs": inputs})
    return b"/v2/models/m/infer", b"application/octet-stream", len(head), head + b"".join(map(block, table.values()))


def grpc(table: dict[str, list[Any]]) -> Request:
    message = b"".join(field(5, tensor(name, kind(values), shape(values))) for name, values in table.items())
    message += b"".join(field(7, block(values)) for values in table.values())
    return INFER.encode(), b"application/grpc", None, b"\0" + len(message).to_bytes(4, "big") + message


def expected(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns as monitoring calls them."""
    found: dict[str, list[Any]] = {}
    for name, values in table.items():
        if isinstance(values[0], list):
            found |= {f"{name}[{at}]": [row[at] for row in values] for at in range(3)}
        else:
            found[name] = values
    return found


def live(request: Request, *pairs: tuple[str, str]) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in read_request("auto", *request, Wanted(pairs)).columns.items()}


def learned(*requests: Request, rows: int) -> tuple[RequestReader, list[str]]:
    """Who reads all columns that there are, and their names."""
    reader = RequestReader()
    found = list(dict.fromkeys(name for request in requests for name in reader.look(*request, rows)))
    reader.want(found)
    return reader, found


@few
@given(tables())
def test_all_columns_of_any_format_by_the_names_that_a_feature_has(table: dict[str, list[Any]]) -> None:
    columns = expected(table)
    rows = len(next(iter(columns.values())))
    for request in requests(table):
        reader, found_names = learned(request, rows=rows)
        assert set(found_names) == set(columns)
        found = {name: list(values) for name, values in reader.read(*request).columns.items()}
        assert found == columns
        for name, values in columns.items():
            assert live(request, (name, "")) == {name: values}
            if not name.startswith("$"):
                assert not path_problem(name)
                assert live(request, ("other", name)) == {"other": values}


@few
@given(tables(), tables())
def test_other_requests_add_columns_and_change_none(table: dict[str, list[Any]], other: dict[str, list[Any]]) -> None:
    """Of formats that are read by names alone: what another request has too is read all the same."""
    columns = expected(table)
    rows = len(next(iter(columns.values())))
    for request, more in zip(requests(table), requests(other), strict=True):
        reader, _ = learned(request, more, rows=rows)
        found = reader.read(*request).columns
        vectors = {name for name, values in other.items() if isinstance(values[0], list)}
        for name in columns.keys() - vectors:
            assert list(found[name]) == columns[name]


@few
@given(st.lists(st.lists(numbers | st.none(), min_size=2, max_size=6), min_size=1, max_size=4))
def test_csv(rows: list[list[float | None]]) -> None:
    """With a header by its names, without one by position."""
    width = min(map(len, rows))
    rows = [row[:width] for row in rows]
    rows[0] = [1.5 if value is None else value for value in rows[0]]
    columns = [[row[at] for row in rows] for at in range(width)]
    header = [f"c{at}" for at in range(width)]
    for first, called in (([header], header), ([], [f"[{at}]" for at in range(width)])):
        text = io.StringIO()
        csv.writer(text).writerows([*first, *(["" if value is None else value for value in row] for row in rows)])
        request: Request = (b"/invocations", b"text/csv", None, text.getvalue().encode())
        reader, found = learned(request, rows=len(rows))
        assert found == called
        assert [list(values) for values in reader.read(*request).columns.values()] == columns
        for name, values in zip(called, columns, strict=True):
            assert live(request, (name, "")) == {name: values}


@few
@given(paths, kinds, st.none() | st.integers(-1, 200), documents | st.binary(max_size=100), st.integers(0, 3))
def test_whatever_comes_nothing_is_raised_and_all_is_bounded(
    path: bytes, content_type: bytes, length: int | None, document: Any, rows: int
) -> None:
    body = document if isinstance(document, bytes) else json.encode(document)
    reader = RequestReader([("named", "$.a[*].b")])
    found = reader.look(path, content_type, length, body, rows)
    assert len(found) <= 1 + MAX_COLUMNS
    reader.want(found)
    asked = reader.read(path, content_type, length, body)
    assert asked.columns.keys() <= {"named", *found}
    assert set(asked.failures) <= set(REQUEST_FAILURES)
    answers = AnswerReader(["$.a", "a[1]", "output"])
    answer = answers.read(path, content_type, length, body, posted=True)
    assert set(answer.failures) <= set(EXTRACT_FAILURES)
    assert set(answers.called.values()) <= answer.columns.keys()
