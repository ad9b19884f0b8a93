"""What is read of a ModelInferResponse. The bytes are made by hand here; tritonclient's and MLServer's are in relay."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.relay.grpc_model import INFER, field, infer_response, tensor, varint

from coalmine_sidecar.protocols import Answer, extract


def read(message: bytes) -> Answer:
    body = b"\0" + len(message).to_bytes(4, "big") + message
    return extract("auto", INFER.encode(), b"application/grpc", None, body)


def packed(number: int, *values: int) -> bytes:
    return field(number, b"".join(varint(value & (1 << 64) - 1) for value in values))


def strings(*values: bytes) -> bytes:
    return b"".join(field(8, value) for value in values)


@pytest.mark.parametrize(
    ("datatype", "contents", "values"),
    [
        ("FP64", field(7, struct.pack("<2d", 0.5, -1.5)), [0.5, -1.5]),
        ("FP32", field(6, struct.pack("<2f", 0.5, -1.5)), [0.5, -1.5]),
        ("FP64", b"".join(varint(7 << 3 | 1) + struct.pack("<d", value) for value in (0.5, -1.5)), [0.5, -1.5]),
        ("BOOL", packed(1, 1, 0), [True, False]),
        ("INT8", packed(2, 1, -1), [1, -1]),
        ("INT64", packed(3, 1 << 40, -5), [1 << 40, -5]),
        ("INT64", field(3, 7) + field(3, 8), [7, 8]),
        ("UINT8", packed(4, 0, 255), [0, 255]),
        ("UINT64", packed(5, 1, (1 << 64) - 1), [1, (1 << 64) - 1]),
        ("BYTES", strings(b"cat", "größer".encode()), ["cat", "größer"]),
    ],
)
def test_contents(datatype, contents, values):
    answer = read(infer_response(tensor("x", datatype, [2], contents)))
    assert (answer.rows, answer.columns, answer.failures) == (2, [("x", values)], [])


def test_raw_contents_of_several_outputs():
    answer = read(
        infer_response(
            tensor("p", "FP32", [2, 2]),
            tensor("label", "BYTES", [2, 1]),
            raw=(struct.pack("<4f", 0.25, 0.75, 0.5, 0.5), b"\3\0\0\0cat\3\0\0\0dog"),
        )
    )
    assert answer.columns == [("p.0", [0.25, 0.5]), ("p.1", [0.75, 0.5]), ("label", ["cat", "dog"])]
    assert (answer.rows, answer.failures) == (2, [])


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        (b"", "no_outputs"),
        (b"\xff", "truncated"),
        (b"\x0b", "truncated"),
        (field(5, b"\x0a\x05ab"), "truncated"),
        (infer_response(tensor("x", "FP64", [2], field(7, struct.pack("<d", 1.0)))), "shape"),
        (infer_response(tensor("x", "FP64", [1 << 40])), "shape"),
        (infer_response(tensor("x", "FP64", [(1 << 64) - 1])), "shape"),
        (infer_response(tensor("x", "FP64", [1])), "no_outputs"),
        (infer_response(tensor("x", "FP64", [1]), raw=(b"1234",)), "shape"),
        (infer_response(tensor("x", "BF16", [1]), raw=(b"12",)), "datatype"),
        (infer_response(tensor("x", "FP64", [1, 9]), raw=(bytes(72),)), "wide"),
        (infer_response(tensor("x", "FP64", [1]), tensor("y", "FP64", [1]), raw=(bytes(8),)), "truncated"),
    ],
)
def test_what_can_not_be_read_is_named(message, failure):
    assert failure in read(message).failures


def test_a_message_that_is_not_whole():
    for body in (b"", b"\0\0\0\0\5abc", b"\0\0\0\0\2abc"):
        assert extract("auto", INFER.encode(), b"application/grpc", None, body).failures == ["truncated"]


@given(st.binary(max_size=200))
def test_no_bytes_raise(message):
    read(message)


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 255))
def test_no_damage_raises(raw, at, byte):
    message = bytearray(infer_response(tensor("x", "FP64", [2], field(7, struct.pack("<2d", 1, 2))), raw=(raw,)))
    message[at % len(message)] = byte
    read(bytes(message))
