"""Baselines in ConfigMaps: read by name, and those with a digest only once."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from ...api.baseline import digest_of
from ...engine.baselines import Read, Wanted, read_baseline, state_of
from ...engine.model import BaselineState
from .client import ApiError, Client
from .kinds import CONFIG_MAP

#: Seconds after which what could not be used is read again, and what has no digest to hold it to.
AGAIN: Final = 15.0
CHANGED: Final = 60.0

_Place = tuple[str, str]  # ConfigMap and key


class _Looked(Struct):
    """`due`: by the clock, when to read again; None: never, for the digest says that it is the one."""

    read: Read
    due: float | None


class Baselines:
    """Of one model deployment."""

    def __init__(self, client: Client, namespace: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._namespace = namespace
        self._clock = clock
        self._known: dict[tuple[_Place, str], _Looked] = {}
        #: As last looked at, by revision.
        self.states: Mapping[str, BaselineState] = {}

    async def look(self, wanted: Mapping[str, Wanted]) -> None:
        """Read what is wanted and due. Never raises: what cannot be read is a problem in `states`."""
        marks = {name: ((one.ref.config_map, one.ref.key), one.ref.digest) for name, one in wanted.items()}
        self._known = {mark: looked for mark, looked in self._known.items() if mark in marks.values()}
        now = self._clock()
        for place, digest in sorted(set(marks.values())):
            known = self._known.get((place, digest))
            if known is None or (known.due is not None and known.due <= now):
                read = await self._read(*place, known)
                self._known[place, digest] = _Looked(read, _due(read, digest, self._clock()))
        self.states = {name: state_of(one, self._known[marks[name]].read) for name, one in wanted.items()}

    async def _read(self, name: str, key: str, known: _Looked | None) -> Read:
        where = f"ConfigMap {name}, key {key}"
        if not name:
            where = "spec.monitoring.baseline"
            return Read(where=where, problem="missing", message=f"{where}: names no ConfigMap: give one in configMap")
        try:
            config_map = await self._client.get(CONFIG_MAP.path(self._namespace, name))
        except ApiError as error:
            if error.gone:
                message = (
                    f"ConfigMap {name}: is not in namespace {self._namespace}: make it with `kubectl create configmap`"
                )
                return Read(where=where, problem="missing", message=message)
            if known is not None and not known.read.problem and not error.refused:
                return known.read  # nobody said that it is another one now
            return Read(where=where, problem="unreadable", message=f"ConfigMap {name}: cannot be read: {error}")
        data = _bytes(config_map, key)
        if data is None:
            keys = sorted({*(config_map.get("data") or ()), *(config_map.get("binaryData") or ())})
            there = f"it has {', '.join(keys[:5])}" if keys else "it is empty"
            return Read(where=where, problem="missing", message=f"{where}: is not there: {there}")
        if known is not None and known.read.digest == digest_of(data):
            return known.read
        return read_baseline(data, where)


def _due(read: Read, digest: str, now: float) -> float | None:
    if read.problem or (digest and read.digest != digest):
        return now + AGAIN
    return None if digest else now + CHANGED


def _bytes(config_map: Mapping[str, Any], key: str) -> bytes | None:
    text = (config_map.get("data") or {}).get(key)
    if isinstance(text, str):
        return text.encode()
    try:
        return base64.b64decode((config_map.get("binaryData") or {})[key], validate=True)
    except (KeyError, TypeError, binascii.Error):
        return None
