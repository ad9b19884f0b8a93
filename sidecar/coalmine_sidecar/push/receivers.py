"""Who takes metrics, and OTLP over HTTP among them."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import aiohttp
import msgspec
from yarl import URL

from ..outward import shown
from . import otlp
from .family import Family
from .settings import TIMEOUT
from .standard import Headers

#: Bytes of an OTLP receiver's answer that are read.
READ: Final = 65536
#: Seconds that connections have to end.
CLOSING: Final = 0.5


class PushError(Exception):
    """A push that did not arrive, or not whole (`partial`); one line that says why, without secrets."""

    def __init__(self, problem: str, *, partial: bool = False) -> None:
        super().__init__(problem)
        self.partial = partial


class Receiver(Protocol):
    """`kind` is the label of its counter, `name` is for logs. `push` raises PushError."""

    kind: str
    name: str

    async def push(self, metrics: Sequence[Family], resource: Mapping[str, str]) -> None: ...

    async def close(self) -> None: ...


class Otlp:
    """`url`: the whole one, http or https; its user and password are Basic authentication.

    `headers`: beside those of the body, never told; an `authorization` takes the place of user and password.
    `clock`: Unix seconds; `started`: since when counters count.
    """

    kind = "otlp"

    def __init__(
        self,
        url: str,
        *,
        started: float,
        clock: Callable[[], float],
        headers: Headers = (),
        timeout: float = TIMEOUT,
    ) -> None:
        self._url = URL(url)
        self.name = f"metrics to {shown(self._url)}"
        self._headers = {**dict(headers), "Content-Type": "application/json", "Content-Encoding": "gzip"}
        if "authorization" in self._headers:
            self._url = self._url.with_user(None)
        self._started = started
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._session: aiohttp.ClientSession | None = None

    async def push(self, metrics: Sequence[Family], resource: Mapping[str, str]) -> None:
        now = self._clock()
        told = []
        for family in metrics:
            for metric in otlp.to_metrics(family, started=self._started, now=now):
                for _ in metric.write():
                    await asyncio.sleep(0)  # the requests' turn: they share this event loop
                told.append(metric.json())
        body = otlp.document(resource, told)
        # zlib lets others run meanwhile; text as repetitive as this becomes a twentieth.
        body = await asyncio.to_thread(gzip.compress, body, 1)
        try:
            status, answer = await self._post(body)
        except TimeoutError:
            raise PushError(f"no answer within {self._timeout.total:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise PushError(f"no connection: {error.strerror or error.os_error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise PushError(f"the connection broke: {type(error).__name__}") from None
        if not 200 <= status < 300:
            raise PushError(f"answered {status}")
        if rejected := _rejected(answer):
            raise PushError(f"did not take {rejected} of the values", partial=True)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(TimeoutError):
                # It waits for connections to end, and some receiver may never read what is on its way.
                async with asyncio.timeout(CLOSING):
                    await session.close()

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        session = self._session
        if session is None:
            session = self._session = await self._open()
        async with session.post(
            self._url, data=body, headers=self._headers, allow_redirects=False, timeout=self._timeout
        ) as answer:
            return answer.status, await answer.content.read(READ)

    async def _open(self) -> aiohttp.ClientSession:
        # What aiohttp would take has no authorities: see `lean`.
        secure = await asyncio.to_thread(ssl.create_default_context) if self._url.scheme == "https" else True
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=secure), cookie_jar=aiohttp.DummyCookieJar()
        )


class _Partial(msgspec.Struct, rename="camel"):
    rejected_data_points: int = 0


class _Answer(msgspec.Struct, rename="camel"):
    partial_success: _Partial | None = None


def _rejected(answer: bytes) -> int:
    """How many values a receiver that answered 200 did not take; 0 where it does not say."""
    try:
        # `strict=False`: protobuf's JSON writes 64-bit numbers as text.
        found = msgspec.json.decode(answer, type=_Answer, strict=False) if answer else _Answer()
    except (ValueError, RecursionError):
        return 0
    return found.partial_success.rejected_data_points if found.partial_success is not None else 0
