"""A pod of this machine: a model process and a sidecar process beside it, kept running and probed until it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import aiohttp
from msgspec import Struct
from msgspec.structs import replace

from .kept import BackOff, Kept
from .launch import Launch, sidecar_argv, sidecar_environment
from .logs import PayloadLogNews
from .ports import LOOPBACK, Ingress, is_free, loopback_socket, pick
from .probe import Probe
from .process import MARK, Process, kill_strays, mark_of
from .state import DeploymentFiles, PodRecord, write_atomically

logger = logging.getLogger("coalmine")

#: Seconds before a crashed process starts again: the first time, at most, and how long a life forgives earlier crashes.
MODEL_BACK_OFF: Final = (1.0, 30.0, 60.0)
SIDECAR_BACK_OFF: Final = (0.05, 5.0, 5.0)
#: From taking an ending pod off the routing file to its SIGTERM: time for the other sidecars to read it. Seconds.
SETTLE: Final = 0.5
#: Over the drain's own time limit, for a sidecar to end. Seconds.
DRAIN_SLACK: Final = 2.0
#: Logs of ended pods kept for each deployment.
KEPT_LOGS: Final = 10
SIDECAR_PROBE: Final = Probe(paths=("/readyz",), period=1.0)
#: A model that was started anew is cold: its sidecar says so before the model is found ready.
WARMING_PROBE: Final = Probe(paths=("/readyz",), period=0.2, failure_threshold=1)


class Surroundings(Struct, frozen=True, kw_only=True):
    """What a pod shares with the other pods of its deployment. Times in seconds."""

    files: DeploymentFiles
    ingress: Ingress
    session: aiohttp.ClientSession
    changed: Callable[[], None]
    gone: Callable[[str], None]
    ports_taken: Callable[[], set[int]]
    not_ready: Callable[[str], str]
    drain_timeout: float
    grace_cap: float


class Pod:
    """States: running (crashed processes are started again) until `end`, then ending, then gone."""

    def __init__(self, record: PodRecord, launch: Callable[[int], Launch], around: Surroundings) -> None:
        """`launch` says what to start when the model's port is the one given; it raises OSError."""
        self.record = record
        self._launch = launch
        self._around = around
        self._directory = around.files.pod_directory(record.name)
        self._pid_file = self._directory / "model.pid"
        self._model = Kept(
            "model",
            record.name,
            self._directory / "model.log",
            start=self._start_model,
            probe=lambda: (self._launch(self.record.port).probe, self.record.port),
            back_off=BackOff(*MODEL_BACK_OFF),
            session=around.session,
            changed=self._changed,
            restarts=record.restarts,
        )
        self._sidecar = Kept(
            "sidecar",
            record.name,
            self._directory / "sidecar.log",
            start=self._start_sidecar,
            probe=lambda: (
                WARMING_PROBE if self._launch(self.record.port).warmup else SIDECAR_PROBE,
                self.record.admin_port,
            ),
            back_off=BackOff(*SIDECAR_BACK_OFF),
            session=around.session,
            changed=self._changed,
        )
        self._payload_log = PayloadLogNews(self._sidecar.log)
        self._was_ready = False
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
        return self._model.ready and self._sidecar.ready and not self.ending

    @property
    def ending(self) -> bool:
        return self.record.ending

    @property
    def restarts(self) -> int:
        """Of the model."""
        return self._model.restarts

    @property
    def model_log(self) -> Path:
        return self._model.log

    @property
    def model_pid(self) -> int | None:
        return self._model.process.pid if self._model.process and self._model.running else None

    @property
    def endpoint(self) -> str:
        return f"{LOOPBACK}:{self.record.local_port}"

    @property
    def admin(self) -> str:
        """Where the sidecar's admin port is, or empty."""
        return f"{LOOPBACK}:{self.record.admin_port}" if self._sidecar.running else ""

    @property
    def failure(self) -> str:
        """Why it is not ready, with the last lines of a log; empty where there is nothing to say."""
        if self.ending or self.ready:
            return ""
        return self._model.failure or self._around.not_ready(self.name) or self._sidecar.failure

    # Life

    async def start(self) -> None:
        """Adopt what the record names and is still alive, start the rest, and keep both running.

        What is adopted is looked at before this returns: a pod that is ready must not be taken for one that is not.
        """
        new = self.record.port == 0
        if new:
            self._update(port=pick(self._around.ports_taken()))
        else:
            self._model.process = self._adopt("model")
            self._sidecar.process = self._adopt("sidecar")
        if self.ending:
            self._end = asyncio.create_task(self._run_end(settle=False))
            return
        if self._sidecar.running and self.record.ingress != self._around.ingress.address:
            logger.info("%s: the ingress address changed, its sidecar starts anew", self.name)
            self._renew_sidecar()
        await asyncio.gather(*(kept.look() for kept in (self._model, self._sidecar) if kept.running))
        self._was_ready = self.ready
        self._tasks += [asyncio.create_task(self._model.keep()), asyncio.create_task(self._sidecar.keep())]

    def end(self, *, settle: bool = True) -> None:
        """Drain and end it, in the background; `gone` is called when nothing of it is left. Idempotent.

        `settle`: first leave the other sidecars the time to read that it is off the routing file.
        """
        if not self._end:
            self._end = asyncio.create_task(self._run_end(settle=settle))
            self._update(ending=True)

    async def ended(self) -> None:
        if self._end:
            await asyncio.shield(self._end)

    async def detach(self) -> None:
        """Leave the processes running, to be adopted."""
        await self._stop_keeping(self._end)
        for kept in (self._model, self._sidecar):
            if kept.process:
                await kept.process.detach()

    def tell_payload_log(self) -> None:
        """Nobody looks into a sidecar's log for what is missing elsewhere."""
        failing, line = self._payload_log.look()
        if line:
            logger.log(logging.WARNING if failing else logging.INFO, "%s: %s", self.name, line)

    def trim_logs(self) -> None:
        self._model.trim_log()
        self._sidecar.trim_log()

    def _adopt(self, which: Literal["model", "sidecar"]) -> Process | None:
        process = Process.adopt(self.record.model if which == "model" else self.record.sidecar)
        if process is None:
            kill_strays(mark_of(which, self._directory))
        return process

    def _start_model(self) -> Process:
        if not is_free(self.record.port):
            # Somebody took it while the model was down. The sidecar knows only the old one, so it starts anew too.
            self._update(port=pick(self._around.ports_taken()))
            self._renew_sidecar()
        launch = self._launch(self.record.port)
        env = {**launch.env, MARK: mark_of("model", self._directory)}
        model = self._model.process = Process.start(launch.argv, env=env, cwd=launch.cwd, log=self._model.log)
        self._update(model=model.record, grace=launch.grace, restarts=self.restarts)
        write_atomically(self._pid_file, f"{model.pid}\n".encode())
        return model

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
            sidecar = self._sidecar.process = Process.start(
                argv,
                env={**sidecar_environment(), MARK: mark_of("sidecar", self._directory)},
                cwd=self._around.files.path,
                log=self._sidecar.log,
                pass_fds=(ingress, local.fileno(), admin.fileno()),
            )
            self._update(
                sidecar=sidecar.record,
                ingress=self._around.ingress.address,
                local_port=local.getsockname()[1],
                admin_port=admin.getsockname()[1],
            )
            return sidecar

    def _renew_sidecar(self) -> None:
        """Drain and end it; another one is started when it is gone."""
        if self._sidecar.process:
            end = self._sidecar.process.end(self._around.drain_timeout + DRAIN_SLACK)
            self._tasks.append(asyncio.create_task(end))

    def _changed(self) -> None:
        if self.ready != self._was_ready:
            self._was_ready = self.ready
            logger.info("%s: %s", self.name, "ready" if self.ready else "not ready")
        self._around.changed()

    async def _run_end(self, *, settle: bool) -> None:
        logger.info("%s: ends", self.name)
        if settle:
            await asyncio.sleep(SETTLE)
        await self._stop_keeping()
        if self._sidecar.process:
            self._around.ingress.drop(self.name)
            await self._sidecar.process.end(self._around.drain_timeout + DRAIN_SLACK)
        if self._model.process:
            await self._model.process.end(min(self.record.grace, self._around.grace_cap))
        self.tell_payload_log()
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
