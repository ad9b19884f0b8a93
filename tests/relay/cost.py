"""What the relay executes for a request, counted: the same on a busy machine, a slow one and a virtual one."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.relay.harness import Pod

import coalmine_sidecar

_SIDECAR = str(Path(coalmine_sidecar.__file__).parent)
#: What a timer does, however many requests come between two ticks.
_TIMERS = frozenset({"_tick", "_sweep"})


@dataclass
class Cost:
    """`opcodes`: bytecodes of the sidecar's modules; `calls`: functions of C that these call.

    `reads` and `writes`: system calls of this whole process.
    """

    opcodes: float = 0
    calls: float = 0
    reads: float = 0
    writes: float = 0

    def __truediv__(self, count: int) -> Cost:
        return Cost(self.opcodes / count, self.calls / count, self.reads / count, self.writes / count)


class Counting:
    """Counts while it is entered, in this thread. Not for code that traces or profiles itself."""

    def __init__(self) -> None:
        self.cost = Cost()
        self._known: dict[Any, bool] = {}

    def __enter__(self) -> Cost:
        self._before = _system_calls()
        sys.settrace(self._enter)
        sys.setprofile(self._profile)
        return self.cost

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        sys.settrace(None)
        self.cost.reads, self.cost.writes = (b - a for a, b in zip(self._before, _system_calls(), strict=True))

    def _counts(self, frame: FrameType) -> bool:
        code = frame.f_code
        known = self._known.get(code)
        if known is None:
            known = code.co_filename.startswith(_SIDECAR) and code.co_name not in _TIMERS
            self._known[code] = known
        return known

    def _enter(self, frame: FrameType, event: str, _: object) -> Any:
        if not self._counts(frame):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "opcode":
            self.cost.opcodes += 1
        return self._step

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event == "c_call" and self._counts(frame):
            self.cost.calls += 1


def _system_calls() -> tuple[int, int]:
    """Reads and writes of this process so far; Linux."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["syscr"]), int(fields["syscw"])


async def settled(pod: Pod) -> None:
    """Everything that was to be done soon is done: the observer's reading, and what is counted for many at a time."""
    for _ in range(5):
        await asyncio.sleep(0)
    for counters in pod.telemetry.revisions.values():
        for series in counters.series.values():
            assert series.requests
