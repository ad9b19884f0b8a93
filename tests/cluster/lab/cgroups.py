"""The node's control groups, of either version: all below one name, so that they can be found and removed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

#: The node's own processes live here; kubelet makes `kubepods` beside it.
SYSTEM = "system"


def hierarchies() -> list[Path]:
    """Where control groups are mounted: one place for version 2, one for each controller for version 1."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, kind = line.split()[4], line.partition(" - ")[2].split()[0]
        if kind in ("cgroup", "cgroup2"):
            found.append(Path(place))
    return found


def create(name: str) -> None:
    """Make group `name` and its group SYSTEM in every hierarchy."""
    for top in hierarchies():
        if (top / "cgroup.subtree_control").exists():
            available = (top / "cgroup.controllers").read_text().split()
            (top / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in available))
        for group in (top / name, top / name / SYSTEM):
            group.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of version 1: nothing may enter it
                inherited = group.parent / setting
                if inherited.exists() and (group / setting).exists():
                    (group / setting).write_text(inherited.read_text())


def enter(name: str) -> None:
    """Move this process into SYSTEM of group `name`; its children follow."""
    for top in hierarchies():
        (top / name / SYSTEM / "cgroup.procs").write_text("0")


def members(name: str) -> set[int]:
    """Process ids in the group and below it, in every hierarchy."""
    found: set[int] = set()
    for group in _groups(name):
        with contextlib.suppress(OSError):  # a pod's may go at any moment
            found.update(map(int, (group / "cgroup.procs").read_text().split()))
    return found


def exists(name: str) -> bool:
    return any((top / name).is_dir() for top in hierarchies())


def remove(name: str, patience: float = 5.0) -> None:
    """Remove the group with all below it. The kernel lets go of the dead within a moment: `patience` seconds.

    Raises OSError if a process still lives there after that.
    """
    deadline = time.monotonic() + patience
    for group in _groups(name):
        while group.is_dir():
            try:
                group.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def _groups(name: str) -> Iterator[Path]:
    """Children before their parents."""
    for top in hierarchies():
        for folder, _, _ in os.walk(top / name, topdown=False):
            yield Path(folder)
