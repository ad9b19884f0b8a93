"""The rows of requests in Open Inference Protocol v2: tensors in JSON, in binary and in gRPC."""

import struct
from typing import Any

import pytest
from msgspec import json
from tests.relay.grpc_model import INFER, field, tensor, varint

from coalmine_sidecar.protocols.inputs import read_request
from coalmine_sidecar.protocols.wanted import Asked, Wanted

NAMED = Wanted([("age", ""), ("city", ""), ("x2", "x[1]")])


def read(
    document: Any, wanted: Wanted = NAMED, path: bytes = b"/v2/models/m/infer", kind: bytes = b"application/json",
    length: int | None = None,
) -> Asked:  # fmt: skip
    body = document if isinstance(document, bytes) else json.encode(document)
    return read_request("auto", path, kind, length, body, wanted)


def columns(asked: Asked) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in asked.columns.items()}


class TestTensors:
    def tensors(self, *inputs: dict[str, Any]) -> dict[str, Any]:
        return {"id": "1", "inputs": list(inputs), "outputs": [{"name": "y"}]}

    def test_one_tensor_for_each_column(self) -> None:
        document = self.tensors(
            {"name": "age", "shape": [1, 1], "datatype": "INT64", "data": [39]},
            {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["Oslo"]},
            {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2.5]]},
            {"name": "unwanted", "shape": [1, 3, 224, 224], "datatype": "UINT8", "data": [1]},
        )
        asked = read(document, path=b"/v2/models/m/infer")
        assert columns(asked) == {"age": [39], "city": ["Oslo"], "x2": [2.5]}
        assert (asked.rows, asked.failures) == (1, [])

    def test_binary_tensors_beside_one_in_json(self) -> None:
        width = 3000
        blocks = [struct.pack("<2q", 39, 22), struct.pack(f"<{2 * width}f", *range(2 * width))]
        document = self.tensors(
            {"name": "age", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": len(blocks[0])}},
            {"name": "city", "shape": [2], "datatype": "BYTES", "data": ["Oslo", "Rom"]},
            {"name": "x", "shape": [2, width], "datatype": "FP32", "parameters": {"binary_data_size": len(blocks[1])}},
        )
        head = json.encode(document)
        wanted = Wanted([("age", ""), ("city", ""), ("last", "x[2999]"), ("beyond", "x[3000]")])
        asked = read(head + b"".join(blocks), wanted, b"/v2/models/m/infer", b"application/octet-stream", len(head))
        assert columns(asked) == {"age": [39, 22], "city": ["Oslo", "Rom"], "last": [2999.0, 5999.0]}
        assert (asked.rows, asked.failures) == (2, [])
        cut = read((head + b"".join(blocks))[:-1], wanted, b"/v2/models/m/infer", b"", len(head))
        assert (columns(cut), cut.failures) == ({"age": [39, 22], "city": ["Oslo", "Rom"]}, ["truncated"])

    @pytest.mark.parametrize(
        ("datatype", "code", "values"),
        [("FP16", "e", [0.5, -2.0]), ("BOOL", "?", [True, False]), ("UINT8", "B", [0, 255]), ("INT32", "i", [-7, 7])],
    )
    def test_datatypes(self, datatype: str, code: str, values: list[Any]) -> None:
        block = struct.pack(f"<2{code}", *values)
        about = {"name": "age", "shape": [2, 1], "datatype": datatype, "parameters": {"binary_data_size": len(block)}}
        head = json.encode(self.tensors(about))
        asked = read(head + block, path=b"/v2/models/m/infer", length=len(head))
        assert [(type(v), v) for v in asked.columns["age"]] == [(type(v), v) for v in values]

    def test_strings_in_binary(self) -> None:
        block = b"\4\0\0\0Oslo\3\0\0\0Rom"
        about = {"name": "city", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(block)}}
        head = json.encode(self.tensors(about))
        assert columns(read(head + block, path=b"/v2/models/m/infer", length=len(head))) == {"city": ["Oslo", "Rom"]}

    def test_a_tensor_without_a_batch_is_one_row_where_its_positions_are_asked_for(self) -> None:
        document = self.tensors({"name": "x", "shape": [4], "datatype": "FP64", "data": [1.0, 2.0, 3.0, 4.0]})
        asked = read(document, Wanted([("a", "x[0]"), ("d", "x[3]")]), b"/v2/models/m/infer")
        assert (columns(asked), asked.rows) == ({"a": [1.0], "d": [4.0]}, 1)

    @pytest.mark.parametrize(
        ("about", "values", "reason"),
        [
            ({"shape": [2], "datatype": "FP32", "data": [1, None]}, [1.0, None], []),
            ({"shape": [2], "datatype": "FP32", "data": ["x", 1.5]}, [None, 1.5], ["datatype"]),
            ({"shape": [2], "datatype": "BOOL", "data": [0, True]}, [False, True], []),
            ({"shape": [1], "datatype": "INT64", "data": [[7]]}, [7], []),
            ({"shape": [3], "datatype": "FP32", "data": [1, 2]}, None, ["shape"]),
            ({"shape": [1, 2], "datatype": "FP32", "data": [1, 2]}, None, ["shape"]),
            ({"shape": [-1], "datatype": "FP32", "data": [1]}, None, ["shape"]),
            ({"shape": [2**40], "datatype": "FP32", "data": [1]}, None, ["shape"]),
            ({"shape": ["1"], "datatype": "FP32", "data": [1]}, None, ["shape"]),
            ({"shape": [1], "datatype": "BF16", "data": [1]}, None, ["datatype"]),
            ({"shape": [1], "datatype": 7, "data": [1]}, None, ["datatype"]),
            ({"shape": [], "datatype": "FP32", "data": 0.5}, [0.5], []),
            ({"shape": [1], "datatype": "FP32"}, None, ["shape"]),
        ],
    )
    def test_bad_ones(self, about: dict[str, Any], values: Any, reason: list[str]) -> None:
        asked = read(self.tensors({"name": "age", **about}), path=b"/v2/models/m/infer")
        assert (columns(asked).get("age"), asked.failures) == (values, reason)


