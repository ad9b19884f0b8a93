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
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from http import HTTPStatus
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


#: kopf's loggers that tell of a task's failure, with its traceback: whoever awaits `watching` tells of it.
_TELL_OF_FAILURES: Final = ("kopf._core.reactor.running", "kopf._core.reactor.orchestration")


class _Again:
    """Seconds before each new try of a watch, without an end: after the last of a list kopf gives up watching."""

    def __iter__(self) -> Iterator[float]:
        yield from AGAIN
        yield from itertools.repeat(AGAIN[-1])


def _is_news(record: logging.LogRecord) -> bool:
    """kopf tells of each try of each watch; that the API server is away is told with the first one."""
    tries = re.match(r"Request attempt #(\d+) failed; will retry", record.getMessage())
    return tries is None or tries[1] == "1"


def _is_no_failure(record: logging.LogRecord) -> bool:
    return record.exc_info is None


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


class WatchingEnded(Exception):  # noqa: N818 - says what happened
    """Nothing is watched any more; the message is one line."""


@contextlib.asynccontextmanager
async def watching(saw: Saw, access: Access, *, namespaces: Sequence[str]) -> AsyncIterator[asyncio.Task[None]]:
    """kopf's watches, running; its task ends before the block only where watching is not possible: WatchingEnded.

    kopf takes the process's signals as it starts, and at its end cancels every task that began after it: so whoever
    uses this takes the signals back, and ends what is its own inside the block.
    """
    logging.getLogger("kopf").setLevel(logging.WARNING)
    for name in _TELL_OF_TRIES:
        logging.getLogger(name).addFilter(_is_news)
    for name in _TELL_OF_FAILURES:
        logging.getLogger(name).addFilter(_is_no_failure)
    before = asyncio.all_tasks()
    ready, stop = asyncio.Event(), asyncio.Event()
    roots = await kopf.spawn_tasks(
        registry=make_registry(saw, access),
        settings=make_settings(),
        standalone=True,
        # Or kopf would look up our user's name, and a container's user has none.
        identity="coalmine",  # type: ignore[arg-type]  # a NewType of str that kopf does not export
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        ready_flag=ready,
        stop_flag=stop,
    )
    task = asyncio.create_task(_until_one_fails(roots), name="kopf")
    started = asyncio.create_task(ready.wait())
    await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        yield task
    finally:
        stop.set()
        if task.done():
            # kopf's own end would first forget who we are, and then wait for watches that wait to log in again.
            rest = asyncio.all_tasks() - before - {task}
            for one in rest:
                one.cancel()
            await asyncio.wait({*rest, task}, timeout=EXIT)
        else:
            ending = kopf.run_tasks(roots, ignored=before | {task})
            await asyncio.gather(ending, task, return_exceptions=True)


async def _until_one_fails(roots: Collection[asyncio.Task[Any]]) -> None:
    """kopf would try to end in order after this, and hang. Raises WatchingEnded, unless it was told to end."""
    done, _ = await asyncio.wait(roots, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise WatchingEnded(_words(error)) from error


def _words(error: BaseException) -> str:
    if getattr(error, "status", None) == HTTPStatus.NOT_FOUND:
        return "the API server knows a watched kind no more: maybe the CRD was deleted"
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
