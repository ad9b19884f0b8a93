"""What a request calls the prediction that it asks for."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from .detect import GRPC_INFER
from .jsontext import read_as
from .outputs import UnreadableError
from .v2_grpc import read_frame, read_id


class _Document(Struct):
    """`id` of Open Inference Protocol v2, SageMaker's `inferenceId`, Seldon's `meta.puid`. All else is skipped."""

    id: Any = None
    inferenceId: Any = None  # noqa: N815 - its name on the wire
    meta: Any = None
    inputs: msgspec.Raw = msgspec.Raw()


class _LenientDocument(_Document):
    """The same of one that is no strict JSON."""

    inputs: Any = None


_decode: Final = msgspec.json.Decoder(_Document).decode


def id_of_request(path: bytes, content_type: bytes, body: bytes, json_length: int | None) -> object:
    """The id, of whatever type a client has sent it; None where there is none. Never raises."""
    try:
        if path.partition(b"?")[0] == GRPC_INFER and content_type.startswith(b"application/grpc"):
            return read_id(read_frame(body))
        document = read_as(body if json_length is None else body[: max(0, json_length)], _decode, _LenientDocument)
    except (UnreadableError, ValueError, RecursionError):
        # Then by its header, or not at all.
        return None
    if document.inferenceId is not None:
        return document.inferenceId
    if isinstance(document.meta, dict) and document.meta.get("puid") is not None:
        return document.meta["puid"]
    # An `id` beside other things than tensors is a feature as often as not.
    return document.id if document.inputs else None
