"""Which of a pod's processes are the model's: told by control groups, and by who listens."""

from __future__ import annotations

import os
import socket

import pytest

from coalmine_sidecar.observe.processes import Seen, chosen, in_pod
from coalmine_sidecar.observe.processes import _listeners as listeners
from coalmine_sidecar.observe.processes import _seen as seen

#: As control groups of version 2 are told in a container of a namespace of its own.
PAUSE = Seen(1, "0::/../pause\n", 65535)
SIDECAR = Seen(7, "0::/\n", 65532)
MODEL = [Seen(20, "0::/../model\n", 1000), Seen(31, "0::/../model\n", 1000), Seen(300, "0::/../model\n", 0)]
PROXY = Seen(15, "0::/../proxy\n", 1337)


@pytest.mark.parametrize(
    ("processes", "listening", "found"),
    [
        ([PAUSE, SIDECAR, *MODEL], set(), MODEL),
        ([*MODEL[::-1], SIDECAR, PAUSE], {1000}, MODEL),
        ([PAUSE, SIDECAR], {1000}, []),
        ([PAUSE, SIDECAR, PROXY, *MODEL], {1000}, MODEL),
        # Nobody listens yet, both might, or a user who is in neither.
        ([PAUSE, SIDECAR, PROXY, *MODEL], set(), []),
        ([PAUSE, SIDECAR, PROXY, *MODEL], {1000, 1337}, []),
        ([PAUSE, SIDECAR, PROXY, *MODEL], {5}, []),
    ],
)
def test_the_model_is_told_from_others_or_not_known(
    processes: list[Seen], listening: set[int], found: list[Seen]
) -> None:
    assert chosen(processes, SIDECAR.pid, listening) == found


def test_where_no_namespace_is_shared_there_is_no_model() -> None:
    """The sidecar is process 1 of its own, and sees itself alone."""
    assert chosen([Seen(1, "0::/\n", 65532)], 1, {1000}) == []


def test_processes_and_listeners_of_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert set(listeners(port)) == {os.geteuid()}
    assert set(listeners(port)) == set()
    (own,) = [one for one in seen() if one.pid == os.getpid()]
    assert own.user == os.geteuid()
    assert own.group.strip()


def test_our_own_container_is_never_the_models() -> None:
    assert os.getpid() not in {process.pid for process in in_pod(1)}
