"""What rules of several parts of the spec ask: of lists, and of names that others define."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .problems import index_path, key_path, show

Found = Iterator[tuple[str, str]]

#: No header may hold one, and no line for people should.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def unique(path: str, field: str, values: Iterable[str]) -> Found:
    """No two entries of the list at `path` have the same value in `field`."""
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        first = seen.setdefault(value, index)
        if first != index:
            yield key_path(index_path(path, index), field), f"{show(value)} stands twice: entry {first} has it too"


def token(path: str, name: str) -> Found:
    """A name that HTTP takes for a header or a cookie."""
    if not _TOKEN.fullmatch(name):
        yield path, f"{show(name)} is no name of a header or cookie: write letters, digits and -"


def object_name(path: str, name: str, kind: str) -> Found:
    """The name of an object of Kubernetes; nothing is said of an empty one."""
    if name and not _SUBDOMAIN.fullmatch(name):
        yield path, f"{show(name)} is no name of a {kind}: write lower-case letters, digits, - and ."
