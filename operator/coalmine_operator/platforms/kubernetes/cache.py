"""What was last seen of the cluster, by kind and by model deployment: by lists, by watches, by our own writes.

Whatever was news is told here and nowhere else: an answer to our own write may bring what somebody else did meanwhile,
and the watch that tells of it later is then overtaken and says nothing new.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .held import Held, hold, same_but_status, same_but_version
from .kinds import MODEL_DEPLOYMENT, WATCHED, Kind

_Place = tuple[str, str]  # namespace and name


class Cache:
    """Never goes back in time: an event that was overtaken by our own write or by a list changes nothing.

    `changed(key)`: something new is known of a model deployment.
    """

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._held: dict[Kind, dict[_Place, Held]] = {kind: {} for kind in WATCHED}
        self._by_key: dict[Kind, dict[str, dict[str, Held]]] = {kind: defaultdict(dict) for kind in WATCHED}

    def take(self, kind: Kind, obj: Mapping[str, Any]) -> None:
        """Keep a newer sight of an object."""
        self._keep(hold(kind, obj), same_but_version)

    def saved(self, kind: Kind, obj: Mapping[str, Any]) -> None:
        """Keep what a write of an object's status was answered with: the status itself is no news."""
        self._keep(hold(kind, obj), same_but_status)

    def _keep(self, new: Held, same: Callable[[Held, Held], bool]) -> None:
        old = self._held[new.kind].get((new.namespace, new.name))
        if old is not None and new.version and new.version <= old.version:
            return
        if old is not None:
            self._forget(old)
        self._held[new.kind][new.namespace, new.name] = new
        self._by_key[new.kind][new.key][new.name] = new
        if old is None or not same(old, new):
            self._changed(new.key)

    def drop(self, kind: Kind, namespace: str, name: str, uid: str = "") -> Held | None:
        """It is gone, unless another of that name (`uid`) took its place; answers what was held."""
        old = self._held[kind].get((namespace, name))
        if old is None or (uid and uid != old.uid):
            return None
        self._forget(old)
        self._changed(old.key)
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
            self._changed(held.key)
        return lost

    def get(self, kind: Kind, namespace: str, name: str) -> Held | None:
        return self._held[kind].get((namespace, name))

    def owned(self, kind: Kind, key: str) -> list[Held]:
        """Of a model deployment, by label; in the order of names."""
        siblings = self._by_key[kind].get(key, {})
        return [siblings[name] for name in sorted(siblings)]

    def keys(self) -> list[str]:
        return sorted(self._by_key[MODEL_DEPLOYMENT])
