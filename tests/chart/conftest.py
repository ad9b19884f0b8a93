"""helm for the tests in this folder: the one in PATH, or the one of the cluster's node, compiled where Go is at hand.

And Prometheus 3, which Debian has not: the one of the node. Where there is none the tests are skipped, with the reason;
with CI=true they fail. COALMINE_CLUSTER=none compiles nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.chart.chart import Chart
from tests.cluster.lab.build import MODULE
from tests.cluster.lab.cache import CACHE, fingerprint, made_once
from tests.cluster.lab.prometheus import prometheus
from tests.cluster.lab.run import run

HERE = Path(__file__).parent
PACKAGE = "helm.sh/helm/v4/cmd/helm"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # A fixture may compile helm first: only the tests themselves are timed.
        if HERE in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120, func_only=True))


def _compile(target: Path) -> None:
    # With the flags of the node: the two share what Go has compiled already.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    argv = ("nice", "-n", "19", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", target / "helm", PACKAGE)
    run(*argv, folder=MODULE, environment=environment, timeout=3600)


@pytest.fixture(scope="session")
def helm() -> str:
    """A helm to call."""
    if installed := shutil.which("helm"):
        return installed
    if built := sorted(CACHE.glob("node/*/helm")):
        return str(built[-1])
    _needs_go("helm", "install helm 3.8 or newer")
    return str(made_once("helm", fingerprint([MODULE / "go.mod", MODULE / "go.sum"]), _compile) / "helm")


@pytest.fixture(scope="session")
def prometheus_3() -> Path:
    """Its executable."""
    if built := sorted(CACHE.glob("prometheus/*/prometheus"), key=lambda path: path.stat().st_mtime):
        return built[-1]
    _needs_go("Prometheus 3", "install Go, see tests/cluster/node/go.mod")
    return prometheus()


def _needs_go(what: str, remedy: str) -> None:
    if os.environ.get("COALMINE_CLUSTER") == "none":
        pytest.skip(f"no {what} here, and COALMINE_CLUSTER=none: {remedy}")
    if shutil.which("go") is None:
        reason = f"no {what} here, and no Go to compile it: {remedy}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def chart(helm: str) -> Chart:
    """The chart, ready to be rendered."""
    return Chart(helm)
