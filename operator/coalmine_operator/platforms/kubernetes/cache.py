"""What was last seen of the cluster, by kind and by model deployment: by lists, by watches, by our own writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from .held import Held, hold, same_but_version
from .kinds import MODEL_DEPLOYMENT, WATCHED, Kind

_Place = tuple[str, str]  # namespace and name


class Cache:
    """Never goes back in time: an event that was overtaken by our own write or by a list changes nothing."""

    def __init__(self) -> None:
        self._held: dict[Kind, dict[_Place, Held]] = {kind: {} for kind in WATCHED}
        self._by_key: dict[Kind, dict[str, dict[str, Held]]] = {kind: defaultdict(dict) for kind in WATCHED}

    def take(self, kind: Kind, obj: Mapping[str, Any]) -> Held | None:
        """Keep a newer sight of an object; None where it says nothing new."""
        new = hold(kind, obj)
        old = self._held[kind].get((new.namespace, new.name))
        if old is not None and new.version and new.version <= old.version:
            return None
        if old is not None:
            self._forget(old)
        self._held[kind][new.namespace, new.name] = new
        self._by_key[kind][new.key][new.name] = new
        return None if old is not None and same_but_version(old, new) else new

    def drop(self, kind: Kind, namespace: str, name: str, uid: str = "") -> Held | None:
        """It is gone, unless another of that name (`uid`) took its place; answers what was held."""
        old = self._held[kind].get((namespace, name))
        if old is None or (uid and uid != old.uid):
            return None
        self._forget(old)
        return old

    def _forget(self, held: Held) -> None:
        del self._held[held.kind][held.namespace, held.name]
        siblings = self._by_key[held.kind][held.key]
        del siblings[held.name]
        if not siblings:
            del self._by_key[held.kind][held.key]

    def prune(self, kind: Kind, present: Iterable[_Place], version: int, namespaces: Iterable[str] = ()) -> list[Held]:
        """Forget what a list of `version` does not have: a watch that broke may have missed its end."""
        there, within = set(present), set(namespaces)
        lost = [
            held
            for place, held in self._held[kind].items()
            if place not in there and held.version <= version and (not within or held.namespace in within)
        ]
        for held in lost:
            self._forget(held)
        return lost

    def get(self, kind: Kind, namespace: str, name: str) -> Held | None:
        return self._held[kind].get((namespace, name))

    def owned(self, kind: Kind, key: str) -> list[Held]:
        """Of a model deployment, by label; in the order of names."""
        siblings = self._by_key[kind].get(key, {})
        return [siblings[name] for name in sorted(siblings)]

    def keys(self) -> list[str]:
        return sorted(self._by_key[MODEL_DEPLOYMENT])
