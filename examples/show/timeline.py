"""The lines of the story: each one comes true with a fact, or fails with a sentence that says what did not happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

#: How often a condition is looked at, in seconds.
LOOK = 0.1


class NotTrueError(Exception):
    """A line that did not come true; the message says what did not happen."""


@dataclass
class Line:
    """`ok`: None until tried. `at`: seconds since the start at which it was decided."""

    text: str
    ok: bool | None = None
    at: float = 0.0
    detail: str = ""


class Timeline:
    def __init__(self, told: Callable[[Line], None] = lambda _: None) -> None:
        """`told` hears of every line that is decided."""
        self.lines: list[Line] = []
        self.started = time.monotonic()
        self._told = told

    def begin(self) -> None:
        """All is ready: count from here."""
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def all_true(self) -> bool:
        return bool(self.lines) and all(line.ok for line in self.lines)

    async def play(self, steps: Sequence[tuple[str, Callable[[], Awaitable[str]]]]) -> None:
        """Run the steps in turn; each returns its fact. After one that fails the rest is not tried."""
        lines = [Line(text) for text, _ in steps]
        self.lines += lines
        for line, (_, step) in zip(lines, steps, strict=True):
            try:
                self._decide(line, True, await step())
            except NotTrueError as error:
                self._decide(line, False, str(error))
                return

    def check(self, text: str, ok: bool, detail: str) -> None:
        """A line that is decided by what is known at the end."""
        line = Line(text)
        self.lines.append(line)
        self._decide(line, ok, detail)

    def _decide(self, line: Line, ok: bool, detail: str) -> None:
        line.ok, line.at, line.detail = ok, self.seconds, detail
        self._told(line)


async def until(condition: Callable[[], T | None], seconds: float, what: str, broken: Callable[[], str]) -> T:
    """Wait for `condition` to give something true, and return it.

    Raises NotTrueError with `what` did not happen when the time is over, or at once with what `broken` says.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        if why := broken():
            raise NotTrueError(f"{what}: {why}")
        if time.monotonic() > end:
            raise NotTrueError(f"{what}: did not happen within {seconds:g} s")
        await asyncio.sleep(LOOK)
    return found
