"""Events of the engine as Kubernetes Events: in order, bounded, never in the way of a reconcile."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from msgspec import Struct

from ...api.spec import API_VERSION, GROUP, KIND
from ...api.wire import time_text
from ...engine.model import Event
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
        self._last = 0

    def tell(self, about: Held, event: Event) -> None:
        """Cheap; returns at once."""
        while self._waiting.qsize() >= MAX_WAITING:
            self._waiting.get_nowait()
        self._waiting.put_nowait(_Waiting(self._manifest(about, event), time.monotonic()))

    def _manifest(self, about: Held, event: Event) -> dict[str, Any]:
        # Whole microseconds, each one later than the last: the order of events is that of their times.
        self._last = max(time.time_ns() // 1000, self._last + 1)
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"name": f"{about.name}.{self._last:x}", "namespace": about.namespace},
            "eventTime": time_text(self._last / 1e6),
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
