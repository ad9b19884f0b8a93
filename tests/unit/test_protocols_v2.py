"""Open Inference Protocol v2, JSON and binary."""

import struct
from typing import Any

import pytest
from msgspec import json

from coalmine_sidecar.protocols import v2
from coalmine_sidecar.protocols.outputs import MAX_COLUMNS, MAX_ROWS


def output(name: str = "score", shape: Any = (1,), datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "datatype": datatype, **more}


def body(*outputs: dict[str, Any]) -> bytes:
    return json.encode({"model_name": "fraud", "id": "1", "outputs": outputs})


def binary(*outputs: tuple[dict[str, Any], bytes | None]) -> tuple[bytes, int]:
    """An answer with binary tensors and the length of its JSON part; None: that output is JSON."""
    head = body(
        *(
            {**out, "parameters": {"binary_data_size": len(block)}} if block is not None else out
            for out, block in outputs
        )
    )
    return head + b"".join(block or b"" for _, block in outputs), len(head)


def test_one_number() -> None:
    answer = v2.read(body(output(data=[0.25])))
    assert (answer.rows, answer.columns, answer.failures) == (1, [("score", [0.25])], [])


@pytest.mark.parametrize(
    ("shape", "data", "columns"),
    [
        ([], 0.5, {"score": [0.5]}),
        ([], [0.5], {"score": [0.5]}),
        ([3], [1, 2.5, None], {"score": [1.0, 2.5, None]}),
        ([3, 1], [[1.0], [2.0], [3.0]], {"score": [1.0, 2.0, 3.0]}),
        ([2, 2], [1.0, 2.0, 3.0, 4.0], {"score.0": [1.0, 3.0], "score.1": [2.0, 4.0]}),
        ([2, 2], [[1.0, 2.0], [3.0, 4.0]], {"score.0": [1.0, 3.0], "score.1": [2.0, 4.0]}),
        ([1, 2, 1], [[[1.0], [2.0]]], {"score.0": [1.0], "score.1": [2.0]}),
        ([0], [], {}),
        ([2, 0], [[], []], {}),
    ],
)
def test_shapes_of_json_data(shape: list[int], data: Any, columns: dict[str, list[float]]) -> None:
    answer = v2.read(body(output(shape=shape, data=data)))
    assert dict(answer.columns) == columns
    assert answer.failures == []


@pytest.mark.parametrize(
    ("datatype", "data", "values"),
    [
        ("FP64", [1], [1.0]),
        ("INT32", [-7], [-7]),
        ("UINT64", [7.0], [7.0]),
        ("BOOL", [True], [True]),
        ("BOOL", [1], [True]),
        ("BYTES", ["fraud"], ["fraud"]),
        ("FP16", [None], [None]),
    ],
)
def test_datatypes_in_json(datatype: str, data: list[Any], values: list[Any]) -> None:
    ((_, read),) = v2.read(body(output(datatype=datatype, data=data))).columns
    assert read == values
    assert type(read[0]) is type(values[0])


def test_nan_and_infinity_are_what_they_are_called() -> None:
    answer = v2.read(b'{"outputs":[{"name":"s","shape":[4],"datatype":"FP32","data":[NaN, 0.5, Infinity, -Infinity]}]}')
    ((name, values),) = answer.columns
    assert (name, str(values)) == ("s", "[nan, 0.5, inf, -inf]")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"", "not_json"),
        (b"upstream says hello", "not_json"),
        (b'{"a":' * 100_000, "not_json"),
        (b'{"outputs":[{"name":"\xff"}]}', "not_json"),
        (b'{"error":"no such model"}', "no_outputs"),
        (b'{"outputs":[]}', "no_outputs"),
        (b"[1, 2]", "shape"),
        (b'{"outputs":{"a":1}}', "shape"),
        (body(output()), "no_outputs"),
        (body(output(data=[1.0, 2.0])), "shape"),
        (body(output(data={"a": 1})), "shape"),
        (body(output(data=["a"])), "shape"),
        (body(output(shape=[2], data=[[1.0], 2.0])), "shape"),
        (body(output(shape=[-1], data=[])), "shape"),
        (body(output(shape=[2, -1], data=[])), "shape"),
        (body(output(shape=[1 << 62], data=[1.0])), "shape"),
        (body(output(shape=[1 << 62] * 1000, data=[1.0])), "shape"),
        (body(output(datatype="BF16", data=[1.0])), "datatype"),
        (body(output(shape=[1, 9], data=[0.0] * 9)), "wide"),
    ],
)
def test_what_cannot_be_read_has_a_reason(given: bytes, reason: str) -> None:
    answer = v2.read(given)
    assert answer.failures == [reason]
    assert answer.columns == []


