"""The project's images, built from its Dockerfiles on a base made from Debian packages: no image registry is needed."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .cache import CACHE, PROJECT, files_below, fingerprint, locked, made_once
from .run import LabError, run

BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
#: What images are built with has more: a C compiler, for the sidecar's hot path.
BUILD_PACKAGES = (*BASE_PACKAGES, "gcc", "libc6-dev", "python3-dev")
#: Ballast in an image: what only people and package managers read.
_UNREAD = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt", "var/lib/apt/lists")
#: The machine's certificate authorities: pip, inside the build, trusts whom the machine trusts.
_CERTIFICATES = "/etc/ssl/certs"
_STORE = CACHE / "buildah"
#: More images and layers than this in the store are too many: all go, and what is needed is built again.
_STORED = 200
_NICE = ("nice", "-n", "10")


@dataclass(frozen=True)
class Image:
    """One image of the project: the Dockerfile's `target`, made from `sources`, known to clusters as `name`."""

    name: str
    dockerfile: Path
    target: str
    sources: tuple[Path, ...]


_PYPROJECT, _SIDECAR, _OPERATOR = PROJECT / "pyproject.toml", PROJECT / "sidecar", PROJECT / "operator"
SIDECAR = Image("coalmine-sidecar:dev", PROJECT / "Dockerfile", "sidecar", (_PYPROJECT, _SIDECAR))
OPERATOR = Image("coalmine-operator:dev", PROJECT / "Dockerfile", "operator", (_PYPROJECT, _SIDECAR, _OPERATOR))
_EXAMPLES = PROJECT / "examples"
#: What examples/Dockerfile copies: the demo itself may change without another image.
_SERVING = tuple(
    _EXAMPLES / f"{name}.py" for name in ("clients", "fitted", "load", "model_server", "protocol", "train")
)
MODEL = Image("coalmine-demo-model:dev", _EXAMPLES / "Dockerfile", "model", _SERVING)


def archive(image: Image) -> Path:
    """The image as an archive of `docker save`; built where its sources have changed.

    Raises LabError with the end of the build's output.
    """
    folders = [path for path in image.sources if path.is_dir()]
    files = [path for path in image.sources if path.is_file()]
    inputs = [*files, *files_below(*folders), image.dockerfile, PROJECT / ".dockerignore"]
    key = fingerprint(inputs, _base_key(BUILD_PACKAGES))
    return made_once(f"image-{image.target}", key, lambda folder: _build(image, folder)) / "image.tar"


def _base_image(packages: tuple[str, ...]) -> str:
    """The name, in the store, of a Debian with these packages; installed where it is missing."""
    key = _base_key(packages)
    tree = made_once("base", key, lambda folder: _bootstrap(folder / "tree", packages)) / "tree"
    name = f"localhost/coalmine-base:{key}"
    if not _buildah("images", "--quiet", "--filter", f"reference={name}"):
        container = _buildah("from", "scratch")
        try:
            _buildah("add", "--quiet", container, str(tree), "/")
            _buildah("config", "--cmd", "[]", "--env", "LANG=C.UTF-8", container)
            _buildah("commit", "--quiet", container, name)
        finally:
            _buildah("rm", container)
    return name


def _base_key(packages: tuple[str, ...]) -> str:
    return fingerprint([], _release(), *packages, *_UNREAD)


def _release() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise LabError("/etc/os-release names no release (VERSION_CODENAME): is this a Debian?")


def _mirror() -> str:
    """Where this machine gets its packages from."""
    places = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    if not places:
        raise LabError("apt knows no package lists: run `apt-get update`")
    return places[0]


def _bootstrap(tree: Path, packages: tuple[str, ...]) -> None:
    release = _release()
    print(f"making an image of Debian {release} with {', '.join(packages)} (once, about a minute)", flush=True)
    more = f"--include={','.join(packages)}"
    run(*_NICE, "debootstrap", "--variant=minbase", more, release, tree, _mirror(), timeout=1200)
    for folder in _UNREAD:
        shutil.rmtree(tree / folder, ignore_errors=True)


def _build(image: Image, folder: Path) -> None:
    print(f"building {image.name}", flush=True)
    local = f"localhost/{image.name}"
    with locked("buildah"):
        if len(_buildah("images", "--all", "--quiet").split()) > _STORED:
            _buildah("rmi", "--all", "--force")
        base, builder = _base_image(BASE_PACKAGES), _base_image(BUILD_PACKAGES)
        _buildah(
            *("bud", "--isolation", "chroot", "--layers", "--quiet", "--pull-never"),
            *("--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"BUILD_IMAGE={builder}"),
            *("--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro"),
            *("--file", str(image.dockerfile), "--target", image.target, "--tag", local, str(PROJECT)),
        )
        _buildah("push", "--quiet", local, f"docker-archive:{folder}/image.tar:{image.name}")


def _buildah(*words: str) -> str:
    """Run buildah on a store of our own, so that no other user of buildah on this machine notices."""
    store = ("--root", _STORE / "store", "--runroot", _STORE / "run", "--storage-driver", "overlay")
    environment = {**os.environ, "TMPDIR": str(CACHE)}
    return run(*_NICE, "buildah", *store, *words, environment=environment, timeout=1800).strip()
