"""AdmissionReview, version 1: what the API server asks, and what it is answered.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from ..render.patch import Operation

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
#: Kubernetes cuts a warning to 256 characters, and all of them together to 4,096.
_WARNING: Final = 256
_WARNINGS: Final = 8
#: Enough for every problem of a manifest.
_MESSAGE: Final = 16_000


class User(Struct, frozen=True):
    username: str = ""


class Review(Struct, frozen=True, rename="camel"):
    """What is asked. `object` is the new one, absent when something is deleted; `old_object` is what it replaces."""

    uid: Annotated[str, Meta(min_length=1, max_length=256)]
    operation: Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
    namespace: str = ""
    user_info: User = User()
    object: Any = None
    old_object: Any = None


class _Envelope(Struct, frozen=True, rename="camel"):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: Review


class NoReview(ValueError):  # noqa: N818 - says what the body is
    """The body is no AdmissionReview, so there is no uid to answer to; the message is one line."""


def read(body: bytes) -> Review:
    """Raises NoReview."""
    try:
        return msgspec.json.decode(body, type=_Envelope).request
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NoReview(f"no {KIND} of {API_VERSION}: {str(error).splitlines()[0]}") from error


def allow(review: Review, *, warnings: Sequence[str] = (), patch: Sequence[Operation] = ()) -> dict[str, Any]:
    response: dict[str, Any] = {"uid": review.uid, "allowed": True}
    if warnings:
        response["warnings"] = [_cut(" ".join(line.split()), _WARNING) for line in warnings[:_WARNINGS]]
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(patch)).decode()
    return _answer(response)


def deny(review: Review, lines: Sequence[str]) -> dict[str, Any]:
    """One line for each problem: kubectl prints them as they are."""
    status = {"code": 422, "reason": "Invalid", "message": _cut("\n".join(lines), _MESSAGE)}
    return _answer({"uid": review.uid, "allowed": False, "status": status})


def _answer(response: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": KIND, "response": response}


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
