"""The Open Inference Protocol (v2, JSON) as pure functions: bodies in, rows out; answers and errors the other way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

NUMBERS = {"BOOL", "FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
INPUT = "features"
OUTPUTS = ("probability", "label")


class ProtocolError(ValueError):
    """A request that is not one; the message says what to send instead."""


def metadata(name: str, version: str, features: int) -> dict[str, Any]:
    """`GET /v2/models/NAME`."""
    return {
        "name": name,
        "versions": [version],
        "platform": "scikit-learn",
        "inputs": [{"name": INPUT, "datatype": "FP64", "shape": [-1, features]}],
        "outputs": [
            {"name": "probability", "datatype": "FP64", "shape": [-1]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
        ],
    }


def read_request(body: bytes, features: int) -> tuple[np.ndarray, str | None, tuple[str, ...]]:
    """Rows [n, features], the request's id, the outputs asked for. Raises ProtocolError."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise ProtocolError(f"the body is no JSON: {error}") from error
    if not isinstance(request, dict):
        raise ProtocolError("the body must be a JSON object with `inputs`")
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise ProtocolError("id: must be a string")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise ProtocolError(f"inputs: must be a list of one tensor, `{INPUT}`")
    return _rows(inputs[0], features), request_id, _wanted(request.get("outputs"))


def _rows(tensor: Mapping[str, Any], features: int) -> np.ndarray:
    if tensor.get("name") != INPUT:
        raise ProtocolError(f"inputs[0].name: {tensor.get('name')!r} is not `{INPUT}`")
    if tensor.get("datatype") not in NUMBERS:
        raise ProtocolError(f"inputs[0].datatype: {tensor.get('datatype')!r} is no number type: send FP64")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and n > 0 for n in shape):
        raise ProtocolError(f"inputs[0].shape: must be [rows, {features}]")
    if shape[1] != features:
        raise ProtocolError(f"inputs[0].shape: {shape[1]} features sent, the model has {features}")
    try:
        data = np.asarray(tensor.get("data"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ProtocolError("inputs[0].data: must be numbers, flat or nested as the shape says") from error
    if data.size != shape[0] * shape[1] or (data.ndim != 1 and list(data.shape) != shape):
        raise ProtocolError(f"inputs[0].data: has {data.size} numbers, the shape {shape} needs {shape[0] * shape[1]}")
    if not np.isfinite(data).all():
        raise ProtocolError("inputs[0].data: has a number that is not finite")
    return data.reshape(shape)


def _wanted(outputs: Any) -> tuple[str, ...]:
    if not outputs:
        return OUTPUTS
    if not isinstance(outputs, list) or not all(isinstance(o, dict) for o in outputs):
        raise ProtocolError("outputs: must be a list of objects with a `name`")
    for output in outputs:
        if output.get("name") not in OUTPUTS:
            raise ProtocolError(f"outputs: {output.get('name')!r} is none of {', '.join(OUTPUTS)}")
    return tuple(output["name"] for output in outputs)


def write_answer(
    name: str, version: str, request_id: str | None, probability: np.ndarray, wanted: tuple[str, ...]
) -> dict[str, Any]:
    """The answer to `probability` [n] of the positive class."""
    values: dict[str, tuple[str, list[Any]]] = {
        "probability": ("FP64", probability.tolist()),
        "label": ("INT64", (probability >= 0.5).astype(int).tolist()),
    }
    answer: dict[str, Any] = {"model_name": name, "model_version": version}
    if request_id is not None:
        answer["id"] = request_id
    answer["outputs"] = [
        {"name": output, "datatype": values[output][0], "shape": [len(probability)], "data": values[output][1]}
        for output in wanted
    ]
    return answer
