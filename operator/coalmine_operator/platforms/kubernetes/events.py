"""Events of the engine as Kubernetes Events: in order, bounded, never in the way of a reconcile.

An event is named after what it tells, and the API server takes a name once: who is not sure tells again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from typing import Any, Final

from msgspec import Struct

from ...api.spec import API_VERSION, GROUP, KIND
from ...api.status import Told
from ...api.wire import time_text
from .client import ApiError, Client
from .held import Held
from .kinds import EVENT

logger = logging.getLogger("coalmine")

#: Events that wait for the API server; the oldest go first where it is away for long.
MAX_WAITING: Final = 1000
#: Bounds of the API: characters of a note, and seconds that one event is tried.
MAX_NOTE: Final = 1024
GIVE_UP: Final = 300.0
PAUSE: Final = 1.0


class _Waiting(Struct, frozen=True):
    manifest: dict[str, Any]
    since: float


class Poster:
    """Posts one event after the other. `instance`: the operator's pod."""

    def __init__(self, client: Client, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()

    def tell(self, about: Held, told: Told) -> None:
        """What a step did at a time that no other event of `about` has. Cheap; returns at once."""
        digits = "".join(filter(str.isdigit, time_text(told.at)))
        self._put(self._manifest(about, told, digits))

    def tell_once(self, about: Held, told: Told) -> None:
        """What is no step's: the same words again, within the hour that events are kept, are not told again."""
        words = f"{about.uid} {about.body['metadata'].get('generation')} {told.reason} {told.message}"
        self._put(self._manifest(about, told, hashlib.sha256(words.encode()).hexdigest()[:20]))

    def _put(self, manifest: dict[str, Any]) -> None:
        while self._waiting.qsize() >= MAX_WAITING:
            self._waiting.get_nowait()
        self._waiting.put_nowait(_Waiting(manifest, time.monotonic()))

    def _manifest(self, about: Held, event: Told, suffix: str) -> dict[str, Any]:
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"name": f"{about.name}.{suffix}", "namespace": about.namespace},
            "eventTime": time_text(event.at),
            "reportingController": f"{GROUP}/operator",
            "reportingInstance": self._instance[:128],
            "action": event.reason[:128],
            "reason": event.reason[:128],
            "note": event.message[:MAX_NOTE],
            "type": "Warning" if event.warning else "Normal",
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": about.name,
                "namespace": about.namespace,
                "uid": about.uid,
            },
        }

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._post(await self._waiting.get())

    async def drain(self, within: float) -> None:
        """What waits still, as far as time allows: for the end."""
        try:
            async with asyncio.timeout(within):
                while not self._waiting.empty():
                    await self._post(self._waiting.get_nowait())
        except TimeoutError:
            logger.debug("%d events were not posted", self._waiting.qsize())

    async def _post(self, one: _Waiting) -> None:
        path = EVENT.path(one.manifest["metadata"]["namespace"])
        while True:
            try:
                await self._client.create(path, one.manifest)
            except ApiError as error:
                gone = error.gone or error.refused or error.status == 409
                if gone or time.monotonic() - one.since > GIVE_UP:
                    logger.debug("event %s was not posted: %s", one.manifest["reason"], error)
                    return
                await asyncio.sleep(PAUSE)
            else:
                return
