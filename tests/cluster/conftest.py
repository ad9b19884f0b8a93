"""A real cluster for the tests in this folder.

COALMINE_CLUSTER says which: `own` (a node that is started for the test run), `kubeconfig` (the cluster that
COALMINE_KUBECONFIG names) or `none`. Unset, it is `kubeconfig` where COALMINE_KUBECONFIG is set and else `own` where
this machine can run a node. Where there is no cluster the tests are skipped, with the reason; with CI=true they fail.

A cluster of the user's must have the images `coalmine-*:dev` on its nodes; COALMINE_CLUSTER_NET is a command that runs
its arguments in the pods' network, such as `nsenter --target PID --net` of a kind node.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cluster.lab import images
from tests.cluster.lab.build import programs
from tests.cluster.lab.cluster import Cluster, ExternalCluster, NodeCluster, node_cluster
from tests.cluster.lab.need import chosen, missing
from tests.cluster.lab.run import LabError

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        # A fixture may compile a node first: only the tests themselves are timed. The lab's own waits are all bounded.
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(180, func_only=True))
        # A node, its pods and their clients share two cores with whatever else there is. A second failure is one.
        item.add_marker(pytest.mark.flaky(reruns=1))


def _absent(reason: str) -> None:
    if os.environ.get("CI") == "true" and os.environ.get("COALMINE_CLUSTER") != "none":
        pytest.fail(f"no cluster: {reason}", pytrace=False)
    pytest.skip(f"no cluster: {reason}")


Shown = Callable[[], contextlib.AbstractContextManager[object]]


@pytest.fixture(scope="session")
def shown(request: pytest.FixtureRequest) -> Shown:
    """A block whose output is seen at once: what is slow and made once says so."""
    capturing = request.config.pluginmanager.getplugin("capturemanager")
    return contextlib.nullcontext if capturing is None else capturing.global_and_fixture_disabled


@pytest.fixture(scope="session")
def cluster(shown: Shown) -> Iterator[Cluster]:
    """The cluster of this test run."""
    try:
        choice, kubeconfig = chosen("own", "kubeconfig", "none")
    except LabError as error:
        pytest.fail(str(error), pytrace=False)
    if choice == "kubeconfig":
        yield ExternalCluster(kubeconfig)
    elif choice == "none":
        _absent("COALMINE_CLUSTER=none")
    else:
        if reason := missing():
            _absent(reason)
        with shown():
            programs()
        with node_cluster() as node:
            yield node


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> NodeCluster:
    """The cluster where it is a node of our own, whose processes a test may stop."""
    if not isinstance(cluster, NodeCluster):
        pytest.skip("needs a node of our own (COALMINE_CLUSTER=own)")
    return cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own that refuses every pod which is not `restricted`."""
    name = f"test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def _loaded(cluster: Cluster, image: images.Image, shown: Shown) -> str:
    if isinstance(cluster, NodeCluster):
        with shown():
            archive = images.archive(image)
        cluster.load(archive)
    return image.name


@pytest.fixture(scope="session")
def sidecar_image(cluster: Cluster, shown: Shown) -> str:
    """The name of the sidecar's image, which the cluster has."""
    return _loaded(cluster, images.SIDECAR, shown)


@pytest.fixture(scope="session")
def operator_image(cluster: Cluster, shown: Shown) -> str:
    """The name of the operator's image, which the cluster has."""
    return _loaded(cluster, images.OPERATOR, shown)


@pytest.fixture(scope="session")
def model_image(cluster: Cluster, shown: Shown) -> str:
    """The name of the image of `examples/model_server.py`, which the cluster has. MODEL_VERSION: v1 to v4."""
    return _loaded(cluster, images.MODEL, shown)
