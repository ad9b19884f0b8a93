"""Which wire format an answer is in: by the request's path where it says so, else by the setting or the body."""

from __future__ import annotations

from typing import Final

from . import openai, v1, v2, v2_grpc
from .jsontext import read_json
from .outputs import Answer, failure

_V1_VERBS: Final = (b":predict", b":regress", b":classify")
_GRPC_INFER: Final = b"/inference.GRPCInferenceService/ModelInfer"
_API_ROOTS: Final = (b"/v1/", b"/v2/")


def extract(protocol: str, path: bytes, content_type: bytes, json_length: int | None, body: bytes) -> Answer:
    """The outputs of an answer with status 200. Never raises.

    `protocol` is contract.Observe.protocol; `path` the request's target, query included; `json_length` the answer's
    Inference-Header-Content-Length.
    """
    route = path.partition(b"?")[0]
    if route == _GRPC_INFER and content_type.startswith(b"application/grpc"):
        return v2_grpc.read(body)
    if json_length is not None or route.endswith(b"/infer"):
        return v2.read(body, json_length)
    if route.endswith(_V1_VERBS):
        return v1.read(body)
    if (operation := openai.operation_of(route)) is not None:
        return openai.read(operation, body) if b"json" in content_type else Answer()
    if route.startswith(_API_ROOTS) or route == b"/v2" or b"json" not in content_type:
        return Answer()
    if protocol == "auto":
        return _sniff(body)
    if protocol == "openai":
        return Answer()  # Its paths are known, and this is none of them.
    return v2.read(body) if protocol == "v2" else v1.read(body)


def _sniff(body: bytes) -> Answer:
    try:
        document = read_json(body)
    except (ValueError, RecursionError):
        return failure("not_json")
    if isinstance(document, dict):
        outputs = document.get("outputs")
        if isinstance(outputs, list) and outputs and isinstance(outputs[0], dict) and "datatype" in outputs[0]:
            return v2.read(body)
        if any(key in document for key in v1.KEYS):
            return v1.read(body)
    return failure("unknown_protocol")
