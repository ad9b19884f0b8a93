"""How each wire format says no: the body of an answer in the sidecar's own name. gRPC's is in its trailers."""

from __future__ import annotations

import msgspec

from .openai import operation_of


def speaks_openai(protocol: str, path: bytes) -> bool:
    """Whether who asks for this target expects OpenAI's errors. KServe v1 has the paths below `/v1/models`."""
    if protocol == "openai":
        return True
    route = path.partition(b"?")[0]
    return operation_of(route) is not None or (b"/v1/" in route and b"/v1/models" not in route)


def error_body(protocol: str, path: bytes, status: int, message: str, why: str) -> bytes:
    """One line of JSON: `{"error": message}` as v1, v2, TensorFlow Serving and nearly all others say it, or OpenAI's.

    `path`: the request's target, empty if it was not read; `why`: a word for programs.
    """
    error: object = message
    if speaks_openai(protocol, path):
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": kind, "param": None, "code": why or None}
    return msgspec.json.encode({"error": error}) + b"\n"
