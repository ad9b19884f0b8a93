"""Runs a one-node Kubernetes cluster in the foreground: `python -m tests.cluster.lab`.

With `build`: makes what the tests would have to make first, where it can be seen how that goes. With `images`: the node
has the project's images, built anew where their sources have changed.
"""

from __future__ import annotations

import contextlib
import signal
import sys

from . import images
from .build import programs
from .cluster import NodeCluster, node_cluster
from .need import chosen, missing
from .prometheus import prometheus
from .run import LabError

IMAGES = (images.SIDECAR, images.OPERATOR, images.MODEL)
#: With the images that the node has.
INSTALL = (
    "helm install coalmine helm/coalmine --namespace coalmine-system --create-namespace --wait"
    " --set image.tag=dev,sidecar.image.tag=dev"
)


def main(arguments: list[str]) -> str | None:
    """Returns the reason why it did not work, None after a good end."""
    if arguments not in ([], ["build"], ["images"]):
        return "usage: python -m tests.cluster.lab [build | images]"
    try:
        if arguments == ["build"]:
            _build()
            return None
        if reason := missing():
            return reason
        with contextlib.suppress(KeyboardInterrupt), node_cluster() as cluster:
            if arguments == ["images"]:
                _load(cluster)
            print(f"ready after {cluster.seconds_to_ready:g} s; in another terminal:", flush=True)
            print(f"  export KUBECONFIG={cluster.api} PATH={cluster.layout.programs}:$PATH", flush=True)
            if arguments == ["images"]:
                print(f"  {INSTALL}\n  kubectl apply -f examples/breast-cancer-cluster.yaml", flush=True)
            print("Ctrl-C ends the node and removes what it made", flush=True)
            cluster.warden.wait()
            return f"the node ended by itself: see {cluster.layout.logs}"
    except LabError as error:
        return str(error)
    return None


def _build() -> None:
    """Nothing where no node will run: what that means is for the tests to say."""
    if chosen("own", "kubeconfig", "none")[0] == "own" and not missing():
        programs()
        prometheus()
        for image in IMAGES:
            images.archive(image)


def _load(cluster: NodeCluster) -> None:
    for image in IMAGES:
        cluster.load(images.archive(image))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
