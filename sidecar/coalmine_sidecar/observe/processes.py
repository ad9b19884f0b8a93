"""The processes of the model's container, where those of all containers of a pod can be seen (shareProcessNamespace).

Each container has a control group, whose path /proc tells of every process. Not ours, and not that of process 1 (which
holds the pod's namespaces): what is left is the model's, or somebody's whom the user put beside it. Then it is the one
of the user who listens at the model's port. Where that says nothing either, the model is not known.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import psutil

_PROC: Final = Path("/proc")
_LISTENS: Final = "0A"


class Seen(NamedTuple):
    """One process. `group`: its control groups as /proc writes them; `user`: its effective id."""

    pid: int
    group: str
    user: int


def in_pod(port: int) -> list[psutil.Process]:
    """The model's, which listens at `port`; the oldest first. Empty where they cannot be told from others."""
    processes = []
    for one in chosen(_seen(), os.getpid(), set(_listeners(port))):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            processes.append(psutil.Process(one.pid))
    return processes


def chosen(seen: Iterable[Seen], own: int, listeners: set[int]) -> list[Seen]:
    """Of all processes those of the model's container. `own`: our process; `listeners`: users at the model's port."""
    containers: dict[str, list[Seen]] = {}
    for one in sorted(seen):
        containers.setdefault(one.group, []).append(one)
    others = [group for group in containers.values() if not {own, 1} & {one.pid for one in group}]
    if len(others) > 1:
        others = [group for group in others if listeners & {one.user for one in group}]
    return others[0] if len(others) == 1 else []


def _seen() -> Iterator[Seen]:
    for pid in psutil.pids():
        try:
            yield Seen(pid, (_PROC / str(pid) / "cgroup").read_text(), psutil.Process(pid).uids().effective)
        except (OSError, psutil.Error):  # it ended meanwhile
            continue


def _listeners(port: int) -> Iterator[int]:
    """User ids of the sockets that listen at `port`, in this network namespace."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "self/net" / table).read_text().splitlines()[1:]
        except OSError:  # no IPv6 here
            continue
        for line in lines:
            _, local, _, state, _, _, _, user, *_ = line.split()
            if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
                yield int(user)
