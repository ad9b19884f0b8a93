"""Which wire format an answer is in: by the request's path where it says so, else by the setting or the body."""

from __future__ import annotations

from typing import Final

from . import openai, v1, v2, v2_grpc
from .jsontext import read_json, read_lines
from .outputs import Answer, failure
from .wanted import Wanted

_V1_VERBS: Final = (b":predict", b":regress", b":classify")
GRPC_INFER: Final = b"/inference.GRPCInferenceService/ModelInfer"
_API_ROOTS: Final = (b"/v1/", b"/v2/")
#: Ends of routes that ask for predictions in no format that is known by its keys.
_SCORING: Final = frozenset({b"score", b"predict", b"prediction", b"predictions", b"invocations", b"infer"})


def extract(
    protocol: str,
    path: bytes,
    content_type: bytes,
    json_length: int | None,
    body: bytes,
    *,
    outputs: Wanted | None = None,
    posted: bool = False,
) -> Answer:
    """The outputs of an answer with status 200. Never raises.

    `protocol` is contract.Observe.protocol; `path` the request's target, query included; `json_length` the answer's
    Inference-Header-Content-Length. `outputs`: see columns.wanted_of_answers; what it names is read as well.
    `posted`: the request had a body, so that JSON of any form is an answer to it, and not a page of somebody's API.
    """
    route = path.partition(b"?")[0]
    answer = _extract(protocol, route, content_type, json_length, body, outputs, posted)
    if outputs is not None:
        from .picking import add_picked  # most pods never need it, nor `plain`

        head = body if json_length is None else body[: max(0, json_length)]
        add_picked(answer, outputs, head, content_type, other=is_other(protocol, route))
    return answer


def _extract(
    protocol: str,
    route: bytes,
    content_type: bytes,
    json_length: int | None,
    body: bytes,
    wanted: Wanted | None,
    posted: bool,
) -> Answer:
    if route == GRPC_INFER and content_type.startswith(b"application/grpc"):
        return v2_grpc.read(body, wanted)
    if json_length is not None or route.endswith(b"/infer"):
        return v2.read(body, json_length, wanted)
    if route.endswith(_V1_VERBS):
        return v1.read(body, wanted)
    if (operation := openai.operation_of(route)) is not None:
        return openai.read(operation, body) if b"json" in content_type else Answer()
    scoring = protocol == "auto" and _scores(route)
    if route == b"/v2" or (route.startswith(_API_ROOTS) and not scoring):
        return Answer()
    if b"json" not in content_type:
        if not (scoring and content_type.startswith(b"text/csv")):
            return Answer()
        from . import plain

        return plain.read_csv(body, wanted)
    if protocol == "openai":
        return Answer()  # Its paths are known, and this is none of them.
    if protocol == "auto":
        return _sniff(route, content_type, body, wanted, scoring or posted)
    return v2.read(body, None, wanted) if protocol == "v2" else v1.read(body, wanted)


def _sniff(route: bytes, content_type: bytes, body: bytes, wanted: Wanted | None, asked: bool) -> Answer:
    try:
        if b"lines" in content_type or b"jsonl" in content_type:
            from . import plain

            return plain.read_lines(read_lines(body), wanted)
        document = read_json(body)
    except (ValueError, RecursionError):
        return failure("not_json")
    if isinstance(document, dict):
        outputs = document.get("outputs")
        if isinstance(outputs, list) and outputs and isinstance(outputs[0], dict) and "datatype" in outputs[0]:
            return v2.read(body, None, wanted)
        if any(key in document for key in v1.KEYS):
            return v1.read_document(document, wanted)
    from . import plain

    if (known := plain.read_known(document, wanted)) is not None:
        return known
    if not asked:
        return failure("unknown_protocol")
    if b"/predictions/" in route:
        return plain.read_torchserve(document, wanted)
    return plain.read_plain(document, wanted)


def is_other(protocol: str, route: bytes) -> bool:
    """Whether a route, without its query, is one of an API that is known to ask for no prediction."""
    if route.endswith((b"/infer", *_V1_VERBS, b":rawPredict")) or openai.operation_of(route) is not None:
        return False
    return protocol == "openai" or route == b"/v2" or (route.startswith(_API_ROOTS) and not _scores(route))


def _scores(route: bytes) -> bool:
    before, _, end = route.rpartition(b"/")
    # Below `/models` it is the name of one.
    return (end in _SCORING and not before.endswith(b"/models")) or b"/predictions/" in route
