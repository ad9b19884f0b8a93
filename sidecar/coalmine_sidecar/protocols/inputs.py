"""The rows that a request asks predictions for, in the wire format of any model server.

KServe v1 and TensorFlow Serving (`instances`, `inputs`), Open Inference Protocol v2 (JSON, binary, gRPC), MLflow,
Seldon, TorchServe, SageMaker's and Vertex AI's containers, Azure ML, DataRobot, H2O, Ray Serve, OpenAI: told apart by
their bodies, because routes are configured in most of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from .csvtext import read_csv
from .detect import GRPC_INFER, is_other
from .jsonpick import pick
from .jsontext import read_json, read_lines
from .openai import operation_of
from .outputs import UnreadableError
from .prompt import read_prompt
from .tables import add_common, converted, from_text, read_columns, read_objects, read_rows, read_split, read_tensor
from .tensors import read_json_tensors
from .v2_grpc_inputs import read_message
from .wanted import Asked, Wanted

__all__ = ["Asked", "Wanted", "read_request"]

_WHITE: Final = b" \t\r\n"


def read_request(
    protocol: str, path: bytes, content_type: bytes, json_length: int | None, body: bytes, wanted: Wanted
) -> Asked:
    """The wanted columns of a request whose answer had status 200. Never raises.

    `protocol` is contract.Observe.protocol; `path` the request's target, query included; `json_length` the request's
    Inference-Header-Content-Length. A request that asks for no prediction has neither rows nor failures.
    """
    asked = Asked()
    if not body:
        return asked
    route = path.partition(b"?")[0]
    purpose = _purpose(protocol, route)
    try:
        if purpose == "grpc" and content_type.startswith(b"application/grpc"):
            read_message(body, wanted, asked)
        elif json_length is not None:
            _read_binary(body, json_length, wanted, asked)
        elif purpose == "other":
            if wanted.groups and body.lstrip(_WHITE)[:1] in (b"{", b"["):
                pick(_document(body), wanted, asked)
            asked.settle()
            return asked
        else:
            _read_text(content_type, body, wanted, asked, prompt=purpose == "openai")
    except UnreadableError as reason:
        asked.fail(str(reason))
    if asked.uneven or asked.constants:
        asked.settle()
    if wanted.names and not asked.columns and asked.rows and not asked.failures:
        asked.fail("no_columns")
    return asked


@lru_cache(maxsize=64)
def _purpose(protocol: str, route: bytes) -> str:
    if route == GRPC_INFER:
        return "grpc"
    if is_other(protocol, route):
        return "other"
    return "" if operation_of(route) is None else "openai"


def _read_binary(body: bytes, json_length: int, wanted: Wanted, asked: Asked) -> None:
    if not 0 <= json_length <= len(body):
        raise UnreadableError("truncated")
    document = _document(body[:json_length])
    if wanted.groups:
        pick(document, wanted, asked)
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list):
        raise UnreadableError("shape")
    read_json_tensors(inputs, memoryview(body)[json_length:], len(body), wanted, asked)


def _read_text(content_type: bytes, body: bytes, wanted: Wanted, asked: Asked, *, prompt: bool) -> None:
    first = body[:1]
    if first in _WHITE:
        first = body.lstrip(_WHITE)[:1]
    if b"lines" in content_type or b"ndjson" in content_type or b"jsonl" in content_type:
        lines = _document(body, read_lines)
        if wanted.groups:
            pick(lines, wanted, asked)
        read_rows(lines, "", wanted, asked)
    elif first in (b"{", b"[") or b"json" in content_type:
        document = _document(body)
        if wanted.groups:
            pick(document, wanted, asked)
        if isinstance(document, dict):
            if prompt:
                read_prompt(document, wanted, asked)
            else:
                _read_object(document, len(body), wanted, asked)
                if len(asked.columns) < len(wanted.names):
                    add_common(document, wanted, asked)
        elif isinstance(document, list) and document and not isinstance(document[0], dict | list):
            read_rows([document], "", wanted, asked)
        else:
            read_rows(document, "", wanted, asked)
    elif content_type[:5].lower() == b"text/":
        read_csv(body, content_type, wanted, asked)
    else:
        raise UnreadableError("unknown_protocol")


def _document(body: bytes, read: Callable[[bytes], Any] = read_json) -> Any:
    try:
        return read(body)
    except (ValueError, RecursionError):
        raise UnreadableError("not_json") from None


def _read_object(document: dict[str, Any], room: int, wanted: Wanted, asked: Asked) -> None:
    """By the keys that formats have. What has none of them is one row itself."""
    if "instances" in document:
        read_rows(document["instances"], "instances", wanted, asked)
    elif "inputs" in document:
        inputs = document["inputs"]
        first = inputs[0] if isinstance(inputs, list) and inputs else None
        if isinstance(first, dict) and "datatype" in first and "shape" in first:
            read_json_tensors(inputs, memoryview(b""), room, wanted, asked)
        else:
            read_rows(inputs, "inputs", wanted, asked)
    elif isinstance(split := document.get("dataframe_split"), dict):
        _read_split(split, wanted, asked)
    elif "dataframe_records" in document:
        read_rows(document["dataframe_records"], "dataframe_records", wanted, asked)
    elif "input_data" in document:
        read_rows(document["input_data"], "input_data", wanted, asked)
    elif isinstance(data := document.get("data"), dict | list):
        if isinstance(data, dict) and ("ndarray" in data or "tensor" in data):
            _read_seldon(data, wanted, asked)
        elif isinstance(data, list) and isinstance(document.get("columns"), list):
            read_split(document["columns"], data, "data", wanted, asked)
        else:
            read_rows(data, "data", wanted, asked)
    elif "jsonData" in document:
        inner = document["jsonData"]
        if isinstance(inner, dict):
            read_objects([inner], wanted, asked)
        else:
            read_rows(inner, "jsonData", wanted, asked)
    elif isinstance(inputs := document.get("Inputs"), dict):
        _read_azure(inputs, wanted, asked)
    elif isinstance(fields := document.get("fields"), list) and isinstance(rows := document.get("rows"), list):
        # H2O's scorer has text in all cells.
        read_split(fields, rows, "rows", wanted, asked)
        converted(asked, from_text)
    else:
        read_objects([document], wanted, asked)


def _read_split(split: dict[str, Any], wanted: Wanted, asked: Asked) -> None:
    rows = split.get("data")
    if not isinstance(rows, list):
        raise UnreadableError("shape")
    columns = split.get("columns")
    if columns is None:
        read_rows(rows, "dataframe_split", wanted, asked)
    else:
        read_split(columns, rows, "dataframe_split", wanted, asked)


def _read_seldon(data: dict[str, Any], wanted: Wanted, asked: Asked) -> None:
    names = data.get("names") or None
    tensor = data.get("tensor")
    if isinstance(tensor, dict):
        shape, values = tensor.get("shape"), tensor.get("values")
        if not isinstance(values, list) or not isinstance(shape, list) or not 1 <= len(shape) <= 2:
            raise UnreadableError("shape")
        if not all(type(size) is int and size >= 0 for size in shape):
            raise UnreadableError("shape")
        read_tensor(values, shape[0], shape[1] if len(shape) == 2 else 1, names, wanted, asked)
        return
    rows = data.get("ndarray")
    if not isinstance(rows, list):
        raise UnreadableError("shape")
    if names is None or (rows and isinstance(rows[0], dict)):
        read_rows(rows, "ndarray", wanted, asked)
    else:
        read_split(names, rows, "ndarray", wanted, asked)


def _read_azure(inputs: dict[str, Any], wanted: Wanted, asked: Asked) -> None:
    """`Inputs`: tables by the names of a pipeline's ports; automated ML has one, `data`."""
    for key, node in inputs.items():
        if isinstance(node, list | dict):
            if isinstance(node, dict) and "ColumnNames" not in node:
                read_columns(node, wanted, asked)
            else:
                read_rows(node, key, wanted, asked)