class TestGrpc:
    def read(self, message: bytes, wanted: Wanted = NAMED) -> Asked:
        body = b"\0" + len(message).to_bytes(4, "big") + message
        return read_request("auto", INFER.encode(), b"application/grpc", None, body, wanted)

    def request(self, *tensors: bytes, raw: tuple[bytes, ...] = ()) -> bytes:
        inputs = b"".join(field(5, one) for one in tensors)
        return field(1, b"m") + field(3, b"id-1") + inputs + b"".join(field(7, one) for one in raw)

    def test_raw_contents(self) -> None:
        message = self.request(
            tensor("age", "INT64", [2, 1]),
            tensor("city", "BYTES", [2]),
            tensor("x", "FP32", [2, 2]),
            raw=(struct.pack("<2q", 39, 22), b"\4\0\0\0Oslo\3\0\0\0Rom", struct.pack("<4f", 1.5, 2.5, 3.5, 4.5)),
        )
        asked = self.read(message)
        assert columns(asked) == {"age": [39, 22], "city": ["Oslo", "Rom"], "x2": [2.5, 4.5]}
        assert (asked.rows, asked.failures) == (2, [])

    def test_contents(self) -> None:
        message = self.request(
            tensor("age", "INT64", [2], field(3, b"".join(map(varint, (39, 22))))),
            tensor("x", "FP64", [2, 2], field(7, struct.pack("<4d", 1.5, 2.5, 3.5, 4.5))),
        )
        assert columns(self.read(message)) == {"age": [39, 22], "x2": [2.5, 4.5]}

    def test_bad_ones(self) -> None:
        short = self.request(tensor("age", "INT64", [2]), tensor("city", "BYTES", [1]), raw=(b"12345678",))
        assert self.read(short).failures == ["shape", "truncated"]
        assert self.read(b"\xff\xff").failures == ["truncated"]
        assert self.read(b"").failures == []
