"""Endpoints that are DNS names: a headless Service's name stands for the pods behind it now."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Final

#: Seconds between two looks. Cluster DNS has a TTL of 5 s on headless records (CoreDNS's default), and getaddrinfo
#: does not tell a TTL.
REFRESH: Final = 5.0
#: While a name stands for nothing.
RETRY: Final = 0.5
#: Answers in a row after which it is believed that a name stands for nothing: a name server that has just started may
#: not know its names yet.
BELIEVED: Final = 2
MAX_ADDRESSES: Final = 1000

_NOTHING: Final = (socket.EAI_NONAME, socket.EAI_NODATA)

log = logging.getLogger(__name__)


def is_literal(host: str) -> bool:
    """Whether a host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Names:
    """What names stand for. An answer holds until the next one; a name server that is away changes nothing.

    A name that stands for nothing any more has no addresses: those of pods that are gone are given to other pods.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._known: dict[str, tuple[str, ...]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def addresses(self, host: str) -> tuple[str, ...]:
        """IP addresses of a host: itself if it is one, nothing while a name has not resolved yet."""
        return (host,) if is_literal(host) else self._known.get(host, ())

    def follow(self, hosts: Iterable[str]) -> None:
        """Keep up with these names and with no others."""
        wanted = {host for host in hosts if not is_literal(host)}
        for host in self._tasks.keys() - wanted:
            self._tasks.pop(host).cancel()
            self._known.pop(host, None)
        for host in wanted - self._tasks.keys():
            self._tasks[host] = asyncio.get_running_loop().create_task(self._keep_up(host))

    def stop(self) -> None:
        self.follow(())

    async def _keep_up(self, host: str) -> None:
        failed = False
        empty = 0
        while True:
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                if not failed:
                    log.warning("endpoint %s does not resolve: %s", host, error)
                failed = True
                empty = empty + 1 if isinstance(error, socket.gaierror) and error.errno in _NOTHING else 0
                if empty >= BELIEVED:
                    self._learn(host, ())
            else:
                failed = False
                empty = 0
                self._learn(host, tuple(sorted({str(entry[4][0]) for entry in found})[:MAX_ADDRESSES]))
            await asyncio.sleep(RETRY if empty or not self._known.get(host) else REFRESH)

    def _learn(self, host: str, addresses: tuple[str, ...]) -> None:
        if addresses != self._known.get(host, ()):
            self._known[host] = addresses
            self._changed()
