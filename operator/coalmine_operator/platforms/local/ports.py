"""Ports on this machine: the public one of a deployment, and those of its pods."""

from __future__ import annotations

import errno
import random
import socket
from typing import Final

from .refused import Refused

LOOPBACK: Final = "127.0.0.1"
#: Below the ports the system gives to outgoing connections: none of those takes a model's port while it restarts.
MODEL_PORTS: Final = range(20000, 32768)


def why_not(port: int, host: str = "") -> OSError | None:
    """What keeps a process from listening on `port` (without `host`: on every address) now, or None."""
    with socket.socket() as probe:
        # As servers do, so that connections in TIME_WAIT do not count; a listening socket still does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            return error if isinstance(error, OSError) else OSError(errno.EINVAL, "no port number")
        return None


def is_free(port: int) -> bool:
    return why_not(port) is None


def pick(taken: set[int]) -> int:
    """A free port for a model that is not in `taken`. Raises OSError when there is none."""
    for port in random.sample(MODEL_PORTS, 500):
        if port not in taken and is_free(port):
            return port
    raise OSError("no free port between 20000 and 32767")


def loopback_socket() -> socket.socket:
    """Bound to a port of the system's choice; whoever inherits it listens."""
    bound = socket.socket()
    bound.bind((LOOPBACK, 0))
    return bound


class Ingress:
    """The public port of a deployment: one socket that all its sidecars inherit and accept from.

    Like a Service that selects the pods of every revision: connections wait in one queue, and a sidecar that ends
    closes only its own copy. Sidecars adopted from an earlier `coalmine run` accept from that one's socket, so ours
    stands beside it (SO_REUSEPORT). The system then deals connections to both, so ours may only listen while somebody
    accepts from it: the sidecars call `listen`, and `drop` is called before the last one of them ends.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._socket: socket.socket | None = None
        self._users: set[str] = set()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def check(self) -> None:
        """Raises Refused where another program has the port."""
        error = why_not(self.port, self.host)
        if error is None:
            return
        if error.errno == errno.EADDRINUSE:
            what = f"port {self.port} on {self.host} is taken: stop what listens there or give another one with --port"
        else:
            what = f"port {self.port} on {self.host}: {error.strerror}: give another one with --port"
        raise Refused(what)

    def fileno(self, pod: str) -> int:
        """The socket for the sidecar of `pod` to inherit. Raises OSError where the port cannot be had."""
        if self._socket is None:
            bound = socket.socket()
            try:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                bound.bind((self.host, self.port))
            except OSError:
                bound.close()
                raise
            self._socket = bound
        self._users.add(pod)
        return self._socket.fileno()

    def drop(self, pod: str) -> None:
        """The sidecar of `pod` is about to end for good."""
        self._users.discard(pod)
        if not self._users:
            self.close()

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None
