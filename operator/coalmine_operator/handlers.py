"""kopf's watches: what they see goes to the platform's cache, and nothing else happens here.

Only `on.event`: it sees every change of every object, writes nothing to the cluster and needs no finalizer. Errors and
retries are the runtime's; kopf's own kinds of handlers would keep their progress in annotations.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

import kopf

from .platforms.kubernetes.access import Access
from .platforms.kubernetes.kinds import MODEL_DEPLOYMENT, WATCHED, Kind
from .render.labels import MODELDEPLOYMENT

#: Kind of the object, ADDED, MODIFIED, DELETED or None (listed), and the object.
Saw = Callable[[Kind, str | None, Any], None]

#: Seconds without a word, bookmarks included, after which a watch is begun anew.
INACTIVITY: Final = 70.0
#: Seconds before a watch is tried again while the API server is away.
AGAIN: Final = (1.0, 1.0, 2.0, 3.0, 5.0)
#: Objects of one page of the first list.
CHUNK: Final = 50
#: Seconds before a new try where the API server knows us no more.
LOGIN_AGAIN: Final = 2.0
#: Seconds that kopf keeps a task and a queue for an object of which nothing more is heard.
IDLE: Final = 0.1
#: Seconds kopf waits for its own tasks at the end.
EXIT: Final = 10.0


def make_registry(saw: Saw, access: Access) -> kopf.OperatorRegistry:
    """Handlers for all that is watched, and the session to watch with."""
    registry = kopf.OperatorRegistry()
    logins = 0

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # Called again after a 401, though the session knows how to get a newer token: then the API server has trouble.
        nonlocal logins
        await asyncio.sleep(LOGIN_AGAIN if logins else 0)
        logins += 1
        return kopf.AiohttpSession(server=access.server, aiohttp_session=access.session())

    for kind in WATCHED:
        _watch(registry, kind, saw)
    return registry


def _watch(registry: kopf.OperatorRegistry, kind: Kind, saw: Saw) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)
    async def event(event: Any, **_: Any) -> None:
        saw(kind, event["type"], event["object"])


#: kopf's loggers that tell of each try.
_TELL_OF_TRIES: Final = ("kopf._cogs.clients.watching", "kopf._core.reactor.observation")


class _Again:
    """Seconds before each new try of a watch, without an end: after the last of a list kopf gives up watching."""

    def __iter__(self) -> Iterator[float]:
        yield from AGAIN
        yield from itertools.repeat(AGAIN[-1])


def _is_news(record: logging.LogRecord) -> bool:
    """kopf tells of each try of each watch; that the API server is away is told with the first one."""
    tries = re.match(r"Request attempt #(\d+) failed; will retry", record.getMessage())
    return tries is None or tries[1] == "1"


class _NoDiff(kopf.DiffBaseStorage):
    """kopf would copy every object at every event, to find out what changed for handlers that we do not have."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass


def make_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.networking.error_backoffs = _Again()
    settings.posting.enabled = False  # our events come from the engine, and say what happened
    settings.scanning.disabled = True  # no rights on all namespaces and all CRDs for what never changes
    settings.watching.inactivity_timeout = INACTIVITY
    settings.watching.chunk_size = CHUNK
    settings.queueing.idle_timeout = IDLE
    settings.persistence.diffbase_storage = _NoDiff()
    settings.process.ultimate_exiting_timeout = EXIT
    for kind in WATCHED:
        if kind is not MODEL_DEPLOYMENT:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = MODELDEPLOYMENT
    return settings


@contextlib.asynccontextmanager
async def watching(saw: Saw, access: Access, *, namespaces: Sequence[str]) -> AsyncIterator[asyncio.Task[None]]:
    """kopf's watches, running; its task ends before the block only where watching is not possible.

    kopf takes the process's signals as it starts, and at its end cancels every task that began after it: so whoever
    uses this takes the signals back, and ends what is its own inside the block.
    """
    logging.getLogger("kopf").setLevel(logging.WARNING)
    for name in _TELL_OF_TRIES:
        logging.getLogger(name).addFilter(_is_news)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        kopf.operator(
            registry=make_registry(saw, access),
            settings=make_settings(),
            standalone=True,
            # Or kopf would look up our user's name, and a container's user has none.
            identity="coalmine",  # type: ignore[arg-type]  # a NewType of str that kopf does not export
            clusterwide=not namespaces,
            namespaces=list(namespaces),
            ready_flag=ready,
            stop_flag=stop,
        ),
        name="kopf",
    )
    started = asyncio.create_task(ready.wait())
    await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        yield task
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
