"""Commands of a shell, run exactly as they are shown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from .timeline import NotTrueError

ROOT = Path(__file__).resolve().parent.parent.parent
#: Seconds to end a command that is not wanted any more.
END = 10.0
#: What is shown of the last words of a command that failed, in characters.
LAST_WORDS = 600
#: A command must not outlive us, however we end.
_WITH_US = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


class Shell:
    """Runs command lines in the project's folder. `show` hears of each one before it runs."""

    def __init__(self, environment: Mapping[str, str], log: Path, show: Callable[[str], None]) -> None:
        self._environment = environment
        self._log = log
        self._show = show
        self._kept: dict[str, asyncio.subprocess.Process] = {}

    async def run(self, command: str, timeout: float = 60.0) -> str:
        """What it wrote to standard output. Raises NotTrueError with its last words if it fails or takes too long."""
        self._show(command)
        process = await self._start(command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout)
        except TimeoutError as error:
            raise NotTrueError(f"{command}: no end after {timeout:g} s") from error
        finally:
            await _end(process)
        if process.returncode:
            said = (err or out).decode(errors="replace").strip()[-LAST_WORDS:]
            raise NotTrueError(f"{command}: exit status {process.returncode}: {' '.join(said.split())}")
        return out.decode(errors="replace")

    async def keep(self, command: str) -> asyncio.subprocess.Process:
        """Start a command that runs until `stop`; the caller reads its standard output."""
        self._show(f"{command} &")
        with self._log.open("ab") as log:
            process = await self._start(command, stdin=asyncio.subprocess.PIPE, stderr=log)
        self._kept[command] = process
        return process

    def broken(self) -> str:
        """Which of the commands that should run has ended, or nothing."""
        ended = [command for command, process in self._kept.items() if process.returncode is not None]
        return next((f"{command}: {self.last_words()}" for command in ended), "")

    def last_words(self) -> str:
        """Of the commands that were kept."""
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return lines[-1][-LAST_WORDS:] if lines else "nothing was said"

    async def stop(self) -> None:
        """End the commands that were kept."""
        await asyncio.gather(*(_end(process) for process in self._kept.values()))
        self._kept.clear()

    async def _start(self, command: str, *, stdin: int, stderr: int | IO[bytes]) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C is for us, and we end the rest in order.
        return await asyncio.create_subprocess_exec(
            *(*_WITH_US, "bash", "-o", "pipefail", "-c", command),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=self._environment,
            cwd=ROOT,
            start_new_session=True,
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Told to end, then killed, with all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END)
