"""The manifest file: read, and watched while it is being edited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from ...api.decode import Document, Invalid, check_many, decode, read_manifests
from ...api.documents import MAX_BYTES
from ...api.spec import ModelDeployment
from ...render.container import local_container
from .signature import Signature, signature

POLL: Final = 0.25
#: Seconds after a content that could not be read or taken, for a disk to recover.
RETRY: Final = 5.0
#: The signature of no file: whatever stands there next is news.
_NONE_YET: Final = (0, 0, 0)


class Wanted(Struct, frozen=True):
    """A good manifest, decoded and as it stood in the file."""

    deployment: ModelDeployment
    document: dict[str, Any]


class Reading(Struct, frozen=True, kw_only=True):
    """What a file says, by `namespace/name`.

    `bad`: problems of a manifest by the key it gives itself, which may be wrong too; empty where it gives none.
    `broken`: problems of the file as a whole, so nothing is to be changed.
    """

    good: dict[str, Wanted] = {}
    bad: dict[str, tuple[str, ...]] = {}
    broken: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        return (*self.broken, *(line for lines in self.bad.values() for line in lines))


def key_of(deployment: ModelDeployment) -> str:
    return f"{deployment.metadata.namespace}/{deployment.metadata.name}"


def read(path: Path) -> Reading:
    """Raises OSError where the file cannot be read; all else that is wrong with it is in the answer."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return Reading(broken=(f"{path.name}: byte {error.start} is no UTF-8: save the file as UTF-8",))
    documents, problems = read_manifests(text, source=path.name)
    if problems:
        return Reading(broken=tuple(map(str, problems)))
    wanted: list[Wanted] = []
    bad: dict[str, tuple[str, ...]] = {}
    for document in documents:
        try:
            wanted.append(Wanted(_runnable(decode(document.raw)), document.raw))
        except Invalid as error:
            # With several documents in a file a path alone does not say where.
            place = f"{path.name}:{document.line}" if len(documents) > 1 else path.name
            key = _key_in(document)
            bad[key] = (*bad.get(key, ()), *(f"{place}: {problem}" for problem in error.problems))
    broken = tuple(f"{path.name}: {problem}" for problem in check_many(w.deployment for w in wanted))
    good = {key_of(w.deployment): w for w in wanted}
    return Reading(good={k: w for k, w in good.items() if k not in bad}, bad=bad, broken=broken)


def _runnable(deployment: ModelDeployment) -> ModelDeployment:
    """Raises Invalid where a template cannot run as a process."""
    spec = deployment.spec
    local_container(spec.template, model=spec.model)
    if spec.fallback and spec.fallback.template is not None:
        local_container(spec.fallback.template, model=spec.model, path="spec.fallback.template")
    return deployment


def _key_in(document: Document) -> str:
    """Which deployment a bad manifest says it is about, or empty."""
    metadata = document.raw.get("metadata") if isinstance(document.raw, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return ""
    return f"{metadata.get('namespace', 'default')}/{metadata['name']}"


async def watch(path: Path, seen: Signature, changed: Callable[[Reading], bool]) -> None:
    """Call `changed` with each content newer than `seen`, once the file has stood still for a moment; never returns.

    `changed` answers whether it took the content; what it did not take comes again. A file that is gone or cannot be
    read is broken and no more: editors replace files by renaming, and whoever deletes a manifest by accident does not
    want the models to stop.
    """
    last = seen
    while True:
        await asyncio.sleep(POLL)
        now = signature(path)
        still, last = now == last, now
        if now == seen or not still:  # not still: somebody may be writing
            continue
        try:
            reading, seen = read(path), now
        except FileNotFoundError:
            reading, seen = Reading(broken=(f"{path.name}: is gone: what runs goes on",)), None
        except OSError as error:
            reading, seen = Reading(broken=(f"{path.name}: {error.strerror}: what runs goes on",)), _NONE_YET
        if not changed(reading):
            seen = _NONE_YET
        if seen == _NONE_YET:
            await asyncio.sleep(RETRY)
