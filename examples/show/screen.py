"""The demo on a terminal: a live view where there is one, plain lines otherwise, and the summary at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from coalmine_operator.cli.views import deployment_panel
from coalmine_operator.cli.words import clock, evidence
from coalmine_operator.web.view import DeploymentView

from .scoreboard import Scoreboard
from .stage import Clients
from .timeline import Line, Timeline
from .watch import Watch

MARKS = {True: ("✓", "bold green"), False: ("✗", "bold red"), None: ("·", "dim")}
#: Seconds of traffic that "now" means.
NOW = 2.0


class Screen:
    """Use as a context manager. With a terminal the view is drawn anew at each `refresh`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._started = time.monotonic()

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        line = Text(f"{time.monotonic() - self._started:6.1f} s  {text}", style=style)
        self.console.print(line, soft_wrap=True)

    def command(self, command: str) -> None:
        """One that is run now."""
        self.console.print(Text(f"$ {command}", style="cyan"), soft_wrap=True)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Something that takes a while, before the story begins."""
        began = time.monotonic()
        if self._live:
            with self.console.status(f"{what} ..."):
                yield
        else:
            self.say(f"{what} ...")
            yield
        self.say(f"{what}: {time.monotonic() - began:.1f} s")

    def decided(self, line: Line) -> None:
        if not self._live:
            mark, style = MARKS[line.ok]
            self.say(f"{mark} {line.text}: {line.detail}", style)

    def changed(self, view: DeploymentView) -> None:
        """A phase or weights changed."""
        if not self._live:
            self.say(_short(view))

    def refresh(self, timeline: Timeline, watch: Watch, load: Clients) -> None:
        if self._live and not timeline.lines:
            self._live.update(Spinner("dots", f"the stage is set: {timeline.seconds:.0f} s"), refresh=True)
        elif self._live:
            parts: list[RenderableType] = [_timeline(timeline.lines, short=True)]
            if watch.view:
                parts.append(deployment_panel(watch.view))
            parts.append(_traffic(load))
            self._live.update(Group(*parts), refresh=True)

    def summary(self, timeline: Timeline, board: Scoreboard) -> None:
        console = self.console
        console.print()
        console.print(_timeline(timeline.lines, short=False))
        console.print()
        console.print(_versions(board))
        for rollback in board.rollbacks:
            console.print()
            seconds = f"{rollback.seconds_to_last_request:.2f} s"
            what = (
                f"{rollback.version} -> {rollback.to}, {rollback.message}; the last of its {rollback.answered} requests"
            )
            console.print(Text(f"{what} came {seconds} after the {rollback.decided_by}", style="bold"), soft_wrap=True)
            for text in _spelled(rollback.evidence):
                console.print(Text(f"  {text}"), soft_wrap=True)
        console.print()
        for error, times in board.errors.items():
            console.print(Text(f"client error, {times} times: {error}", style="red"), soft_wrap=True)
        for first in board.first_errors[:1]:
            console.print(Text(f"the first was sent at {clock(first.sent)}", style="red"), soft_wrap=True)
        good = not board.client_errors
        held = f"   held back: {board.held_back}" if board.held_back else ""
        text = (
            f"requests sent: {board.sent}   client errors: {board.client_errors}{held}   took {timeline.seconds:.0f} s"
        )
        console.print(Text(text, style="bold green" if good else "bold red"))


def _short(view: DeploymentView) -> str:
    """`Progressing 2/6: v1 stable 70 %, v2 canary 30 %; errors Pass, labels Pass`: weights as they are in force."""
    status = view.status
    weights = (
        ", ".join(f"{r.version} {r.track or 'retired'} {r.in_force} %" for r in view.revisions if r.in_force)
        or "no traffic"
    )
    verdicts = ", ".join(f"{v.metric} {v.verdict}" for v in status.verdicts) if status.canary else ""
    return f"  {status.phase} {status.step}".rstrip() + f": {weights}" + (f"; {verdicts}" if verdicts else "")


def _timeline(lines: list[Line], *, short: bool) -> Table:
    table = Table.grid(padding=(0, 1))
    for line in lines:
        mark, style = MARKS[line.ok]
        at = f"{line.at:5.1f} s" if line.ok is not None else ""
        detail = line.detail if short or line.ok is not None else "not tried"
        table.add_row(Text(mark, style=style), Text(at, style="dim"), Text(line.text), Text(detail, style="dim"))
    return table


def _traffic(load: Clients) -> RenderableType:
    since = time.time() - NOW
    recent = []
    for record in reversed(load.records):
        if record.sent < since - 1:
            break
        if record.done > since:
            recent.append(record)
    rates = Counter(r.version for r in recent if not r.error)
    shown = "   ".join(f"{version} {count / NOW:.0f}/s" for version, count in sorted(rates.items()))
    errors = len(load.errors)
    return Text.assemble(
        ("clients  ", "bold"),
        f"{shown or 'none yet'}   sent {len(load.records)}   ",
        (f"errors {errors}", "bold red" if errors else "green"),
    )


def _versions(board: Scoreboard) -> Table:
    table = Table(box=None, pad_edge=False, title="answered by", title_justify="left")
    for column in ("version", "answers", "p50 ms", "p99 ms", "labels", "accuracy"):
        table.add_column(column, justify="left" if column == "version" else "right")
    for v in board.versions:
        accuracy = "" if v.accuracy is None else f"{v.accuracy:.3f}"
        table.add_row(v.version, str(v.answered), f"{v.p50_ms:.1f}", f"{v.p99_ms:.1f}", str(v.labels), accuracy)
    return table


def _spelled(found: dict[str, Any]) -> list[str]:
    """Evidence as lines: one for each metric, or one for an alert."""
    if any(isinstance(value, dict) and "logE" in value for value in found.values()):
        return [f"{metric}: {evidence(value)}" for metric, value in found.items()]
    return [evidence(found)]
