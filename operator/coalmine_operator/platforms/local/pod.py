"""A pod of this machine: a model process and a sidecar process beside it, kept running and probed until it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final, Literal

import aiohttp
from msgspec import Struct
from msgspec.structs import replace

from .launch import Launch, sidecar_argv, sidecar_environment
from .logs import tail, trim
from .ports import LOOPBACK, Ingress, is_free, loopback_socket, pick
from .probe import STARTING_PERIOD, Judge, Probe, ask
from .process import MARK, Process, kill_strays, mark_of
from .state import DeploymentFiles, PodRecord, write_atomically

logger = logging.getLogger("coalmine")

#: Seconds before a crashed model starts again: doubled each time, from the first to the second figure.
BACK_OFF: Final = (1.0, 30.0)
#: Health of that many seconds forgives earlier crashes.
HEALTHY: Final = 60.0
#: A sidecar starts again at once, unless it never lived that long.
SIDECAR_BACK_OFF: Final = (0.1, 5.0)
SIDECAR_HEALTHY: Final = 5.0
#: A model not ready for longer than this is worth a word; the figure in it grows in steps of this size.
SLOW_START: Final = 5.0
#: From taking an ending pod off the routing file to its SIGTERM: time for the other sidecars to read it.
SETTLE: Final = 0.5
#: Over the drain's own time limit, for a sidecar to end.
DRAIN_SLACK: Final = 2.0
#: Logs of ended pods kept for each deployment.
KEPT_LOGS: Final = 10
SIDECAR_PROBE: Final = Probe(paths=("/readyz",), period=1.0)


Which = Literal["model", "sidecar"]


class Surroundings(Struct, frozen=True, kw_only=True):
    """What a pod shares with the other pods of its deployment. Times in seconds."""

    files: DeploymentFiles
    ingress: Ingress
    session: aiohttp.ClientSession
    changed: Callable[[], None]
    gone: Callable[[str], None]
    ports_taken: Callable[[], set[int]]
    drain_timeout: float
    grace_cap: float


class BackOff:
    """Delays that double while crashes follow each other closely."""

    def __init__(self, first: float, last: float, healthy: float) -> None:
        self._first, self._last, self._healthy = first, last, healthy
        self._next = first

    def after(self, lived: float) -> float:
        """The delay after a process that lived for `lived` seconds."""
        if lived >= self._healthy:
            self._next = self._first
        delay, self._next = self._next, min(self._next * 2, self._last)
        return delay


class Pod:
    """States: running (crashed processes are started again) until `end`, then ending, then gone."""

    def __init__(self, record: PodRecord, launch: Callable[[int], Launch], around: Surroundings) -> None:
        """`launch` says what to start when the model's port is the one given."""
        self.record = record
        self._launch = launch
        self._around = around
        self._directory = directory = around.files.pod_directory(record.name)
        self._restarts = record.restarts
        self.model_log = directory / "model.log"
        self._sidecar_log = directory / "sidecar.log"
        self._pid_file = directory / "model.pid"
        self._model: Process | None = None
        self._sidecar: Process | None = None
        self._model_ready = self._sidecar_ready = False
        self._crash = self._sidecar_crash = ""
        self._not_ready_since = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._end: asyncio.Task[None] | None = None

    # What others ask of it

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def revision(self) -> str:
        return self.record.revision

    @property
    def ready(self) -> bool:
        return self._model_ready and self._sidecar_ready and not self.ending

    @property
    def ending(self) -> bool:
        return self.record.ending

    @property
    def restarts(self) -> int:
        return self._restarts

    @property
    def model_pid(self) -> int | None:
        return self._model.pid if self._model and self._model.running else None

    @property
    def endpoint(self) -> str:
        return f"{LOOPBACK}:{self.record.local_port}"

    @property
    def admin(self) -> str:
        """Where the sidecar's admin port is, or empty."""
        return f"{LOOPBACK}:{self.record.admin_port}" if self._sidecar and self._sidecar.running else ""

    @property
    def failure(self) -> str:
        """Why it is not ready, with the last lines of a log; empty where there is nothing to say."""
        if self.ready or self.ending:
            return ""
        who, log = ("sidecar", self._sidecar_log) if self._model_ready else ("model", self.model_log)
        what = self._sidecar_crash if self._model_ready else self._crash
        if not what:
            waited = time.monotonic() - self._not_ready_since
            if waited < SLOW_START:
                return ""
            what = f"{who} not ready for {int(waited // SLOW_START * SLOW_START)} s"
        lines = tail(log)
        return f"{what}: {lines}" if lines else what

    # Life

    async def start(self) -> None:
        """Adopt what the record names and is still alive, start the rest, and keep both running.

        What is adopted is looked at before this returns: a pod that is ready must not be taken for one that is not.
        """
        new = self.record.port == 0
        if new:
            self._update(port=pick(self._around.ports_taken()))
        self._model = self._adopt("model", new)
        self._sidecar = self._adopt("sidecar", new)
        if self.ending:
            self._end = asyncio.create_task(self._run_end(settle=False))
            return
        if self._sidecar and self.record.ingress != self._around.ingress.address:
            logger.info("%s: the ingress address changed, its sidecar starts anew", self.name)
            self._renew_sidecar()
        if self._model and self._sidecar:
            model, sidecar = self._launch(self.record.port).probe, SIDECAR_PROBE
            self._model_ready, self._sidecar_ready = await asyncio.gather(
                ask(self._around.session, self.record.port, model),
                ask(self._around.session, self.record.admin_port, sidecar),
            )
        self._tasks += [asyncio.create_task(self._keep_model()), asyncio.create_task(self._keep_sidecar())]

    def end(self, *, settle: bool = True) -> None:
        """Drain and end it, in the background; `gone` is called when nothing of it is left. Idempotent.

        `settle`: first leave the other sidecars the time to read that it is off the routing file.
        """
        if not self._end:
            self._end = asyncio.create_task(self._run_end(settle=settle))
            self._update(ending=True)

    def _adopt(self, which: Which, new: bool) -> Process | None:
        process = Process.adopt(self.record.model if which == "model" else self.record.sidecar)
        if process is None and not new:
            kill_strays(mark_of(which, self._directory))
        return process

    async def ended(self) -> None:
        if self._end:
            await asyncio.shield(self._end)

    async def detach(self) -> None:
        """Leave the processes running, to be adopted."""
        await self._stop_keeping(self._end)
        for process in (self._model, self._sidecar):
            if process:
                await process.detach()

    def trim_logs(self) -> None:
        trim(self.model_log)
        trim(self._sidecar_log)

    # The model

    async def _keep_model(self) -> None:
        back_off = BackOff(*BACK_OFF, HEALTHY)
        while True:
            started = time.monotonic()
            try:
                adopted = self._model is not None and self._model.running
                if not self._model or not adopted:
                    self._model = self._start_model()
                await self._watch(self._model, "model", adopted=adopted)
                self._crash = f"model {self._model.describe_exit()}"
            except OSError as error:
                self._crash = f"model cannot be started: {error.filename or ''}: {error.strerror or error}"
            delay = back_off.after(time.monotonic() - started)
            logger.warning("%s: %s; starts again in %g s", self.name, self._crash, delay)
            self._around.changed()
            await asyncio.sleep(delay)
            self._restarts += 1

    def _start_model(self) -> Process:
        if not is_free(self.record.port):
            # Somebody took it while the model was down. The sidecar knows only the old one, so it starts anew too.
            self._update(port=pick(self._around.ports_taken()))
            self._renew_sidecar()
        launch = self._launch(self.record.port)
        model = Process.start(
            launch.argv, env={**launch.env, MARK: mark_of("model", self._directory)}, cwd=launch.cwd, log=self.model_log
        )
        self._model = model  # known even if the disk is full
        self._update(model=model.record, grace=launch.grace, restarts=self._restarts)
        write_atomically(self._pid_file, f"{model.pid}\n".encode())
        return model

    # The sidecar

    async def _keep_sidecar(self) -> None:
        back_off = BackOff(*SIDECAR_BACK_OFF, SIDECAR_HEALTHY)
        while True:
            started = time.monotonic()
            try:
                if not (self._sidecar and self._sidecar.running):
                    self._sidecar = self._start_sidecar()
                await self._watch(self._sidecar, "sidecar", adopted=True)
                self._sidecar_crash = f"sidecar {self._sidecar.describe_exit()}"
            except OSError as error:
                self._sidecar_crash = f"sidecar cannot be started: {error.strerror or error}"
            lived = time.monotonic() - started
            delay = back_off.after(lived) if lived < SIDECAR_HEALTHY else 0.0
            last_words = tail(self._sidecar_log) or "it wrote nothing"
            logger.warning("%s: %s; starts again: %s", self.name, self._sidecar_crash, last_words)
            self._around.changed()
            await asyncio.sleep(delay)

    def _start_sidecar(self) -> Process:
        with contextlib.ExitStack() as ours:
            local, admin = (ours.enter_context(loopback_socket()) for _ in range(2))
            ingress = self._around.ingress.fileno(self.name)
            argv = sidecar_argv(
                self.record,
                self._launch(self.record.port),
                routing=self._around.files.routing,
                pid_file=self._pid_file,
                ingress=ingress,
                local=local.fileno(),
                admin=admin.fileno(),
                drain_timeout=self._around.drain_timeout,
            )
            sidecar = Process.start(
                argv,
                env={**sidecar_environment(), MARK: mark_of("sidecar", self._directory)},
                cwd=self._around.files.path,
                log=self._sidecar_log,
                pass_fds=(ingress, local.fileno(), admin.fileno()),
            )
            self._sidecar = sidecar
            self._update(
                sidecar=sidecar.record,
                ingress=self._around.ingress.address,
                local_port=local.getsockname()[1],
                admin_port=admin.getsockname()[1],
            )
            return sidecar

    def _renew_sidecar(self) -> None:
        """Drain and end it; `_keep_sidecar` starts another one."""
        if self._sidecar:
            self._tasks.append(asyncio.create_task(self._sidecar.end(self._around.drain_timeout + DRAIN_SLACK)))

    # Both

    async def _watch(self, process: Process, which: Which, *, adopted: bool) -> None:
        """Probe `process` until it ends; one that was adopted is past its initial delay."""
        probe = self._launch(self.record.port).probe if which == "model" else SIDECAR_PROBE
        port = self.record.port if which == "model" else self.record.admin_port
        if adopted:
            probe = replace(probe, initial_delay=0.0)
        probing = asyncio.create_task(self._probe(probe, port, which))
        try:
            await process.wait()
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
        self._set_ready(which, False)

    async def _probe(self, probe: Probe, port: int, which: Which) -> None:
        judge = Judge(probe, ready=self._model_ready if which == "model" else self._sidecar_ready)
        await asyncio.sleep(probe.initial_delay)
        while True:
            if judge.take(await ask(self._around.session, port, probe)):
                self._set_ready(which, judge.ready)
            await asyncio.sleep(probe.period if judge.ready else min(probe.period, STARTING_PERIOD))

    def _set_ready(self, which: Which, value: bool) -> None:
        before = self.ready
        if which == "model":
            self._model_ready = value
            self._crash = "" if value else self._crash
        else:
            self._sidecar_ready = value
            self._sidecar_crash = "" if value else self._sidecar_crash
        if self.ready == before:
            return
        if not self.ready:
            self._not_ready_since = time.monotonic()
        logger.info("%s: %s", self.name, "ready" if self.ready else "not ready")
        self._around.changed()

    async def _run_end(self, *, settle: bool) -> None:
        logger.info("%s: ends", self.name)
        if settle:
            await asyncio.sleep(SETTLE)
        await self._stop_keeping()
        if self._sidecar:
            self._around.ingress.drop(self.name)
            await self._sidecar.end(self._around.drain_timeout + DRAIN_SLACK)
        if self._model:
            await self._model.end(min(self.record.grace, self._around.grace_cap))
        with contextlib.suppress(OSError):
            self._around.files.remove_pod(self.name, kept_logs=KEPT_LOGS)
        logger.info("%s: gone", self.name)
        self._around.gone(self.name)

    async def _stop_keeping(self, *others: asyncio.Task[None] | None) -> None:
        tasks = [task for task in (*self._tasks, *others) if task]
        self._tasks = []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _update(self, **changes: object) -> None:
        self.record = replace(self.record, **changes)
        self._around.files.write_pod(self.record)
