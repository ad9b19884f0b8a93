"""Knative's queue-proxy, compiled by this machine's Go: the sidecar in every pod of KServe and Knative."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cluster.lab.cache import made_once
from tests.cluster.lab.run import LabError, run

from .machine import BenchError, tool

VERSION = "0.49.0"
PACKAGE = f"knative.dev/serving/cmd/queue@v{VERSION}"
#: It listens on these as well, whatever it is told.
FIXED_PORTS = (8022, 9090)


def build() -> Path:
    """The program; a minute or two the first time. Raises BenchError where it can't be built."""
    if tool("go") is None:
        raise BenchError("no Go on this machine")
    try:
        return made_once("queue-proxy", VERSION, _compile) / "queue"
    except LabError as error:
        raise BenchError(f"queue-proxy: {error}") from error


def _compile(target: Path) -> None:
    print(f"compiling queue-proxy {VERSION} (once, 2 minutes on 2 cores)", flush=True)
    environment = {**os.environ, "GOBIN": str(target), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    run("nice", "-n", "19", "go", "install", PACKAGE, environment=environment, timeout=1800)


def environment(port: int, upstream: int) -> dict[str, str]:
    """As Knative's controller sets it for a revision without a limit of concurrency, which is its default."""
    return {
        "CONTAINER_CONCURRENCY": "0",
        "QUEUE_SERVING_PORT": str(port),
        "QUEUE_SERVING_TLS_PORT": "0",
        "USER_PORT": str(upstream),
        "REVISION_TIMEOUT_SECONDS": "300",
        "REVISION_RESPONSE_START_TIMEOUT_SECONDS": "300",
        "SERVING_LOGGING_CONFIG": "",
        "SERVING_LOGGING_LEVEL": "error",
        "SERVING_NAMESPACE": "default",
        "SERVING_CONFIGURATION": "model",
        "SERVING_REVISION": "model-00001",
        "SERVING_POD": "model-00001-0",
        "SERVING_POD_IP": "127.0.0.1",
        # Its requests' metrics, for Prometheus: the least that a sidecar is for.
        "OBSERVABILITY_CONFIG": '{"requestMetrics": {"protocol": "prometheus", "endpoint": ":9091"}}',
    }
