"""The node's executables, compiled from the Go module beside this package, and the image of the pod's first process."""

from __future__ import annotations

import re
import time
from pathlib import Path

from .archive import Layer, write_archive
from .cache import PROJECT, fingerprint, made_once
from .golang import SOURCE, go_build
from .run import LabError

MODULE = PROJECT / "tests" / "cluster" / "node"
PAUSE_IMAGE = "coalmine.test/pause:1"
#: One executable, called by each of these names. The others on the node (containerd, runc, ...) are Debian's.
PROGRAMS = (
    "coredns",
    "etcd",
    "helm",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)


def programs() -> Path:
    """The folder with an entry for each of PROGRAMS and `pause.tar`. Compiles where needed: minutes, once."""
    sources = [*MODULE.rglob("*.go"), MODULE / "go.mod", MODULE / "go.sum", Path(__file__), SOURCE]
    return made_once("node", fingerprint(sources), _compile)


def _compile(target: Path) -> None:
    began = time.monotonic()
    print("compiling the Kubernetes node (once, 6 to 15 minutes on 2 cores)", flush=True)
    symbols = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in _version().items())
    go_build(MODULE, ".", target / "node", symbols=symbols)
    for name in PROGRAMS:
        (target / name).symlink_to("node")
    go_build(MODULE, "./pause", target / "pause")
    write_archive(target / "pause.tar", PAUSE_IMAGE, Layer.of_file(target / "pause", "pause"), entrypoint=["/pause"])
    print(f"compiled in {time.monotonic() - began:.0f} s", flush=True)


def _version() -> dict[str, str]:
    """What the programs say of themselves: without it the API server calls itself 0.0.0 and charts refuse it."""
    found = re.search(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)", (MODULE / "go.mod").read_text())
    if found is None:
        raise LabError(f"{MODULE}/go.mod: no version of k8s.io/kubernetes")
    return {"gitVersion": found[1], "gitMajor": found[2], "gitMinor": found[3]}
