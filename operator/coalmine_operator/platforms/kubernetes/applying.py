"""Server-side apply with a memory: nothing is written where nothing changed, and drift is written over.

What somebody else made is never written over, whatever its name and labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from msgspec import Struct

from .cache import Cache
from .client import ApiError, Client
from .held import Held, fingerprint, hold
from .kinds import Kind, kind_of

#: Seconds between two writes of the same content over somebody else's: two who disagree must not chase each other.
PATIENCE: Final = 5.0
#: Seconds before what the API server refused is sent again as it was: a quota may have grown.
REFUSED_AGAIN: Final = 15.0
#: A resourceVersion that no object has: an apply with it makes a new object or fails, and never changes one.
_OF_NOTHING: Final = "1"

_Place = tuple[Kind, str, str]


class NotOursError(ApiError):
    """An object of that name is there, and somebody else made it."""

    refused = True


class _Applied(Struct, frozen=True):
    """What was sent, what was owned after it, of which object, and when."""

    sent: str
    owned: str
    uid: str
    at: float


class _Refusal(Struct, frozen=True):
    sent: str
    at: float
    error: ApiError


class Applier:
    """For children of all model deployments. `later(seconds, key)` asks for another reconcile."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        later: Callable[[float, str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._cache = cache
        self._later = later
        self._clock = clock
        self._applied: dict[_Place, _Applied] = {}
        self._refused: dict[_Place, _Refusal] = {}

    async def bring(self, wanted: Mapping[str, Any], key: str) -> bool:
        """Make an object of the cluster what is wanted; whether it was written. Raises ApiError."""
        kind = kind_of(wanted)
        metadata = wanted["metadata"]
        place = (kind, metadata["namespace"], metadata["name"])
        held = self._cache.get(*place)
        sent, now = fingerprint(wanted), self._clock()
        before = self._applied.get(place)
        if before is not None and before.sent == sent:
            if held is not None and (held.uid, held.owned) == (before.uid, before.owned):
                return False
            if now - before.at < PATIENCE:
                self._later(before.at + PATIENCE - now, key)
                return False
        refusal = self._refused.get(place)
        if refusal is not None and refusal.sent == sent and now - refusal.at < REFUSED_AGAIN:
            self._later(refusal.at + REFUSED_AGAIN - now, key)
            raise refusal.error
        try:
            answer = await self.put(kind, wanted, held)
        except ApiError as error:
            if error.refused:
                self._refused[place] = _Refusal(sent, now, error)
                self._later(REFUSED_AGAIN, key)
            raise
        self._refused.pop(place, None)
        self._cache.take(kind, answer)
        held = self._cache.get(*place)
        if held is not None:
            self._applied[place] = _Applied(sent, held.owned, held.uid, now)
        return True

    async def put(self, kind: Kind, wanted: Mapping[str, Any], held: Held | None) -> Any:
        """Write an object that is known as `held`, or is not known, and answer it. Raises ApiError."""
        if held is None:
            try:
                return await self._client.apply(kind, _with(wanted, resourceVersion=_OF_NOTHING))
            except ApiError as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
                held = await self._look(kind, wanted["metadata"])
                if held is None:
                    raise
        _check_ours(wanted, held)
        return await self._client.apply(kind, _with(wanted, uid=held.uid))

    async def _look(self, kind: Kind, metadata: Mapping[str, Any]) -> Held | None:
        """By a list: whoever may watch may list, and needs no right more."""
        query = {"fieldSelector": f"metadata.name={metadata['name']}"}
        found = await self._client.get(kind.path(metadata["namespace"]), query)
        return hold(kind, found["items"][0]) if found["items"] else None

    async def remove(self, held: Held) -> None:
        """Delete a child. Raises ApiError."""
        await self._client.delete(held.path, held.uid)
        self._cache.drop(held.kind, held.namespace, held.name, held.uid)
        self.forget(held)

    def forget(self, held: Held) -> None:
        """It is gone: what is known of it goes as well."""
        self._applied.pop((held.kind, held.namespace, held.name), None)
        self._refused.pop((held.kind, held.namespace, held.name), None)


def _with(wanted: Mapping[str, Any], **metadata: str) -> dict[str, Any]:
    return {**wanted, "metadata": {**wanted["metadata"], **metadata}}


def _check_ours(wanted: Mapping[str, Any], held: Held) -> None:
    """Raises NotOursError. What a model deployment left behind when it was deleted without its children is ours."""
    owner = wanted["metadata"]["ownerReferences"][0]
    if held.owner_uid == owner["uid"] or (not held.owner_uid and held.owned):
        return
    name = f"{held.kind.name} {held.name}"
    if held.owner_uid:
        whose = f"{name} still belongs to a deleted ModelDeployment of that name: it is made anew when that has gone"
    else:
        whose = f"{name} was made by somebody else and is left alone: delete it, or take another metadata.name"
    raise NotOursError(HTTPStatus.CONFLICT, whose)
