"""Reading parts of a pod template, which no type of ours describes: a mapping, where it stands, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.problems import Problem, index_path, key_path, show


class Part:
    """One mapping at `path`. Reading a field that is wrong adds a problem and gives the default; null means absent."""

    def __init__(self, values: Mapping[str, Any], path: str, problems: list[Problem]) -> None:
        self.values = values
        self.path = path
        self.problems = problems

    def at(self, field: str) -> str:
        return key_path(self.path, field)

    def refuse(self, field: str, message: str, *, local: bool = False) -> None:
        self.problems.append(Problem(self.at(field), message, local))

    def text(self, field: str, default: str = "") -> str:
        value = self.values.get(field)
        return default if value is None else self._word(self.at(field), value)

    def words(self, field: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(self._word(index_path(self.at(field), i), word) for i, word in enumerate(self._list(field)))

    def whole(self, field: str, default: int, *, least: int = 0) -> int:
        value = self.values.get(field)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.refuse(field, f"{show(value)} is no whole number from {least}")
            return default
        return value

    def part(self, field: str) -> Part:
        """The mapping in `field`; an empty one where there is none."""
        value = self.values.get(field)
        if value is not None and not isinstance(value, dict):
            self.refuse(field, f"{show(value)} is no mapping: give fields as `name: value`")
        return Part(value if isinstance(value, dict) else {}, self.at(field), self.problems)

    def parts(self, field: str) -> list[Part]:
        """The mappings in the list in `field`."""
        found = []
        for index, value in enumerate(self._list(field)):
            path = index_path(self.at(field), index)
            if isinstance(value, dict):
                found.append(Part(value, path, self.problems))
            else:
                self.problems.append(Problem(path, f"{show(value)} is no mapping: give fields as `name: value`"))
        return found

    def _list(self, field: str) -> list[Any]:
        value = self.values.get(field)
        if value is not None and not isinstance(value, list):
            self.refuse(field, f"{show(value)} is no list")
        return value if isinstance(value, list) else []

    def _word(self, path: str, value: Any) -> str:
        if not isinstance(value, str):
            self.problems.append(Problem(path, f"{show(value)} is no text: put it in quotes"))
            return ""
        if "\x00" in value:
            self.problems.append(Problem(path, "holds a NUL character, which no process can be given"))
            return ""
        return value
