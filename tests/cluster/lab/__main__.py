"""Runs a one-node Kubernetes cluster in the foreground: `python -m tests.cluster.lab [build]`."""

from __future__ import annotations

import contextlib
import signal
import sys

from .build import programs
from .cluster import node_cluster
from .need import missing
from .run import LabError


def main(arguments: list[str]) -> str | None:
    """Returns the reason why it did not work, None after a good end."""
    if arguments not in ([], ["build"]):
        return "usage: python -m tests.cluster.lab [build]"
    if reason := missing():
        return reason
    try:
        if arguments == ["build"]:
            programs()
            return None
        with contextlib.suppress(KeyboardInterrupt), node_cluster() as cluster:
            print(f"ready after {cluster.seconds_to_ready:g} s; in another terminal:", flush=True)
            print(f"  export KUBECONFIG={cluster.api} PATH={cluster.layout.programs}:$PATH", flush=True)
            print("Ctrl-C ends the node and removes what it made", flush=True)
            cluster.warden.wait()
            return f"the node ended by itself: see {cluster.layout.logs}"
    except LabError as error:
        return str(error)
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
