"""Image archives in the format of `docker save`: written with one layer, read with any number."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .run import LabError

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layer:
    """An uncompressed tar file and its SHA-256."""

    data: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @classmethod
    def of_file(cls, source: Path, name: str) -> Layer:
        """A layer with `source` at `/name`."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add(source, name)
        return cls(buffer.getvalue())


def write_archive(path: Path, image: str, layer: Layer, *, entrypoint: Sequence[str] = ()) -> None:
    """An archive at `path` that holds `image` (`name:tag`)."""
    machine = platform.machine()
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint)},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    layer_name = f"{layer.digest}/layer.tar"
    index = json.dumps([{"Config": config_name, "RepoTags": [image], "Layers": [layer_name]}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in ((config_name, config), (layer_name, layer.data), ("manifest.json", index)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def read_config(path: Path) -> dict[str, Any]:
    """How the archive's image wants to be run: `User`, `Entrypoint`, `Env`, ..."""
    with tarfile.open(path) as tar:
        config: dict[str, Any] = json.load(_member(tar, _manifest(tar)["Config"]))["config"]
    return config


def read_names(path: Path) -> set[str]:
    """Paths of what is in the layers of the archive's image, without a leading slash."""
    names: set[str] = set()
    with tarfile.open(path) as tar:
        for layer in _manifest(tar)["Layers"]:
            with tarfile.open(fileobj=_member(tar, layer)) as inner:
                names |= {name.removeprefix("./") for name in inner.getnames()}
    return names


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    manifest: list[dict[str, Any]] = json.load(_member(tar, "manifest.json"))
    return manifest[0]


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise LabError(f"{name} is no file in the archive")
    return file
