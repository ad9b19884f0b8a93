"""Requests that the model has to answer before its pod is ready, and again whenever the model was started anew.

They go to the model itself, not through the relay: nobody's share, latency or outputs are counted by them. Until they
are answered the relay sends the model nothing else: whoever comes is told that no connection was opened, and asks
another pod.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from .contract import WarmupRequest
from .listeners import listeners
from .relay.relay import Relay
from .telemetry import Telemetry

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

#: Tells a model that nobody waits for the answer but the sidecar.
HEADER: Final = "Coalmine-Warmup"
#: Seconds between two tries of a request: the first time, and at most.
FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 5.0
#: Seconds between two looks whether the model is still the one that was warmed up.
PERIOD: Final = 0.25
#: Seconds a look by connecting may take, where the system does not tell who listens.
CONNECT: Final = 1.0
#: Characters of an answer that are worth telling.
SHOWN: Final = 200
#: The name under which telemetry knows what keeps the pod from being ready.
WARMUP: Final = "warm-up"

log = logging.getLogger(__name__)


class _ColdError(Exception):
    """An answer that is not the one wanted, or none. `kind` is the counter's outcome."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class WarmUp:
    """`run` goes on until it is cancelled.

    `tls` gives the context for the model's certificate, None where there is none yet; without it HTTP is spoken.
    """

    def __init__(
        self,
        requests: tuple[WarmupRequest, ...],
        relay: Relay,
        telemetry: Telemetry,
        *,
        model: tuple[str, int],
        tls: Callable[[], ssl.SSLContext | None] | None = None,
        server_name: str = "",
    ) -> None:
        self._requests = requests
        self._relay = relay
        self._telemetry = telemetry
        self._host, self._port = model
        self._tls = tls
        self._server_name = server_name
        self._told = ("", "")
        self._hold("has not begun")

    async def run(self) -> None:
        while True:
            before = listeners(self._port)
            await self._warm_up()
            warmed = listeners(self._port)
            if before and before.isdisjoint(warmed):
                continue  # it was started anew in the midst
            self._relay.hold_model(False)
            self._telemetry.hindrances.pop(WARMUP, None)
            log.info("warm-up: answered")
            await self._ended(warmed)
            self._hold("the model has ended: waiting for it to be back")
            log.warning("warm-up: the model has ended; it takes no requests before it is warmed up again")

    def _hold(self, why: str) -> None:
        self._relay.hold_model(True)
        self._telemetry.hindrances[WARMUP] = f"{WARMUP}: {why}"

    async def _warm_up(self) -> None:
        self._told = ("", "")
        # A connection for each: what a server keeps by connection is not what is to be warmed up.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            for request in self._requests:
                for _ in range(request.repeat):
                    await self._until_answered(session, request)

    async def _until_answered(self, session: aiohttp.ClientSession, request: WarmupRequest) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                await self._ask(session, request)
            except _ColdError as cold:
                self._telemetry.warmup(cold.kind)
                self._tell(request, cold)
            else:
                self._telemetry.warmup("ok")
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE)

    def _tell(self, request: WarmupRequest, cold: _ColdError) -> None:
        message = f"{request.method} {request.path}: {cold}"
        self._telemetry.hindrances[WARMUP] = f"{WARMUP}: {message}"
        # One line for each kind of trouble, not for each try.
        said = (request.path, cold.kind)
        if said != self._told:
            self._told = said
            log.warning("%s: %s; asking until it answers", WARMUP, message)

    async def _ask(self, session: aiohttp.ClientSession, request: WarmupRequest) -> None:
        headers: CIMultiDict[str] = CIMultiDict((header.name, header.value) for header in request.headers)
        headers[HEADER] = "true"
        content = request.content
        if content and "content-type" not in headers:
            headers["Content-Type"] = "application/json"
        context = self._tls() if self._tls is not None else None
        if self._tls is not None and context is None:
            raise _ColdError("error", "waiting for the files of spec.model.tls")
        host = f"[{self._host}]" if ":" in self._host else self._host
        scheme = "http" if context is None else "https"
        try:
            async with session.request(
                request.method,
                URL(f"{scheme}://{host}:{self._port}{request.path}", encoded=True),
                data=content or None,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=request.timeout),
                ssl=context if context is not None else False,
                server_hostname=self._server_name or None,
            ) as answer:
                start = b""
                async for piece in answer.content.iter_any():
                    if len(start) < SHOWN:
                        start += piece[:SHOWN]
                if answer.status != request.status:
                    raise _ColdError("status", f"answered {answer.status}, not {request.status}: {_shown(start)}")
        except TimeoutError:
            raise _ColdError("error", f"no whole answer within {request.timeout:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise _ColdError("error", f"no connection: {error.strerror or error}") from None
        except aiohttp.ClientError as error:
            raise _ColdError("error", f"the connection broke: {_shown(str(error).encode())}") from None

    async def _ended(self, warmed: frozenset[int]) -> None:
        """Wait until the model that was warmed up does not listen any more."""
        while True:
            await asyncio.sleep(PERIOD)
            if warmed:
                if warmed.isdisjoint(listeners(self._port)):
                    return
            elif await self._refuses():
                return

    async def _refuses(self) -> bool:
        try:
            async with asyncio.timeout(CONNECT):
                _, writer = await asyncio.open_connection(self._host, self._port)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False  # busy is not gone
        writer.close()
        return False


def _shown(text: bytes) -> str:
    """The beginning of an answer as a piece of one line."""
    plain = "".join(c if c.isprintable() else " " for c in text.decode("utf-8", "replace"))
    return " ".join(plain.split())[:SHOWN] or "(no body)"
