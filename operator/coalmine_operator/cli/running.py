"""What `coalmine run` is made of, started in an order that leaves nothing behind when a part refuses, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import uvloop
from msgspec import Struct

from coalmine_sidecar.push.settings import PushSettings

from ..api import conditions
from ..api.status import Status
from ..engine.model import Event
from ..platforms.local import LocalPlatform, Refused
from ..platforms.local.state import write_json
from ..runtime import Runtime
from ..web.app import make_app
from ..web.bridge import RuntimeBackend
from ..web.metrics import Metrics
from ..web.push import pushed
from ..web.server import WebServer
from ..web.view import ScrapeTargets
from .client import RunInfo
from .errors import CliError
from .report import LogLines, Reporter, reporter_for_terminal
from .tokens import keep_new_token, new_token, read_token

HOST: Final = "127.0.0.1"
ALERTS_TOKEN: Final = "alerts-token"  # noqa: S105 - the name of a file


class Settings(Struct, frozen=True, kw_only=True):
    """The options of `coalmine run`. `leave`: model processes outlive it; `push`: who gets its metrics unasked."""

    file: Path
    state: Path
    port: int = 8008
    web_port: int = 8011
    leave: bool = False
    alerts_token_file: Path | None = None
    debug: bool = False
    push: PushSettings = PushSettings()


class Running(Struct, frozen=True, kw_only=True):
    """The parts that run. `alerts_url` takes Alertmanager's webhook with the token in `alerts_token_file`."""

    platform: LocalPlatform
    backend: RuntimeBackend
    alerts_url: str
    alerts_token_file: Path


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises CliError with nothing started where something is wrong from the start."""
    reporter = reporter_for_terminal()
    with _logging_to(reporter, debug=settings.debug):
        try:
            uvloop.run(_serve(settings, reporter))
        finally:
            reporter.close()


@contextlib.asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Running]:
    """Platform, runtime and web, running; ended in the opposite order. Raises CliError."""
    token_file = settings.alerts_token_file or settings.state / ALERTS_TOKEN
    token = read_token(token_file) if settings.alerts_token_file or token_file.exists() else ""
    try:
        server = WebServer(HOST, settings.web_port)
    except OSError as error:
        raise CliError(
            f"port {settings.web_port} on {HOST} {_bind_problem(error)} or give another one with --web-port", code=2
        ) from error
    platform = LocalPlatform(settings.file, settings.state, port=settings.port)
    try:
        await platform.start()
    except Refused as error:
        await server.close()
        raise CliError(*error.lines, code=2) from error
    runtime = Runtime(platform)
    run_file = RunInfo.path(settings.state)
    leave = True  # whoever could not start must not end what an earlier run left
    try:
        token = token or keep_new_token(token_file)
        metrics = Metrics()
        runtime.on_event(_count_rollbacks(metrics))
        runtime.on_reconcile(lambda seconds, ok: metrics.reconciled(seconds, ok=ok))
        backend = RuntimeBackend(
            runtime, platform, keys=platform.keys, ingress=lambda key: f"http://{platform.ingress(key)}"
        )
        api_token = new_token()

        def scraped() -> list[ScrapeTargets]:
            own = ScrapeTargets(targets=(f"{HOST}:{server.port}",), labels={"job": "coalmine-operator"})
            return [own, *_sidecars(platform)]

        await server.serve(make_app(backend, alerts_token=token, api_token=api_token, metrics=metrics, scraped=scraped))
        runtime.start()
        info = RunInfo(pid=os.getpid(), port=server.port, token=api_token, started_at=time.time())
        write_json(run_file, info)
        leave = settings.leave
        async with pushed(settings.push, backend, metrics, instance=f"{HOST}:{server.port}"):
            yield Running(
                platform=platform,
                backend=backend,
                alerts_url=f"http://{HOST}:{server.port}/alerts",
                alerts_token_file=token_file,
            )
    finally:
        run_file.unlink(missing_ok=True)
        await server.close()
        await runtime.stop()
        await platform.stop(leave=leave)


def _sidecars(platform: LocalPlatform) -> Iterator[ScrapeTargets]:
    every = platform.keys()
    for key in every:
        namespace, _, name = key.partition("/")
        for pod, address in platform.admins(key).items():
            labels = {"job": "coalmine-sidecar", "namespace": namespace, "modeldeployment": name, "pod": pod}
            yield ScrapeTargets(targets=(address,), labels=labels)


async def _serve(settings: Settings, reporter: Reporter) -> None:
    stop = asyncio.Event()
    _on_signals(stop, reporter)
    async with started(settings) as running:
        for line in _where(running, settings):
            reporter.say(line)
        follow = asyncio.create_task(reporter.follow(running.backend.views))
        ended = asyncio.create_task(stop.wait())
        # Whichever ends first: drawing only ends by an error, which is to be seen.
        await asyncio.wait({follow, ended}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if not follow.done():
            follow.cancel()
        await asyncio.gather(ended, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await follow
        reporter.say("leaving the models to the next run" if settings.leave else "draining and stopping the models")
    reporter.say("stopped")


def _where(running: Running, settings: Settings) -> list[str]:
    """Where things are, for people."""
    lines = [f"{key}: requests go to http://{running.platform.ingress(key)}" for key in sorted(running.platform.keys())]
    lines.append(f"alerts: POST {running.alerts_url} with the bearer token in {running.alerts_token_file}")
    lines.append(f"state directory: {settings.state}; see it with: coalmine status --state {settings.state}")
    return lines


def _on_signals(stop: asyncio.Event, reporter: Reporter) -> None:
    """The first SIGTERM or SIGINT stops, the second ends at once."""

    def told() -> None:
        if stop.is_set():
            reporter.close()
            reporter.say("ended at once: model processes may still run, the next coalmine run takes them up")
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)


def _count_rollbacks(metrics: Metrics) -> Callable[[str, Event, Status], None]:
    def listen(_key: str, event: Event, _status: Status) -> None:
        if event.reason == conditions.ROLLED_BACK:
            metrics.rolled_back()

    return listen


@contextlib.contextmanager
def _logging_to(reporter: Reporter, *, debug: bool) -> Iterator[None]:
    """Everybody's warnings and our own news become lines of the reporter."""
    handler = LogLines(reporter, debug=debug)
    ours = logging.getLogger("coalmine")
    before = ours.level
    logging.getLogger().addHandler(handler)
    ours.setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        ours.setLevel(before)


def _bind_problem(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "is taken: stop what listens there"
    return f"cannot be had: {error.strerror}: run with more rights"
