"""JSON patches (RFC 6902): what has to be done to one document to get another."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

Operation = dict[str, Any]


def diff(old: Any, new: Any, path: str = "") -> tuple[Operation, ...]:
    """Operations `add`, `replace` and `remove` that turn `old` into `new`; nothing where they are equal.

    The order of keys in mappings makes no difference to them.
    """
    return tuple(_diff(old, new, path))


def apply(document: dict[str, Any], patch: Iterable[Operation]) -> dict[str, Any]:
    """A changed copy. Raises ValueError where an operation is none of `diff`'s or does not fit the document."""
    whole = {"": copy.deepcopy(document)}
    for operation in patch:
        try:
            _apply(whole, operation)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"patch: {operation!r:.200} does not fit") from error
    if not isinstance(whole.get(""), dict):
        raise ValueError("patch: nothing is left of the document")  # noqa: TRY004 - the patch's value is wrong
    return whole[""]


def _diff(old: Any, new: Any, path: str) -> Iterator[Operation]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() - new.keys()):
            yield {"op": "remove", "path": _join(path, key)}
        for key, value in sorted(new.items()):
            if key in old:
                yield from _diff(old[key], value, _join(path, key))
            else:
                yield {"op": "add", "path": _join(path, key), "value": value}
    elif isinstance(old, list) and isinstance(new, list):
        yield from _diff_lists(old, new, path)
    elif not _same(old, new):
        yield {"op": "replace", "path": path, "value": new}


def _diff_lists(old: list[Any], new: list[Any], path: str) -> Iterator[Operation]:
    """Entries that are equal at the end stay: what is put in front is one `add`, not a shift of everything."""
    kept = 0
    while kept < min(len(old), len(new)) and _same(old[-1 - kept], new[-1 - kept]):
        kept += 1
    before, after = old[: len(old) - kept], new[: len(new) - kept]
    common = min(len(before), len(after))
    for index in range(common):
        yield from _diff(before[index], after[index], _join(path, index))
    for index in reversed(range(common, len(before))):
        yield {"op": "remove", "path": _join(path, index)}
    for index in range(common, len(after)):
        yield {"op": "add", "path": _join(path, index), "value": after[index]}


def _same(one: Any, other: Any) -> bool:
    """Python takes `True` for 1, JSON does not."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _join(path: str, key: str | int) -> str:
    return f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"


def _apply(whole: dict[str, Any], operation: Operation) -> None:
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/"))
    place: Any = whole
    for key in parents:
        place = place[_index(place, key)]
    index = _index(place, last)
    match operation["op"]:
        case "add" if isinstance(place, list):
            if not 0 <= index <= len(place):
                raise IndexError(last)
            place.insert(index, copy.deepcopy(operation["value"]))
        case "add":
            place[index] = copy.deepcopy(operation["value"])
        case "replace":
            place[index]
            place[index] = copy.deepcopy(operation["value"])
        case "remove":
            del place[index]
        case _:
            raise KeyError("op")


def _index(place: Any, key: str) -> Any:
    if not isinstance(place, list):
        return key
    if not key.isdecimal():
        raise IndexError(key)
    return int(key)
