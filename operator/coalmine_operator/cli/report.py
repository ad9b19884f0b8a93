"""How `coalmine run` tells what happens: a live view on a terminal, lines with times anywhere else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import click
from rich.console import Console
from rich.live import Live

from ..web.view import DeploymentView
from .views import live
from .words import clean, clock, when

#: Lines of events below the panels, and seconds between two drawings.
EVENTS: Final = 10
REDRAW: Final = 0.25
_LINE: Final = 1000

Views = Callable[[], Sequence[DeploymentView]]


class Reporter(Protocol):
    """Where lines go, and what is drawn meanwhile."""

    def say(self, line: str) -> None:
        """Tell one thing that happened just now."""

    async def follow(self, views: Views) -> None:
        """Draw until cancelled."""

    def close(self) -> None:
        """Give the terminal back; idempotent."""


class PlainReporter:
    """One line for each event; for logs and pipes."""

    def say(self, line: str) -> None:
        click.echo(f"{when(time.time())} {clean(line, _LINE)}")

    async def follow(self, views: Views) -> None:
        await asyncio.Event().wait()

    def close(self) -> None:
        pass


class LiveReporter:
    """Panels that are drawn anew, and the newest events below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._events: deque[str] = deque(maxlen=EVENTS)
        # No thread of Rich's own: the views are the event loop's.
        self._live = Live(console=console, auto_refresh=False)

    def say(self, line: str) -> None:
        text = f"{clock(time.time())} {clean(line, _LINE)}"
        if self._live.is_started:
            self._events.append(text)
        else:
            self._console.print(text, markup=False, highlight=False)

    async def follow(self, views: Views) -> None:
        self._live.start()
        try:
            while True:
                self._live.update(live(views(), self._events), refresh=True)
                await asyncio.sleep(REDRAW)
        finally:
            self.close()

    def close(self) -> None:
        self._live.stop()


class LogLines(logging.Handler):
    """Log records as lines of a reporter; without a traceback unless it is asked for."""

    def __init__(self, reporter: Reporter, *, debug: bool) -> None:
        super().__init__()
        self._reporter = reporter
        self._debug = debug

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            line += f": {type(error).__name__}: {error}"
        self._reporter.say(f"{record.levelname.lower()}: {line}" if record.levelno > logging.INFO else line)
        if self._debug and record.exc_info:
            for traced in logging.Formatter().formatException(record.exc_info).splitlines():
                self._reporter.say(traced)


def reporter_for_terminal() -> Reporter:
    console = Console()
    return LiveReporter(console) if console.is_terminal else PlainReporter()
