"""Requests and answers of the cases, in the Open Inference Protocol v2."""

from __future__ import annotations

import json
import random

#: 95 and 130 bytes.
REQUEST = b'{"inputs":[{"name":"x","shape":[1,6],"datatype":"FP64","data":[0.1,0.2,0.3,0.4,0.5,0.6]}]}'.ljust(95)
ANSWER = (
    b'{"model_name":"m","model_version":"1","id":"1234",'
    b'"outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.25]}]}'
).ljust(130)
#: Of the case with monitoring: a request of one row of 20 features, an answer of 2 outputs.
MONITORED_PATH = "/v2/models/monitored/infer"
FEATURES = tuple(f"feature_{number}" for number in range(20))
MONITORED_ANSWER = (
    b'{"model_name":"m","outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.25]},'
    b'{"name":"q","shape":[1],"datatype":"FP64","data":[0.75]}]}'
)
TENSOR_BYTES = 64 << 10
BODY = b"x" * 10_000_000


def monitored_request() -> bytes:
    draw = random.Random(2)
    inputs = [{"name": n, "shape": [1, 1], "datatype": "FP64", "data": [round(draw.random(), 4)]} for n in FEATURES]
    return json.dumps({"inputs": inputs}, separators=(",", ":")).encode()


def tensor(kind: str) -> bytes:
    """64 KiB of JSON: a batch of 1,024 rows of 8 numbers as `inputs`, of 4,096 rows of 2 as `outputs`."""
    draw = random.Random(1)
    rows, width, digits = (1024, 8, 4) if kind == "inputs" else (4096, 2, 4)
    values = [round(draw.random(), digits) for _ in range(rows * width)]
    document = {kind: [{"name": "t", "shape": [rows, width], "datatype": "FP32", "data": values}]}
    text = json.dumps({"model_name": "m"} | document if kind == "outputs" else document, separators=(",", ":"))
    return text.encode().ljust(TENSOR_BYTES)
