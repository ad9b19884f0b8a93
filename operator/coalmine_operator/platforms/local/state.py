"""The state directory: what a restart needs, as small JSON files.

    version                     the layout's number
    lock                        held by the `coalmine run` that owns the directory
    <deployment>/manifest.json  the last good manifest, its generation, the deployment's place in the order of ports
    <deployment>/status.json    what the engine remembers
    <deployment>/routing.json   what the sidecars read
    <deployment>/revisions/     one file a revision
    <deployment>/pods/<pod>/    pod.json, model.pid, model.log, sidecar.log

Every file is replaced as a whole, so that a reader (or a crash) sees the old one or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from ...api.codec import from_json, to_json
from ...api.problems import Invalid
from ...api.status import Status
from ...engine.model import RevisionRecord
from .refused import Refused

VERSION: Final = "1"

T = TypeVar("T")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably. The file is its owner's alone: manifests hold secrets.

    Raises OSError that names `path`: the system names no file where a disk is full.
    """
    try:
        _write_atomically(path, data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    # The rename itself has to survive too.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_json(path: Path, value: object) -> None:
    write_atomically(path, msgspec.json.format(to_json(value), indent=1))


def read_json(path: Path, kind: type[T]) -> T | None:
    """What `path` holds, or None where there is no such file. Raises Refused where it cannot be read."""
    try:
        return from_json(path.read_bytes(), kind)
    except FileNotFoundError:
        return None
    except (OSError, Invalid) as error:
        raise Refused(
            f"{path}: cannot be read ({error}): restore it, or start with another --state directory"
        ) from error


class LastGood(Struct, frozen=True, kw_only=True, rename="camel"):
    """The last good manifest of a deployment as it stood in the file, and what was decided at its first sight.

    `slot`: 0, 1, 2 …: the ingress port is the base port + 10 x slot. `gone`: it was taken out of the file.
    """

    document: dict[str, Any]
    generation: int
    slot: int
    gone: bool = False


class ProcessRecord(Struct, frozen=True, kw_only=True, rename="camel"):
    """A process, known again after a restart: pids are used anew, a pid with its start time is not."""

    pid: int
    created_at: float


class PodRecord(Struct, frozen=True, kw_only=True, rename="camel"):
    """A model process and its sidecar. Ports are on the loopback address.

    `ingress`: the address the sidecar accepts on; `grace`: seconds the model has between SIGTERM and SIGKILL.
    """

    name: str
    revision: str
    created_at: float
    port: int = 0
    model: ProcessRecord | None = None
    sidecar: ProcessRecord | None = None
    ingress: str = ""
    local_port: int = 0
    admin_port: int = 0
    restarts: int = 0
    grace: float = 30.0
    ending: bool = False


class DeploymentFiles:
    """The sub-directory of one model deployment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.routing = path / "routing.json"
        self._manifest = path / "manifest.json"
        self._status = path / "status.json"
        self._revisions = path / "revisions"
        self._pods = path / "pods"
        for directory in (path, self._revisions, self._pods):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read_manifest(self) -> LastGood | None:
        return read_json(self._manifest, LastGood)

    def write_manifest(self, manifest: LastGood) -> None:
        write_json(self._manifest, manifest)

    def read_status(self) -> Status:
        return read_json(self._status, Status) or Status()

    def write_status(self, status: Status) -> None:
        write_json(self._status, status)

    def revisions(self) -> dict[str, RevisionRecord]:
        found = (read_json(path, RevisionRecord) for path in sorted(self._revisions.glob("*.json")))
        return {record.name: record for record in found if record}

    def write_revision(self, record: RevisionRecord) -> None:
        write_json(self._revisions / f"{record.name}.json", record)

    def remove_revision(self, name: str) -> None:
        (self._revisions / f"{name}.json").unlink(missing_ok=True)

    def pods(self) -> list[PodRecord]:
        found = (read_json(path, PodRecord) for path in sorted(self._pods.glob("*/pod.json")))
        return [record for record in found if record]

    def pod_directory(self, name: str) -> Path:
        directory = self._pods / name
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    def write_pod(self, record: PodRecord) -> None:
        write_json(self.pod_directory(record.name) / "pod.json", record)

    def remove_pod(self, name: str, *, kept_logs: int) -> None:
        """Forget a pod that ended. The logs of the last `kept_logs` stay: somebody will ask why it ended."""
        (self._pods / name / "pod.json").unlink(missing_ok=True)
        ended = [d for d in self._pods.iterdir() if d.is_dir() and not (d / "pod.json").exists()]
        ended.sort(key=lambda d: d.stat().st_mtime, reverse=True)
        for directory in ended[kept_logs:]:
            shutil.rmtree(directory, ignore_errors=True)


class StateDirectory:
    """The whole directory, locked. Raises Refused on what is not ours, of another version, or in use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._check_version()
        self._made = [directory for directory in (path, *path.parents) if not directory.exists()]
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}: give another --state directory") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip() or "?"
            os.close(self._lock)
            raise Refused(
                f"{path}: in use by another `coalmine run` (pid {holder}): stop it or give another --state directory"
            ) from None
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
            write_atomically(path / "version", VERSION.encode() + b"\n")
        except OSError as error:
            self.discard()
            raise Refused(f"{path}: {error.strerror}: give another --state directory") from error

    def _check_version(self) -> None:
        try:
            version = (self.path / "version").read_text(errors="replace").strip()
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                strangers = sorted(entry.name for entry in self.path.iterdir() if entry.name != "lock")
                if strangers:
                    raise Refused(
                        f"{self.path}: holds {strangers[0]} and is no state directory: give an empty --state directory"
                    ) from None
            return
        except OSError as error:
            raise Refused(f"{self.path}: {error.strerror}: give another --state directory") from error
        if version != VERSION:
            raise Refused(
                f"{self.path}: was written by another version of Coalmine (layout {version[:20]!r}, this one reads "
                f"{VERSION!r}): use that version or give another --state directory"
            )

    def names(self) -> list[str]:
        """The sub-directories of the deployments ever seen."""
        return sorted(p.parent.name for p in self.path.glob("*/manifest.json"))

    def deployment(self, name: str) -> DeploymentFiles:
        return DeploymentFiles(self.path / name)

    def discard(self) -> None:
        """Close it, and leave nothing behind where it was not there before."""
        if self._made:
            shutil.rmtree(self.path, ignore_errors=True)
        for directory in self._made[1:]:
            with contextlib.suppress(OSError):  # somebody else may use it by now
                directory.rmdir()
        self.close()

    def close(self) -> None:
        """Let go of the lock; idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
