"""The node's container runtime, spoken to through containerd's own client. Its socket is reached from outside too."""

from __future__ import annotations

from pathlib import Path

from .layout import Layout
from .run import run

#: Where kubelet looks for its images and containers.
NAMESPACE = "k8s.io"


def import_image(layout: Layout, archive: Path) -> None:
    """Make the image in `archive` (OCI, or of `docker save`) known to the node."""
    _ctr(layout, "images", "import", archive)


def image_names(layout: Layout) -> list[str]:
    return _ctr(layout, "images", "list", "--quiet").split()


def _ctr(layout: Layout, *words: str | Path) -> str:
    return run("ctr", "--address", layout.socket, "--namespace", NAMESPACE, *words)
