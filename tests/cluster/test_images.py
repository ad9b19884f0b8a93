"""What is in the images, and that they run where a careful cluster lets them run."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from examples.protocol import INPUT
from tests.cluster.figures import Figure
from tests.cluster.lab import images
from tests.cluster.lab.archive import read_config, read_names
from tests.cluster.lab.cluster import Cluster, NodeCluster
from tests.cluster.lab.images import Image
from tests.cluster.lab.run import LabError
from tests.cluster.pods import RESTRICTED_CONTAINER, pod

PYTHON = "/opt/coalmine/bin/python3"


@pytest.fixture(scope="module")
def archives(node: NodeCluster, shown: Callable[[], AbstractContextManager[object]]) -> dict[Image, Path]:
    """Of all images; built here, where no test's time runs."""
    with shown():
        return {image: images.archive(image) for image in (images.SIDECAR, images.OPERATOR, images.MODEL)}


def packages(archive: Path) -> set[str]:
    """Names of what can be imported in the image, the standard library and the base's own apart."""
    names = read_names(archive)
    tails = (re.sub(r"^opt/coalmine/(lib/python[^/]+/site-packages|code)/", "", name) for name in names)
    return {tail.partition("/")[0] for name, tail in zip(names, tails, strict=True) if tail != name}


def test_they_run_as_nobody_and_without_a_shell(archives: dict[Image, Path], figure: Figure) -> None:
    for image, archive in archives.items():
        config = read_config(archive)

        assert config["User"] == "65532:65532", image.name
        assert config["Entrypoint"][0].endswith("/bin/python3"), image.name
        assert not config.get("Cmd"), image.name
    figure(", ".join(f"{image.name} {path.stat().st_size / 1e6:.0f} MB" for image, path in archives.items()))


def test_the_sidecar_carries_nothing_but_itself(archives: dict[Image, Path]) -> None:
    found = packages(archives[images.SIDECAR])

    assert {"coalmine_sidecar", "aiohttp", "httptools", "msgspec", "prometheus_client", "psutil", "uvloop"} <= found
    assert not found & {"coalmine_operator", "kopf", "kubernetes", "cryptography", "numpy", "yaml", "pip", "setuptools"}


def test_the_sidecars_hot_path_is_compiled(archives: dict[Image, Path]) -> None:
    names = read_names(archives[images.SIDECAR])
    compiled = {name for name in names if "/coalmine_sidecar/" in name and name.endswith(".so")}
    for module in ("relay/exchange", "relay/upstream", "observe/observer", "telemetry/counters"):
        assert any(f"coalmine_sidecar/{module}." in name for name in compiled), module


def test_the_operator_carries_what_it_imports(archives: dict[Image, Path]) -> None:
    found = packages(archives[images.OPERATOR])

    assert {"coalmine_operator", "coalmine_sidecar", "kopf", "cryptography", "numpy", "yaml"} <= found
    assert not found & {"kubernetes", "pip", "setuptools", "sklearn", "pytest"}


def test_the_operators_code_runs_in_its_image(cluster: Cluster, namespace: str, operator_image: str) -> None:
    code = "import kopf, cryptography, coalmine_operator.operating; from coalmine_operator.cli import main; main()"
    once = pod("once", operator_image, command=[PYTHON], args=["-c", code, "--version"])
    once["spec"]["restartPolicy"] = "Never"
    cluster.apply(once, namespace)

    assert "0.1.0" in cluster.output(namespace, "once")


def guarded(sidecar: str, model: str) -> list[dict[str, Any]]:
    """A model server behind a sidecar, as the operator will make it."""
    routing = {
        "schema": 1,
        "deployment": "fraud",
        "model": "fraud",
        "generation": 1,
        "revisions": [{"name": "fraud-1", "version": "v1", "track": "stable", "weight": 100}],
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "fraud-routing"},
        "stringData": {"routing.json": json.dumps(routing)},
    }
    loaded = {"httpGet": {"path": "/v2/health/ready", "port": 8080}, "periodSeconds": 1}
    both = pod("fraud", model, env=[{"name": "MODEL_VERSION", "value": "v1"}], readinessProbe=loaded)
    flags = {
        "routing": "/etc/coalmine/routing/routing.json",
        "revision": "fraud-1",
        "pod": "fraud",
        "model": "127.0.0.1:8080",
        "ingress": "0.0.0.0:8008",
        "local": "0.0.0.0:8009",
        "admin": "0.0.0.0:8010",
    }
    both["spec"]["volumes"] = [{"name": "routing", "secret": {"secretName": "fraud-routing"}}]
    both["spec"]["initContainers"] = [
        {
            "name": "coalmine-sidecar",
            "image": sidecar,
            "imagePullPolicy": "IfNotPresent",
            "restartPolicy": "Always",
            "args": [word for name, value in flags.items() for word in (f"--{name}", value)],
            "volumeMounts": [{"name": "routing", "mountPath": "/etc/coalmine/routing"}],
            "securityContext": RESTRICTED_CONTAINER,
            "startupProbe": {"httpGet": {"path": "/healthz", "port": 8010}, "periodSeconds": 1},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8010}, "periodSeconds": 1},
        }
    ]
    return [secret, both]


def test_sidecar_and_model_serve_under_restricted_pod_security(
    cluster: Cluster, namespace: str, sidecar_image: str, model_image: str
) -> None:
    cluster.apply(guarded(sidecar_image, model_image), namespace)
    cluster.ready(namespace, "fraud", timeout=90)
    address = cluster.get("pod/fraud", "--namespace", namespace)["status"]["podIP"]

    with cluster.door(address, 8010) as admin:
        assert urllib.request.urlopen(f"http://127.0.0.1:{admin}/healthz", timeout=5).read() == b"ok\n"
    rows = {"inputs": [{"name": INPUT, "shape": [1, 30], "datatype": "FP64", "data": [1.0] * 30}]}
    with cluster.door(address, 8008) as ingress:
        request = urllib.request.Request(
            f"http://127.0.0.1:{ingress}/v2/models/fraud/infer",
            json.dumps(rows).encode(),
            {"Content-Type": "application/json"},
        )
        assert json.load(urllib.request.urlopen(request, timeout=10))["model_name"] == "fraud"

    def inside(code: str) -> str:
        where = ("fraud", "--container", "coalmine-sidecar", "--namespace", namespace)
        return cluster.kubectl("exec", *where, "--", PYTHON, "-c", code)

    with pytest.raises(LabError, match="Read-only file system"):
        inside("open('/tmp/x', 'w')")
    status = inside("print(open('/proc/1/status').read())")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["65532"] * 4
    assert int(fields["CapEff"], 16) == 0
