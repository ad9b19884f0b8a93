"""What is kept of an object that was seen: as little as decisions need, since there may be thousands."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ...render import labels
from .annotations import Annotated, Refresh, annotated_orders, refresh_wanted
from .client import FIELD_MANAGER
from .kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    MODEL_DEPLOYMENT,
    POD,
    SECRET,
    Kind,
    key_of,
)

#: What of an object besides its metadata is read again.
_KEPT: Final[Mapping[Kind, tuple[str, ...]]] = {
    MODEL_DEPLOYMENT: ("apiVersion", "kind", "metadata", "spec", "status"),
    CONTROLLER_REVISION: ("data", "metadata"),
    DEPLOYMENT: ("status",),
    SECRET: ("data",),
    POD: ("status",),
}
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


class Held(Struct, frozen=True, kw_only=True):
    """One object as last seen.

    `version`: its resourceVersion as a number (the API server promises that they can be compared), 0 if it is none.
    `orders`, `refresh`, `generation`: of a model deployment alone; orders are those that stand in its annotations.
    `owned`: a fingerprint of the fields that Coalmine applied and still owns: anybody who changes one of them takes it
    over, so that the fingerprint tells of every drift, however the API server spells values. Empty: none.
    """

    kind: Kind
    namespace: str
    name: str
    uid: str
    version: int
    deployment: str
    revision: str
    owner_uid: str
    owned: str
    ending: bool
    annotations: Mapping[str, str]
    orders: tuple[Annotated, ...]
    refresh: Refresh | None
    generation: int
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        """What is read again, decoded at each look: as JSON it takes a tenth of the memory."""
        body: dict[str, Any] = msgspec.json.decode(self.raw)
        return body

    @property
    def key(self) -> str:
        """Of the model deployment it is, or belongs to."""
        return key_of(self.namespace, self.name if self.kind is MODEL_DEPLOYMENT else self.deployment)

    @property
    def path(self) -> str:
        return self.kind.path(self.namespace, self.name)


def hold(kind: Kind, obj: Mapping[str, Any]) -> Held:
    metadata = obj["metadata"]
    given = metadata.get("labels") or {}
    owners = [o for o in metadata.get("ownerReferences") or () if o.get("kind") == MODEL_DEPLOYMENT.name]
    return Held(
        kind=kind,
        namespace=sys.intern(metadata["namespace"]),
        name=metadata["name"],
        uid=metadata["uid"],
        version=version_of(metadata),
        # Many objects share each of these.
        deployment=sys.intern(given.get(labels.MODELDEPLOYMENT, "")),
        revision=sys.intern(given.get(labels.REVISION, "")),
        owner_uid=sys.intern(owners[0]["uid"]) if owners else "",
        owned=_owned(metadata) if kind not in (MODEL_DEPLOYMENT, POD) else "",
        ending="deletionTimestamp" in metadata,
        annotations=_annotations(metadata),
        orders=tuple(annotated_orders(obj)) if kind is MODEL_DEPLOYMENT else (),
        refresh=refresh_wanted(obj) if kind is MODEL_DEPLOYMENT else None,
        generation=metadata.get("generation", 0) if kind is MODEL_DEPLOYMENT else 0,
        raw=msgspec.json.encode(_body(kind, obj), order="deterministic"),
    )


def same_but_version(one: Held, other: Held) -> bool:
    """Nothing happened that anybody reads."""
    return replace(one, version=0) == replace(other, version=0)


def same_but_status(one: Held, other: Held) -> bool:
    """Of a model deployment; its spec counts by its generation."""
    return replace(one, version=0, raw=b"") == replace(other, version=0, raw=b"")


def version_of(metadata: Mapping[str, Any]) -> int:
    """resourceVersion as a number; 0 where it is none, which compares as "always take it"."""
    text = metadata.get("resourceVersion", "")
    return int(text) if text.isdecimal() else 0


def _body(kind: Kind, obj: Mapping[str, Any]) -> dict[str, Any]:
    body = {field: obj[field] for field in _KEPT.get(kind, ()) if field in obj}
    if "metadata" in body:
        body["metadata"] = {k: v for k, v in body["metadata"].items() if k not in ("managedFields", "resourceVersion")}
        body["metadata"]["annotations"] = _annotations(body["metadata"])
    return body


def _annotations(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Without the copy of the whole object that `kubectl apply` leaves in one."""
    given = metadata.get("annotations") or {}
    return {sys.intern(name): value for name, value in given.items() if name != _LAST_APPLIED}


def _owned(metadata: Mapping[str, Any]) -> str:
    for entry in metadata.get("managedFields") or ():
        if (entry.get("manager"), entry.get("operation")) == (FIELD_MANAGER, "Apply") and not entry.get("subresource"):
            return fingerprint(entry.get("fieldsV1"))
    return ""


def fingerprint(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
