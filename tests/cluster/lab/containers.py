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


def name_again(layout: Layout, image: str, name: str) -> None:
    """Give an image of the node, known as `image` (`name:tag`), another name."""
    _ctr(layout, "images", "tag", "--force", _whole(image), _whole(name))


def image_names(layout: Layout) -> list[str]:
    return _ctr(layout, "images", "list", "--quiet").split()


def _whole(name: str) -> str:
    """As containerd writes names without a registry; those with one are whole."""
    return name if "/" in name else f"docker.io/library/{name}"


def _ctr(layout: Layout, *words: str | Path) -> str:
    return run("ctr", "--address", layout.socket, "--namespace", NAMESPACE, *words)
