"""Which cluster is wanted, and what a machine must have to run a node of our own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .cache import CACHE
from .config import CNI_PLUGINS
from .run import LabError, run

#: Program -> the Debian package that brings it; `make tools` installs them.
PACKAGES = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "runc": "runc",
}
#: For buildah, containerd and debootstrap, which leave them out of many users' paths.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def chosen(*known: str) -> tuple[str, Path]:
    """COALMINE_CLUSTER, one of `known`, and the file that COALMINE_KUBECONFIG names. Raises LabError."""
    kubeconfig = os.environ.get("COALMINE_KUBECONFIG", "")
    choice = os.environ.get("COALMINE_CLUSTER") or ("kubeconfig" if kubeconfig else "own")
    if choice not in known:
        raise LabError(f"COALMINE_CLUSTER={choice}: {', '.join(known[:-1])} or {known[-1]}")
    if choice == "kubeconfig" and not kubeconfig:
        raise LabError("COALMINE_CLUSTER=kubeconfig: set COALMINE_KUBECONFIG to the file")
    return choice, Path(kubeconfig)


def missing() -> str:
    """Why no node can run here, with the remedy; empty if one can."""
    if os.uname().sysname != "Linux":
        return "a node of our own needs Linux"
    if os.geteuid() != 0:
        return "a node of our own needs root (namespaces, mounts, control groups)"
    if shutil.which("go") is None:
        return "a node of our own is compiled with Go, which is not installed (see tests/cluster/node/go.mod)"
    packages = [package for program, package in PACKAGES.items() if shutil.which(program, path=PATH) is None]
    if not CNI_PLUGINS.is_dir():
        packages.append("containernetworking-plugins")
    if packages:
        return f"Debian packages are missing: {' '.join(sorted(packages))}; `make tools` installs them"
    CACHE.mkdir(parents=True, exist_ok=True)
    if run("stat", "--file-system", "--format=%T", CACHE).strip() == "overlayfs":
        return f"containers' layers cannot lie on overlayfs, as {CACHE} does: set XDG_CACHE_HOME to another disk"
    return ""