def test_a_wide_output_still_counts_its_rows() -> None:
    assert v2.read(body(output(shape=[2, 9], data=[0.0] * 18))).rows == 2


def test_one_broken_output_does_not_hide_the_others() -> None:
    answer = v2.read(body(output("a", data=["x"]), output("b", data=[0.5])))
    assert answer.columns == [("b", [0.5])]
    assert answer.failures == ["shape"]


def test_rows_are_bounded_but_counted() -> None:
    answer = v2.read(body(output(shape=[MAX_ROWS + 5], data=[0.5] * (MAX_ROWS + 5))))
    assert answer.rows == MAX_ROWS + 5
    assert len(answer.columns[0][1]) == MAX_ROWS
    assert answer.failures == ["too_many_rows"]


@pytest.mark.parametrize("width", [1, 8])
def test_columns_are_bounded(width: int) -> None:
    outputs = [output(str(i), shape=[1, width], data=[0.5] * width) for i in range(MAX_COLUMNS + 1)]
    answer = v2.read(body(*outputs))
    assert len(answer.columns) == MAX_COLUMNS
    assert answer.failures == ["too_many_outputs"]


class TestBinary:
    def test_tensors_follow_in_order_json_outputs_between(self) -> None:
        given, length = binary(
            (output("a", [2], "FP32"), struct.pack("<2f", 0.5, -1.5)),
            (output("b", [1], "FP64", data=[9.0]), None),
            (output("c", [1, 2], "INT64"), struct.pack("<2q", -3, 4)),
        )
        answer = v2.read(given, length)
        assert answer.columns == [("a", [0.5, -1.5]), ("b", [9.0]), ("c.0", [-3]), ("c.1", [4])]
        assert answer.rows == 2

    def test_bytes(self) -> None:
        block = b"".join(struct.pack("<I", len(text)) + text for text in (b"cat", b"", b"\xff"))
        given, length = binary((output(shape=[3], datatype="BYTES"), block))
        assert v2.read(given, length).columns == [("score", ["cat", "", "\ufffd"])]

    def test_an_unreadable_tensor_is_stepped_over(self) -> None:
        given, length = binary(
            (output("a", [1], "BF16"), b"\0\0"),
            (output("b", [1], "BOOL"), b"\1"),
        )
        answer = v2.read(given, length)
        assert answer.columns == [("b", [True])]
        assert answer.failures == ["datatype"]

    def test_rows_are_bounded(self) -> None:
        rows = MAX_ROWS + 1
        given, length = binary((output(shape=[rows, 2], datatype="INT8"), b"\1\2" * rows))
        answer = v2.read(given, length)
        assert [(name, len(values)) for name, values in answer.columns] == [
            ("score.0", MAX_ROWS),
            ("score.1", MAX_ROWS),
        ]
        assert answer.rows == rows

    @pytest.mark.parametrize(
        ("shape", "datatype", "block", "reason"),
        [
            ([2], "FP32", b"\0" * 7, "shape"),
            ([1], "FP32", b"\0" * 8, "shape"),
            ([1], "BYTES", b"\5\0\0\0abc", "truncated"),
            ([1], "BYTES", b"\5\0", "truncated"),
            ([1], "BYTES", b"\1\0\0\0abc", "shape"),
        ],
    )
    def test_blocks_that_do_not_fit(self, shape: list[int], datatype: str, block: bytes, reason: str) -> None:
        given, length = binary((output(shape=shape, datatype=datatype), block))
        assert v2.read(given, length).failures == [reason]

    def test_a_body_cut_short(self) -> None:
        given, length = binary((output(shape=[2]), struct.pack("<2f", 1, 2)))
        assert v2.read(given[:-1], length).failures == ["truncated"]
        assert v2.read(given[: length - 1], length).failures == ["truncated"]

    @pytest.mark.parametrize("length", [-1, 10**30])
    def test_a_length_that_lies(self, length: int) -> None:
        assert v2.read(body(output(data=[1.0])), length).failures == ["truncated"]
