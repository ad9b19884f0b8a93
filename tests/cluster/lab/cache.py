"""What is slow to make is made once, outside the tree, under a name that says what it was made of."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coalmine"
PROJECT = Path(__file__).resolve().parents[3]
#: One for the tree as it is, others for runs that began before it changed.
KEPT = 3
_DRAFT = ".draft-"


def fingerprint(files: Iterable[Path], *words: str) -> str:
    """Twelve hex digits that change when a file's path in the project, its contents or one of `words` does."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(PROJECT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for word in words:
        digest.update(f"{word}\0".encode())
    return digest.hexdigest()[:12]


def files_below(*folders: Path) -> list[Path]:
    """Every source file in `folders`: what Python and editors leave behind is none."""
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith("~")
    ]


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process of this machine at a time; the lock goes with the process that holds it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder of `kind` for `key`; `make` fills it where it is missing. Of a kind, the KEPT newest folders stay.

    Whoever comes while it is being made waits. A maker that fails or is killed leaves no half-made folder behind.
    """
    home = CACHE / kind
    with locked(kind):
        home.mkdir(parents=True, exist_ok=True)
        target = home / key
        if not target.exists():
            draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=home))
            try:
                make(draft)
                draft.rename(target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            made = sorted(home.iterdir(), key=lambda folder: (folder.name.startswith(_DRAFT), -folder.stat().st_mtime))
            for old in made[KEPT:]:
                shutil.rmtree(old, ignore_errors=True)
    return target
