"""Baselines in files beside the manifest: read when they change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from ...api.baseline import MAX_BYTES
from ...api.monitoring import BaselineRef
from ...engine.baselines import Read, Wanted, read_baseline, state_of
from ...engine.model import BaselineState
from .signature import Signature, signature


class _Looked(Struct):
    read: Read
    signature: Signature


class Baselines:
    """Of one model deployment. `folder`: the manifest's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[Path, str], _Looked] = {}
        #: As last looked at, by revision.
        self.states: Mapping[str, BaselineState] = {}

    def look(self, wanted: Mapping[str, Wanted]) -> None:
        """Read what is wanted and new. Never raises: what cannot be read is a problem in `states`."""
        marks = {name: (self._path(one.ref), one.ref.digest) for name, one in wanted.items()}
        self._known = {mark: looked for mark, looked in self._known.items() if mark in marks.values()}
        for mark in set(marks.values()):
            if self._is_due(mark):
                now = signature(mark[0])
                self._known[mark] = _Looked(self._read(mark[0]), now)
        self.states = {name: state_of(one, self._known[marks[name]].read) for name, one in wanted.items()}

    @property
    def touched(self) -> bool:
        """Whether a file became another one since it was read."""
        return any(map(self._is_due, self._known))

    def _is_due(self, mark: tuple[Path, str]) -> bool:
        path, digest = mark
        known = self._known.get(mark)
        if known is None:
            return True
        if digest and known.read.digest == digest and not known.read.problem:
            return False  # it is the one that is meant, whatever is written there now
        return signature(path) != known.signature

    def _path(self, ref: BaselineRef) -> Path:
        # There are no ConfigMaps on this machine: the file is looked for under the name that it has in one.
        return self._folder / (ref.file or ref.key)

    def _read(self, path: Path) -> Read:
        where = str(path.relative_to(self._folder)) if path.is_relative_to(self._folder) else str(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            message = f"{where}: is not there: write it with `coalmine baseline build`"
            return Read(where=where, problem="missing", message=message)
        except OSError as error:
            return Read(where=where, problem="unreadable", message=f"{where}: cannot be read: {error.strerror}")
        return read_baseline(data, where)
