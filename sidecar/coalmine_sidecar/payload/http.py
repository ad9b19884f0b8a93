"""Events to an HTTP sink, one a request: CloudEvents 1.0 in binary mode."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import aiohttp

from ..outward import http_url, shown
from .event import Event, to_headers
from .sink import SinkError

#: Seconds for one try, connection and answer included.
TIMEOUT: Final = 5.0
CONNECT: Final = 2.0
TRIES: Final = 3
#: Seconds before the second try, doubled before the third.
PAUSE: Final = 0.2
#: Seconds that connections have to end.
CLOSING: Final = 0.5
#: The sink may be able to take it a moment later. All other answers but 2xx are final.
TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Bytes of an answer that are read, for the sake of the connection; nobody looks at them.
READ: Final = 65536


class HttpSink:
    """`url`: http or https; its user and password are Basic authentication. Raises ValueError with one line."""

    batch = 1
    #: A sink 20 ms away then takes 200 events a second.
    workers = 4
    linger = 0.0
    #: Half a millisecond of CPU for each event: a quarter of a core.
    rate = 250.0

    def __init__(self, url: str, *, timeout: float = TIMEOUT, pause: float = PAUSE) -> None:
        self._url = http_url(url)
        self.name = f"payload log to {shown(self._url)}"
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=min(CONNECT, timeout))
        self._pause = pause
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()

    async def send(self, events: Sequence[Event]) -> None:
        for at, event in enumerate(events):
            # An answer whose request did not arrive would say nothing.
            if problem := await self._problem(event):
                raise SinkError(problem, at)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(TimeoutError):
                # It waits for connections to end, and some sink may never read what is on its way.
                async with asyncio.timeout(CLOSING):
                    await session.close()

    async def _problem(self, event: Event) -> str:
        """Why an event did not arrive; empty: it did."""
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(self._pause * 2 ** (attempt - 1))
            try:
                status = await self._post(event)
            except TimeoutError:
                problem = f"no answer within {self._timeout.total:g} s"
            except aiohttp.ClientConnectorError as error:
                problem = f"no connection: {error.strerror or error.os_error}"
            except (aiohttp.ClientError, OSError) as error:
                problem = f"the connection broke: {type(error).__name__}"
            else:
                if 200 <= status < 300:
                    return ""
                problem = f"answered {status}"
                if status not in TRY_AGAIN:
                    break
        return problem

    async def _post(self, event: Event) -> int:
        async with self._opening:
            if self._session is None:
                self._session = await self._open()
            session = self._session
        async with session.post(
            self._url, data=event.data or b"", headers=to_headers(event), allow_redirects=False, timeout=self._timeout
        ) as answer:
            await answer.content.read(READ)
            return answer.status

    async def _open(self) -> aiohttp.ClientSession:
        # What aiohttp would take has no authorities: see `lean`.
        secure = await asyncio.to_thread(ssl.create_default_context) if self._url.scheme == "https" else True
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.workers, ssl=secure),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )
