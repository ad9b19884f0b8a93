"""Memory and CPU of the model's processes: absent rather than wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from ..contract import Resources
from .processes import in_pod

#: Seconds for which a sample is good.
MAX_AGE: Final = 1.0
#: Seconds by which clocks of process table and file system may disagree.
_SLACK: Final = 2.0


class ResourceReader:
    """Samples the process named by a pid file, and all its children; or, in a pod, the model's container.

    A process that began after its pid was written is another one under the same number, and counts for nothing.
    `port`: at which the model listens, where its container's processes are to be looked for; see `processes`.
    `memory_limit_bytes` and `cpu_limit_cores` are passed through (0: none).
    """

    def __init__(
        self,
        pid_file: Path | None,
        *,
        port: int = 0,
        memory_limit_bytes: int = 0,
        cpu_limit_cores: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pid_file = pid_file
        self._port = port
        self._memory_limit_bytes = memory_limit_bytes
        self._cpu_limit_cores = cpu_limit_cores
        self._clock = clock
        self._sampled_at = float("-inf")
        self._sample: Resources | None = None
        self._root: psutil.Process | None = None
        self._cpu_seconds = 0.0

    def read(self) -> Resources | None:
        """The newest sample, at most MAX_AGE old. Reads /proc for milliseconds: not for the event loop's thread."""
        now = self._clock()
        if now - self._sampled_at >= MAX_AGE:
            self._sample = self._take()
            self._sampled_at = now
        return self._sample

    def _take(self) -> Resources | None:
        try:
            processes = self._find()
            if not processes:
                return None
            root = processes[0]
            memory, cpu = _usage(root)
        except (OSError, ValueError, psutil.Error):
            return None
        for process in processes[1:]:
            try:
                child_memory, child_cpu = _usage(process)
            except psutil.Error:  # it ended meanwhile; its parent has its time
                continue
            memory += child_memory
            cpu += child_cpu
        # A child that nobody waited for takes its time with it: a counter does not go back for that.
        if root != self._root:
            self._root, self._cpu_seconds = root, 0.0
        self._cpu_seconds = max(self._cpu_seconds, cpu)
        return Resources(
            memory_bytes=memory,
            cpu_seconds=self._cpu_seconds,
            memory_limit_bytes=self._memory_limit_bytes,
            cpu_limit_cores=self._cpu_limit_cores,
        )

    def _find(self) -> list[psutil.Process]:
        """The first is the one that the others come from."""
        if self._port:
            return in_pod(self._port)
        root = self._find_root()
        return [] if root is None else [root, *root.children(recursive=True)]

    def _find_root(self) -> psutil.Process | None:
        if self._pid_file is None:
            return None
        text = self._pid_file.read_text("ascii")
        process = psutil.Process(int(text))
        if process.create_time() > self._pid_file.stat().st_mtime + _SLACK:
            return None
        return None if process.status() == psutil.STATUS_ZOMBIE else process


def _usage(process: psutil.Process) -> tuple[int, float]:
    """Resident bytes and CPU seconds, those of children that ended and were waited for included."""
    with process.oneshot():
        times = process.cpu_times()
        return process.memory_info().rss, times.user + times.system + times.children_user + times.children_system
