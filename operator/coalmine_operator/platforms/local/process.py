"""One operating-system process that outlives us: started or adopted, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from .state import ProcessRecord

#: How often a process is looked at where the system has no pidfd (macOS).
POLL: Final = 0.2
#: A variable by which a pod's processes are known, those among them that a model started itself.
MARK: Final = "COALMINE_PROCESS_OF"
#: psutil adds the boot time to a process's start; clock adjustments move that sum a little.
CLOCK_SLACK: Final = 2.0
#: How long after a SIGKILL a process may still be there (a disk that does not answer).
KILL_WAIT: Final = 5.0


class Process:
    """A process in a session of its own, so that neither Ctrl-C in the terminal nor our own end reaches it."""

    def __init__(self, record: ProcessRecord, popen: subprocess.Popen[bytes] | None) -> None:
        self.record = record
        self.exit_code: int | None = None  # negative: the signal; None while running, or when not our child
        self._popen = popen
        self._ended = asyncio.Event()
        self._watcher = asyncio.create_task(self._watch())

    @classmethod
    def start(
        cls, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, pass_fds: Sequence[int] = ()
    ) -> Process:
        """Raises OSError where the command cannot be started."""
        # A file and not a pipe: nobody has to read it, and it stays whole when we are gone.
        with log.open("ab") as output:
            popen = subprocess.Popen(  # noqa: S603 - the manifest's own command
                list(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        try:
            created_at = psutil.Process(popen.pid).create_time()
        except psutil.NoSuchProcess:
            created_at = 0.0  # gone already; the watcher will say so
        return cls(ProcessRecord(pid=popen.pid, created_at=created_at), popen)

    @classmethod
    def adopt(cls, record: ProcessRecord | None) -> Process | None:
        """The process of an earlier `coalmine run`, if it is still the same one and alive."""
        return cls(record, None) if record and alive(record) else None

    @property
    def pid(self) -> int:
        return self.record.pid

    @property
    def running(self) -> bool:
        return not self._ended.is_set()

    async def wait(self) -> None:
        await self._ended.wait()

    async def end(self, grace: float) -> None:
        """SIGTERM, then after `grace` seconds SIGKILL for all that is left of its group. Returns when it is gone."""
        if self.running:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace)
        await self.kill()

    async def kill(self) -> None:
        if self.running:
            self._signal(signal.SIGKILL, group=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), KILL_WAIT)

    async def detach(self) -> None:
        """Stop watching and leave it running."""
        self._watcher.cancel()
        await asyncio.gather(self._watcher, return_exceptions=True)
        if self._popen and self._popen.returncode is None:
            # Popen warns of every child it has not seen end; this one is left on purpose.
            self._popen.returncode = 0

    def describe_exit(self) -> str:
        if self.exit_code is None:
            return "ended"
        if self.exit_code >= 0:
            return f"exit code {self.exit_code}"
        try:
            return f"killed by {signal.Signals(-self.exit_code).name}"
        except ValueError:
            return f"killed by signal {-self.exit_code}"

    def _signal(self, number: signal.Signals, *, group: bool = False) -> None:
        if self._popen is None and not alive(self.record):
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    async def _watch(self) -> None:
        seen = await self._exit()
        # Its helpers must not keep its port. Only now, and only if this very process was seen to end, is the number of
        # its group certainly its own: a child is still a zombie here, and pids are not used anew within milliseconds.
        if seen:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self._popen is not None:
            self.exit_code = self._popen.wait()
        self._ended.set()

    async def _exit(self) -> bool:
        """Wait for the end; false where it was over before the waiting began."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        except (AttributeError, OSError):
            while alive(self.record):  # noqa: ASYNC110 - nobody can tell us
                await asyncio.sleep(POLL)
            return True
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(pidfd, readable.set)
        try:
            if self._popen is None and not alive(self.record):
                return False
            await readable.wait()
            return True
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)


def alive(record: ProcessRecord) -> bool:
    """Is it running, and still the same process?"""
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.created_at) <= CLOCK_SLACK
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def mark_of(which: str, pod_directory: Path) -> str:
    """The value of MARK for the model or the sidecar of a pod."""
    return f"{which}:{pod_directory}"


def strays(mark: str) -> list[psutil.Process]:
    """What carries `mark`: started in the moment before a crash, or left by a process that died unseen.

    Looks at every process of this machine that we may look at.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def kill_strays(mark: str) -> None:
    """Only for a pod of an earlier `coalmine run` whose process could not be adopted."""
    for process in strays(mark):
        with contextlib.suppress(psutil.Error):
            process.kill()  # psutil makes sure that the pid is still the same process's
