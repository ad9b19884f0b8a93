"""A process that is to run: started again whenever it ends, probed while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
from msgspec.structs import replace

from .logs import tail, trim
from .probe import STARTING_PERIOD, Judge, Probe, ask
from .process import Process

logger = logging.getLogger("coalmine")

#: A process not ready for longer than this is worth a word; the figure in it grows in steps of this size. Seconds.
SLOW_START: Final = 5.0


class BackOff:
    """Delays between starts: from `first`, doubled up to `last` while a process lives less than `healthy`. Seconds."""

    def __init__(self, first: float, last: float, healthy: float) -> None:
        self._first, self._last, self._healthy = first, last, healthy
        self._next = first

    def after(self, lived: float) -> float:
        """The delay after a process that lived for `lived` seconds."""
        if lived >= self._healthy:
            self._next = self._first
        delay, self._next = self._next, min(self._next * 2, self._last)
        return delay


class Kept:
    """The model or the sidecar of a pod."""

    def __init__(
        self,
        what: str,
        of: str,
        log: Path,
        *,
        start: Callable[[], Process],
        probe: Callable[[], tuple[Probe, int]],
        back_off: BackOff,
        session: aiohttp.ClientSession,
        changed: Callable[[], None],
        restarts: int = 0,
    ) -> None:
        """`what` it is and `of` which pod stand in messages. `start` raises OSError; `probe` says what to ask at which
        port, once it is started; `changed` is called when `ready`, `failure` or the process became another."""
        self.log = log
        self.process: Process | None = None
        self.ready = False
        self.restarts = restarts
        self._what, self._of = what, of
        self._start = start
        self._probe = probe
        self._back_off = back_off
        self._session = session
        self._changed = changed
        self._crash = ""
        self._not_ready_since = time.monotonic()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.running

    @property
    def failure(self) -> str:
        """Why it is not ready, with the last lines of its log; empty where there is nothing to say."""
        if self.ready:
            return ""
        waited = time.monotonic() - self._not_ready_since
        if not self._crash and waited < SLOW_START:
            return ""
        why = self._crash or f"{self._what} not ready for {int(waited // SLOW_START * SLOW_START)} s"
        lines = tail(self.log)
        return f"{why}: {lines}" if lines else why

    def trim_log(self) -> None:
        trim(self.log)

    async def look(self) -> None:
        """Ask at once whether an adopted process is ready."""
        with contextlib.suppress(OSError):
            probe, port = self._probe()
            self.ready = await ask(self._session, port, probe)

    async def keep(self) -> None:
        """Keep it running until cancelled; then it runs on."""
        while True:
            started = time.monotonic()
            try:
                adopted = self.process if self.running else None
                self.process = adopted or self._start()
                await self._watch(self.process, adopted=adopted is not None)
                self._crash = f"{self._what} {self.process.describe_exit()}"
            except OSError as error:
                self._crash = f"{self._what} cannot be started: {_one_line(error)}"
            delay = self._back_off.after(time.monotonic() - started)
            logger.warning("%s: %s; starts again in %g s", self._of, self.failure, delay)
            self._changed()
            await asyncio.sleep(delay)
            self.restarts += 1

    async def _watch(self, process: Process, *, adopted: bool) -> None:
        """Probe `process` until it ends; one that was adopted is past its initial delay."""
        probe, port = self._probe()
        probing = asyncio.create_task(
            self._ask_again_and_again(replace(probe, initial_delay=0.0) if adopted else probe, port)
        )
        try:
            await process.wait()
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        self._set_ready(False)

    async def _ask_again_and_again(self, probe: Probe, port: int) -> None:
        judge = Judge(probe, ready=self.ready)
        await asyncio.sleep(probe.initial_delay)
        while True:
            if judge.take(await ask(self._session, port, probe)):
                self._set_ready(judge.ready)
            await asyncio.sleep(probe.period if judge.ready else min(probe.period, STARTING_PERIOD))

    def _set_ready(self, value: bool) -> None:
        if value == self.ready:
            return
        self.ready = value
        if value:
            self._crash = ""
        else:
            self._not_ready_since = time.monotonic()
        self._changed()


def _one_line(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
