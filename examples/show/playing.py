"""The demo, whatever its stage: plays the story, scores it, ends everything, and says so in the exit status."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from rich.console import Console

from .pager import Pager
from .scoreboard import Scoreboard, score
from .screen import Screen
from .stage import Clients, Stage
from .story import Story
from .timeline import NotTrueError, Timeline
from .watch import Watch

#: Where each run has a folder of its own.
BASE = Path(__file__).resolve().parent.parent.parent / "build" / "demo"
#: Seconds between two pictures.
REFRESH = 0.25
#: As a shell tells of Ctrl-C.
INTERRUPTED = 130


class Demo:
    def __init__(self, stage: Stage, load: Clients, screen: Screen) -> None:
        self.stage = stage
        self.load = load
        self.screen = screen
        self.timeline = Timeline(screen.decided)
        self.watch = Watch(stage, screen.changed)
        self.pager = Pager(stage)
        self.board: Scoreboard | None = None

    async def run(self) -> None:
        """Play the story and score it. Whatever happens, end everything that was started. Raises NotTrueError."""
        story = Story(self.stage, self.load, self.watch, self.pager)
        drawing = asyncio.create_task(self._draw())
        try:
            await self.stage.start()
            self.timeline.begin()
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(work) for work in (self.watch.run(), self.pager.run())]
                # From the first moment at which there is somebody to answer, every error counts.
                story.on_served = lambda: group.create_task(self.load.run())
                await self.timeline.play(story.steps())
                self.load.stop()
                for task in background:
                    task.cancel()
        finally:
            self.load.stop()
            left = await self.stage.stop()
            drawing.cancel()
        self.board = board = score(story)
        detail = f"{board.sent} requests, {board.client_errors} errors"
        self.timeline.check("no client saw an error", board.sent > 0 and not board.client_errors, detail)
        v1, v2, v3 = (board.accuracy(version) for version in ("v1", "v2", "v3"))
        detail = f"accuracy {v2:.3f} of v2, {v1:.3f} of v1, {v3:.3f} of v3"
        self.timeline.check("the labels, when they come, agree", v2 > v1 > v3, detail)
        self.timeline.check("nothing is left running", not left, ", ".join(left) or "all processes ended")

    async def _draw(self) -> None:
        while True:
            self.screen.refresh(self.timeline, self.watch, self.load)
            await asyncio.sleep(REFRESH)

    def facts(self) -> dict[str, object]:
        return {
            "ok": self.timeline.all_true,
            "seconds": round(self.timeline.seconds, 1),
            "timeline": [
                {"line": line.text, "ok": line.ok, "at": round(line.at, 2), "detail": line.detail}
                for line in self.timeline.lines
            ],
            "score": msgspec.to_builtins(self.board),
        }


def options(description: str) -> argparse.ArgumentParser:
    """What every demo takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the facts here, too")
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view, as without a terminal")
    parser.add_argument("--keep", action="store_true", help="keep state and logs also when all went well")
    return parser


def console(*, plain: bool) -> Console:
    """A live one only on a terminal."""
    found = Console(highlight=False, force_terminal=False if plain else None)
    return found if found.is_terminal else Console(highlight=False, width=200, force_terminal=False)


def in_folder(run: Callable[[Path], int], *, keep: bool) -> int:
    """The exit status of `run`, which gets a folder for state and logs. It is removed after a good end."""
    BASE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=BASE))
    status = 1
    try:
        status = run(folder)
    except KeyboardInterrupt:
        status = INTERRUPTED
    finally:
        if (status in (0, INTERRUPTED) and not keep) or not any(folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs and state are in {os.path.relpath(folder)}")
    with contextlib.suppress(OSError):
        BASE.rmdir()
    return status


def play(stage: Stage, load: Clients, screen: Screen, json: Path | None) -> int:
    """The exit status: 0 only if every line came true and no client saw an error. `json`: where facts go, too."""
    demo = Demo(stage, load, screen)
    with screen:
        status = asyncio.run(_perform(demo))
    if demo.board is not None:
        screen.summary(demo.timeline, demo.board)
        if json:
            json.write_bytes(msgspec.json.format(msgspec.json.encode(demo.facts()), indent=1) + b"\n")
    return status


async def _perform(demo: Demo) -> int:
    task = asyncio.create_task(demo.run())

    def stop() -> None:
        # Once: a second Ctrl-C must not cut the ending short.
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        demo.screen.say("stopped; everything was ended")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whoever watches a demo is spared a traceback
        demo.screen.say(f"✗ {_told(error)}; everything was ended", "bold red")
        return 1
    return 0 if demo.timeline.all_true else 1


def _told(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, NotTrueError):
        return str(error)
    return f"the demo itself broke: {type(error).__name__}: {error}"
