"""`make demo`: a real model served, replaced, and guarded on this machine, in about a minute and a half.

Starts `coalmine run` on a copy of breast-cancer.yaml, sends it held-out rows, edits the version in the manifest, and
checks what comes of it. Exit status 0 only if every line of the story came true; nothing is left running.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

# Run as a script, Python looks for modules beside it, not in the project's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec
from examples import train
from examples.load import Load
from examples.show.coalmine import Coalmine, free_port
from examples.show.pager import Pager
from examples.show.scoreboard import Scoreboard, score
from examples.show.screen import Screen
from examples.show.story import Story
from examples.show.timeline import Timeline
from examples.show.watch import Watch
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
#: Seconds between two pictures.
REFRESH = 0.25


class Demo:
    def __init__(self, coalmine: Coalmine, load: Load, screen: Screen) -> None:
        self.coalmine = coalmine
        self.load = load
        self.screen = screen
        self.timeline = Timeline(screen.decided)
        self.watch = Watch(coalmine, screen.changed)
        self.pager = Pager(coalmine)
        self.board: Scoreboard | None = None

    async def run(self) -> None:
        """Play the story and score it. Whatever happens, end everything that was started."""
        story = Story(self.coalmine, self.load, self.watch, self.pager)
        try:
            self.coalmine.edit("v1")
            await self.coalmine.start()
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(work) for work in (self.watch.run(), self.pager.run(), self._draw())]
                # From the first moment at which there is somebody to answer, every error counts.
                story.on_served = lambda: group.create_task(self.load.run())
                await self.timeline.play(story.steps())
                self.load.stop()
                for task in background:
                    task.cancel()
        finally:
            self.load.stop()
            left = await self.coalmine.stop()
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


async def _main(arguments: argparse.Namespace, folder: Path) -> int:
    console = Console(highlight=False, force_terminal=False if arguments.plain else None)
    if not console.is_terminal:
        console = Console(highlight=False, width=200, force_terminal=False)
    coalmine = Coalmine(folder, arguments.port or free_port())
    rows, labels = train.held_out()
    load = Load(coalmine.infer, rows, labels, rate=arguments.rate, timeout=10.0)
    with Screen(console) as screen:
        screen.say(f"everything is in {folder}, requests go to port {coalmine.port}")
        demo = Demo(coalmine, load, screen)
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
            screen.say("stopped; everything was ended")
            return 130
        except Exception as error:  # noqa: BLE001 - whoever watches a demo is spared a traceback
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            screen.say(f"✗ the demo itself broke, everything was ended: {type(error).__name__}: {error}", "bold red")
            return 1
    assert demo.board is not None
    screen.summary(demo.timeline, demo.board)
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(demo.facts()), indent=1) + b"\n")
    return 0 if demo.timeline.all_true else 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve, canary and roll back a real model on this machine.")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="where requests go (default: a free port)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the facts here, too")
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view, as without a terminal")
    parser.add_argument("--keep", action="store_true", help="keep state and logs also when all went well")
    arguments = parser.parse_args()
    base = ROOT / "build" / "demo"
    base.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=base))
    status = 1
    try:
        status = asyncio.run(_main(arguments, folder))
    except KeyboardInterrupt:
        status = 130
    finally:
        if status in (0, 130) and not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs and state are in {os.path.relpath(folder)}")
    with contextlib.suppress(OSError):
        base.rmdir()
    raise SystemExit(status)


if __name__ == "__main__":
    main()
