"""Orders by annotation: `kubectl annotate md/fraud coalmine.dev/promote=fraud-1a2b3c4d5e`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from msgspec import Struct

from ...api.spec import GROUP
from ...engine.model import Order, Verb
from ...render.orders import ANNOTATIONS, ORDERED_BY, REFRESH, ordered_by
from .client import FIELD_MANAGER

_VERBS: Final[tuple[Verb, ...]] = get_args(Verb)
#: Values that mean "the present one".
_PRESENT: Final = ("", "true", "yes", "now")


class Annotated(Struct, frozen=True, kw_only=True):
    """An order and the annotation it stands in."""

    order: Order
    annotation: str
    value: str


def annotated_orders(obj: Mapping[str, Any]) -> list[Annotated]:
    """The orders of a model deployment. An order's id stays the same until its annotation is set anew."""
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    found = []
    for verb in _VERBS:
        name = ANNOTATIONS[verb]
        value = annotations.get(name)
        if value is None:
            continue
        _, at = _setter(metadata, name)
        found.append(
            Annotated(
                order=Order(
                    id=f"{verb}={value[:253]}@{at}",
                    verb=verb,
                    revision=_revision(value),
                    actor=_actor(metadata, verb),
                    repeats=True,
                ),
                annotation=name,
                value=value,
            )
        )
    return sorted(found, key=lambda one: one.order.id.rpartition("@")[2])


class Refresh(Struct, frozen=True, kw_only=True):
    """A `refresh` order: the platform's own, which the engine never hears of. `revision`: empty for all."""

    value: str
    revision: str
    actor: str


def refresh_wanted(obj: Mapping[str, Any]) -> Refresh | None:
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    value = annotations.get(ANNOTATIONS[REFRESH])
    if value is None:
        return None
    return Refresh(value=value, revision=_revision(value), actor=_actor(metadata, REFRESH))


def unknown_orders(annotations: Mapping[str, str]) -> list[str]:
    """Annotations of ours that nobody reads: an order with a slip of the pen."""
    known = {*ANNOTATIONS.values(), ORDERED_BY}
    return sorted(name for name in annotations if name.startswith(f"{GROUP}/") and name not in known)


def removal(annotation: str, value: str, present: Mapping[str, str]) -> list[dict[str, Any]]:
    """A JSON patch that takes an order's annotation away, and fails where it was given anew meanwhile.

    With the last order goes the note of who gave it.
    """
    path = "/metadata/annotations/" + _pointer(annotation)
    patch: list[dict[str, Any]] = [{"op": "test", "path": path, "value": value}, {"op": "remove", "path": path}]
    left = set(present) - {annotation}
    if ORDERED_BY in left and not left.intersection(ANNOTATIONS.values()):
        patch.append({"op": "remove", "path": "/metadata/annotations/" + _pointer(ORDERED_BY)})
    return patch


def _revision(value: str) -> str:
    return "" if value.strip().lower() in _PRESENT else value.strip()[:253]


def _actor(metadata: Mapping[str, Any], verb: str) -> str:
    """The user, where the webhook noted one, or else the client."""
    manager, _ = _setter(metadata, ANNOTATIONS[verb])
    return (ordered_by(metadata.get("annotations") or {}, verb) or manager)[:253]


def _setter(metadata: Mapping[str, Any], annotation: str) -> tuple[str, str]:
    """Which client set an annotation, and when."""
    for entry in metadata.get("managedFields") or ():
        fields = (entry.get("fieldsV1") or {}).get("f:metadata", {}).get("f:annotations", {})
        if f"f:{annotation}" in fields and entry.get("manager") != FIELD_MANAGER:
            return entry.get("manager", ""), entry.get("time", "")
    return "", ""


def _pointer(text: str) -> str:
    return text.replace("~", "~0").replace("/", "~1")
