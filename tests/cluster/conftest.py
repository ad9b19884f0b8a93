"""A real cluster for the tests in this folder.

COALMINE_CLUSTER says which: `own` (a node that is started for the test run), `kubeconfig` (the cluster that
COALMINE_KUBECONFIG names) or `none`. Unset, it is `kubeconfig` where COALMINE_KUBECONFIG is set and else `own` where
this machine can run a node. Where there is no cluster the tests are skipped, with the reason; with CI=true they fail.

A cluster of the user's must have the images `coalmine-*:dev` on its nodes; COALMINE_CLUSTER_NET is a command that runs
its arguments in the pods' network, such as `nsenter --target PID --net` of a kind node.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.absence import absent
from tests.cluster.figures import Figure, teller, told
from tests.cluster.lab import images
from tests.cluster.lab.build import programs
from tests.cluster.lab.cluster import Cluster, ExternalCluster, NodeCluster, node_cluster
from tests.cluster.lab.need import chosen, missing
from tests.cluster.lab.run import LabError
from tests.cluster.operating import Operator, Served
from xdist.scheduler import LoadScopeScheduling

HERE = Path(__file__).parent

#: Modules that send a steady load for most of their time: one after the other, or the machine would be too small.
LOADED = ("test_rollouts", "test_faults_api", "test_faults_operator", "test_faults_pods", "test_faults_stable")


def pytest_xdist_auto_num_workers() -> int:
    """Two workers, with a node each. A cluster of the user's is one, whose definitions the tests change."""
    return 2 if chosen("own", "kubeconfig", "none")[0] == "own" else 0


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _ByGroup(config, log)


class _ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """What a module makes it makes once: its tests stay with one worker."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


def _group(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return "load" if Path(file).stem in LOADED else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        # A fixture may compile a node first: only the tests themselves are timed. The lab's own waits are all bounded.
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(180, func_only=True))
        # A node, its pods and their clients share two cores with whatever else there is. A second failure is one.
        item.add_marker(pytest.mark.flaky(reruns=1))
    # What takes longest begins first, beside everything else.
    items.sort(key=lambda item: _group(item.nodeid) != "load")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"why {report.nodeid} was run again")
        terminalreporter.write_line(report.longreprtext)
    figures = list(told(terminalreporter.stats.get("passed", ())))
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.write_line(figure)


@pytest.fixture
def again(request: pytest.FixtureRequest) -> bool:
    """The test has failed once, and may have left anything half done of what a module's tests share."""
    count: int = getattr(request.node, "execution_count", 1)
    return count > 1


@pytest.fixture
def served(all_served: Served, operator: Operator, again: bool) -> Served:
    """What a module's tests share, in its fixtures of these names."""
    if again:
        operator.run()
        all_served.run_again()
    return all_served


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    return teller(record_property)


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
        absent("COALMINE_CLUSTER=none")
    else:
        if reason := missing():
            absent(reason)
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


def _in_cluster(cluster: Cluster, image: images.Image, shown: Shown) -> str:
    if isinstance(cluster, NodeCluster):
        with shown():
            archive = images.archive(image)
        cluster.load(archive)
    return image.name


@pytest.fixture(scope="session")
def sidecar_image(cluster: Cluster, shown: Shown) -> str:
    """The name of the sidecar's image, which the cluster has."""
    return _in_cluster(cluster, images.SIDECAR, shown)


@pytest.fixture(scope="session")
def operator_image(cluster: Cluster, shown: Shown) -> str:
    """The name of the operator's image, which the cluster has."""
    return _in_cluster(cluster, images.OPERATOR, shown)


@pytest.fixture(scope="session")
def model_image(cluster: Cluster, shown: Shown) -> str:
    """The name of the image of `examples/model_server.py`, which the cluster has. MODEL_VERSION: v1 to v4."""
    return _in_cluster(cluster, images.MODEL, shown)
