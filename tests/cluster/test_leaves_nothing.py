"""A node goes with its owner, whatever kills the owner."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.lab import cgroups
from tests.cluster.lab.cache import PROJECT
from tests.cluster.lab.layout import Layout
from tests.cluster.lab.warden import own_folder

pytestmark = pytest.mark.usefixtures("node")


class Owned:
    """A node with an owner of its own, which a test may kill."""

    def __init__(self) -> None:
        self.owner = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.lab"], stdout=subprocess.PIPE, text=True, cwd=PROJECT
        )
        assert self.owner.stdout is not None
        found = None
        for line in self.owner.stdout:
            if found := re.search(r"KUBECONFIG=(\S+)/kubeconfig", line):
                break
        assert found, "the node did not start"
        self.layout = Layout(Path(found[1]))
        self.processes = cgroups.members(self.layout.cgroup)
        self.network = os.stat(f"/proc/{min(self.processes)}/ns/net").st_ino

    @property
    def warden(self) -> int:
        """The owner's only child."""
        children = Path(f"/proc/{self.owner.pid}/task/{self.owner.pid}/children").read_text()
        return int(children)

    def left(self) -> list[str]:
        """What of the node is still there, folders and control groups apart."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "ns/net").stat().st_ino == self.network:
                    found.append(f"process {process.name} in the node's network")
                if str(self.layout.root) in (process / "mountinfo").read_text():
                    found.append(f"mount of the node seen by process {process.name}")
            except OSError:
                continue  # it has ended meanwhile
        return found

    def files_left(self) -> list[str]:
        places = [self.layout.root, *(top / self.layout.cgroup for top in cgroups.hierarchies())]
        return [str(place) for place in places if place.exists()]


@pytest.fixture
def owned() -> Iterator[Owned]:
    started = Owned()
    assert len(started.processes) > 8
    assert started.left(), "the check must be able to find a node"
    yield started
    started.owner.kill()
    started.owner.communicate()


def _until_empty(what: Callable[[], list[str]], seconds: float = 15.0) -> list[str]:
    """What is left when nothing is left, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while (found := what()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_when_its_owner_is_killed(owned: Owned) -> None:
    owned.owner.kill()

    assert _until_empty(owned.left) == []
    assert _until_empty(owned.files_left) == []


def test_when_its_warden_is_killed_as_well(owned: Owned) -> None:
    os.kill(owned.warden, signal.SIGKILL)
    owned.owner.kill()

    assert _until_empty(owned.left) == []
    assert owned.files_left(), "nobody was there to remove these"
    with own_folder():  # as the next start does
        assert owned.files_left() == []
