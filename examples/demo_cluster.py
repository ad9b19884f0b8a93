"""`make demo-cluster`: the story of `make demo` in a real Kubernetes, with helm and kubectl.

Installs the chart, applies breast-cancer-cluster.yaml, sends held-out rows from a pod, changes the version, and checks
what comes of it. Each command that is run is shown. Exit status 0 only if every line of the story came true and no
client saw an error; nothing is left running.

COALMINE_CLUSTER says where: `own` (a node that is started for this, and the default) or `kubeconfig`: the cluster of
COALMINE_KUBECONFIG, which must have the images coalmine-operator:dev, coalmine-sidecar:dev and coalmine-demo-model:dev.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

# Run as a script, Python looks for modules beside it, not in the project's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.show.cluster import NAMESPACE, OnCluster
from examples.show.playing import INTERRUPTED, console, in_folder, options, play
from examples.show.screen import Screen
from examples.show.senders import Senders
from examples.show.shell import Shell
from tests.cluster.lab import cgroups, images, need
from tests.cluster.lab.build import programs
from tests.cluster.lab.cluster import Cluster, ExternalCluster, NodeCluster, node_cluster
from tests.cluster.lab.run import LabError

End = Callable[[], Awaitable[list[str]]]


@contextlib.contextmanager
def own_node(screen: Screen) -> Iterator[tuple[NodeCluster, End]]:
    """A node with the images, and what ends it. Raises LabError."""
    if reason := need.missing():
        raise LabError(reason)
    with screen.busy("the node's programs are there, or compiled"):
        programs()
    archives = []
    for image in (images.SIDECAR, images.OPERATOR, images.MODEL):
        with screen.busy(f"image {image.name} is there, or built"):
            archives.append(images.archive(image))
    with contextlib.ExitStack() as stack:
        with screen.busy("a Kubernetes node starts"):
            node = stack.enter_context(node_cluster())
        with screen.busy("the node takes the images"):
            for archive in archives:
                node.load(archive)

        async def end() -> list[str]:
            await asyncio.to_thread(stack.close)
            processes = [f"process {pid} of the node" for pid in cgroups.members(node.layout.cgroup)]
            return [*processes, *([str(node.layout.root)] if node.layout.root.exists() else [])]

        yield node, end


@contextlib.contextmanager
def chosen(screen: Screen) -> Iterator[tuple[Cluster, End | None]]:
    """The cluster that COALMINE_CLUSTER chooses, as for the tests. Raises LabError."""
    choice, kubeconfig = need.chosen("own", "kubeconfig")
    if choice == "kubeconfig":
        yield ExternalCluster(kubeconfig), None
    else:
        with own_node(screen) as found:
            yield found


def _main(arguments: argparse.Namespace, folder: Path) -> int:
    screen = Screen(console(plain=arguments.plain))
    try:
        with chosen(screen) as (cluster, end):
            tools = cluster.environment["PATH"].removesuffix(os.environ["PATH"])
            screen.command(f"export KUBECONFIG={cluster.api} PATH={tools}$PATH")
            screen.say("a stand-in for Prometheus and Alertmanager scrapes the sidecars and calls the webhook")
            shell = Shell(cluster.environment, folder / "commands.log", screen.command)
            senders = Senders(shell, NAMESPACE, rate=arguments.rate)
            return play(OnCluster(shell, senders, end), senders, screen, arguments.json)
    except LabError as error:
        screen.say(f"✗ {error}", "bold red")
        return 1
    except KeyboardInterrupt:
        screen.say("stopped; everything was ended")
        return INTERRUPTED


def main() -> None:
    arguments = options("Serve, canary and roll back a real model in a Kubernetes cluster.").parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    raise SystemExit(in_folder(lambda folder: _main(arguments, folder), keep=arguments.keep))


if __name__ == "__main__":
    main()
