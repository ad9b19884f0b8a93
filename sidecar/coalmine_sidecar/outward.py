"""What all that send something to others have in common: addresses that may be told, and one line a change of state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from yarl import URL

#: Seconds between two lines about one receiver: one that takes every second message is no news each time.
APART: Final = 10.0
#: Seconds after which a task that did not end is told so again.
AGAIN: Final = 0.05


def split_address(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ValueError with one clear line."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is no host:port")
    return host, int(port)


def http_url(text: str) -> URL:
    """An http or https URL with a host. Raises ValueError with one line, in which no password stands."""
    try:
        url = URL(text)
        fits = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        fits = False
    if not fits or not text.isprintable():
        # Not the text itself: what is wrong with it may be what stands around a password.
        raise ValueError("no URL: write http://HOST:PORT/PATH or https://HOST/PATH")
    return url


def shown(url: URL) -> str:
    """A URL for a log: without user, password, query and fragment, which may be secrets."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once is not always enough: where a timeout of aiohttp's client comes at the same moment, all that the task sees of
    both is a TimeoutError, and it goes on (seen with 3.14 on Python 3.11 at every hundredth end).
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=AGAIN)
        await asyncio.gather(*ended, return_exceptions=True)


class Health:
    """Whether a receiver takes what it is sent; told when that changes. `name` is what lines begin with."""

    def __init__(self, name: str, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._log = log
        self._clock = clock
        self._told_well = True
        self._told_at = float("-inf")

    def say(self, problem: str) -> None:
        """What is wrong now, in one line; empty: nothing is."""
        if bool(problem) != self._told_well:
            return
        now = self._clock()
        if now - self._told_at < APART:
            return
        self._told_well, self._told_at = not problem, now
        if problem:
            self._log.warning("%s: %s", self._name, problem)
        else:
            self._log.info("%s: takes what it is sent again", self._name)
