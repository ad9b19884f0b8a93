"""Prometheus, compiled from the Go module beside this package.

Debian's is built without any discovery in a cluster (`kubernetes_sd_configs`), and by that it has to find the sidecars.
"""

from __future__ import annotations

from pathlib import Path

from .cache import PROJECT, fingerprint, made_once
from .golang import SOURCE, go_build

MODULE = PROJECT / "tests" / "cluster" / "prometheus"
_PACKAGE = "github.com/prometheus/prometheus/cmd/prometheus"
#: Of all discoveries only that of Kubernetes: the clouds' are most of what there is to compile.
_TAGS = "remove_all_sd,enable_kubernetes_sd"


def prometheus() -> Path:
    """The executable. Compiles where needed: minutes, once."""
    sources = [MODULE / "go.mod", MODULE / "go.sum", Path(__file__), SOURCE]
    return made_once("prometheus", fingerprint(sources), _compile) / "prometheus"


def _compile(target: Path) -> None:
    print("compiling Prometheus (once, 4 to 8 minutes on 2 cores)", flush=True)
    go_build(MODULE, _PACKAGE, target / "prometheus", tags=_TAGS)
