"""The sidecar as a process: its sockets, its start, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import ExitStack
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

import psutil

from .admin import make_app
from .beside import Beside
from .contract import Routing, RoutingError
from .drain import Drain
from .lean import web
from .observe.observer import Observer
from .observe.resources import ResourceReader
from .relay.front import Front
from .relay.outbox import Outbox
from .relay.relay import Relay
from .relay.watcher import RoutingFile
from .settings import Listen, Settings, open_socket
from .telemetry import Telemetry
from .telemetry.exposition import collect
from .warmup import WarmUp

if TYPE_CHECKING:
    from .families import Metric
    from .push.pusher import Pushing
    from .relay.tls import Tls

#: Seconds a listening socket stays open when the end has come: connections in its queue are accepted, not reset.
ACCEPT_QUEUED: Final = 0.05
POLL: Final = 0.02

log = logging.getLogger(__name__)


class StartError(Exception):
    """The sidecar can't start; the message is one line that says what to change."""


async def serve(settings: Settings) -> int:
    """Run until a SIGTERM or SIGINT has been served to its end; the process's exit status. Raises StartError."""
    with ExitStack() as stack:
        loop = asyncio.get_running_loop()
        signals = _Signals(loop)
        admin_socket = stack.enter_context(_open("admin", settings.admin))
        local_socket = stack.enter_context(_open("local", settings.local))
        ingress_socket = stack.enter_context(_open("ingress", settings.ingress))

        telemetry = Telemetry(pod=settings.pod, revision=settings.revision)
        certificates = _certificates(settings, telemetry)
        model_tls, peer_tls, ingress_tls = map(certificates.get, ("model", "peer", "ingress"))
        outbox = Outbox(loop)
        labels_socket = stack.enter_context(_open("feedback", Listen("127.0.0.1", 0)))
        monitoring = Beside(telemetry, labels_socket, others=lambda: relay.others(), password=settings.redis_password)
        relay = Relay(
            telemetry,
            Observer(telemetry, schedule=outbox.after, share=settings.observe_share, beside=monitoring),
            outbox=outbox,
            revision=settings.revision,
            model=settings.model,
            model_grpc=settings.model_grpc,
            max_connections=settings.max_connections,
            model_tls=model_tls,
            peers_tls=peer_tls,
            feedback=labels_socket.getsockname()[:2],
        )
        stack.callback(relay.close)
        relay.own_addresses = _addresses(local_socket)

        def use(document: Routing) -> None:
            relay.use(document)
            monitoring.use(document)

        routing = RoutingFile(settings.routing, use, telemetry.reload_failed)
        try:
            if not routing.read_first():
                log.warning("waiting for the routing file %s", settings.routing)
        except RoutingError as error:
            raise StartError(str(error)) from None
        routing.watch(loop)
        stack.callback(routing.stop)

        if settings.warmup:
            warm = WarmUp(
                settings.warmup,
                relay,
                telemetry,
                model=settings.model,
                tls=model_tls.client if model_tls is not None else None,
                server_name=settings.model_tls.server_name if settings.model_tls is not None else "",
            )
            warming = asyncio.create_task(warm.run())
            stack.callback(warming.cancel)

        resources = ResourceReader(
            settings.model_pid_file,
            port=settings.model[1] if settings.in_pod else 0,
            memory_limit_bytes=settings.memory_limit,
            cpu_limit_cores=settings.cpu_limit,
        )
        beside: list[Callable[[], Iterable[Metric]]] = [monitoring.collect]
        drain = Drain(telemetry, (relay.ingress, relay.local), timeout=settings.drain_timeout, hold=settings.drain_hold)
        app = make_app(
            telemetry,
            ready=lambda: "ending" if signals.first.is_set() else bool(relay.routing) or "no routing file yet",
            resources=resources,
            drain=drain.wait if settings.drain_key else None,
            drain_key=settings.drain_key,
            beside=beside,
        )
        pushing = _pushing(settings, telemetry, resources, beside)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.SockSite(runner, admin_socket).start()
            local = await _listen(local_socket, drain.counting(relay.local.accept), peer_tls, lambda: relay.plain)
            ingress = await _listen(ingress_socket, drain.counting(relay.ingress.accept), ingress_tls)
            # What was made so far stays; the collector need not look at it again with every round.
            gc.freeze()
            log.info("ingress %s, local %s, admin %s", *map(_name, (ingress_socket, local_socket, admin_socket)))
            await signals.first.wait()
            if settings.drain_key:
                await drain.linger(signals.second)
            drain.end()
            telemetry.draining = True
            deadline = monotonic() + settings.drain_timeout
            log.info("draining for at most %g s", settings.drain_timeout)
            # Other sidecars may send to the local port until their routing files no longer name this pod, and the
            # ingress needs nothing of it; so it goes second.
            for front, server in ((relay.ingress, ingress), (relay.local, local)):
                await _drain(front, server, deadline, signals)
        finally:
            await runner.cleanup()
            await monitoring.stop()
            if pushing is not None:
                await pushing.stop()
    return 1 if signals.second.is_set() else 0


def _pushing(
    settings: Settings, telemetry: Telemetry, resources: ResourceReader, beside: list[Callable[[], Iterable[Metric]]]
) -> Pushing | None:
    """Metrics on their way to whom the flags name; what becomes of the pushes is one of them."""
    for remark in settings.push.remarks:
        log.warning("%s", remark)
    if not settings.push:
        return None
    from .push.pusher import start, whose  # for those who use it

    async def collected() -> AsyncGenerator[list[Metric], None]:
        telemetry.resources = await asyncio.to_thread(resources.read)
        yield collect(telemetry, beside)

    pushing = start(settings.push, collected, lambda: whose(telemetry.routing, settings.pod))
    beside.append(pushing.collect)
    return pushing


def _certificates(settings: Settings, telemetry: Telemetry) -> dict[str, Tls]:
    """By purpose, read and watched. What is wrong with them at the start keeps the pod from being ready."""
    wanted = [files for files in (settings.model_tls, settings.peer_tls, settings.ingress_tls) if files is not None]
    if not wanted:
        return {}
    from .relay.tls import Tls, watch  # OpenSSL's part of the memory is for those who use it

    def tell(one: Tls) -> None:
        if one.generation:
            telemetry.hindrances.pop(one.files.flag, None)
        else:
            telemetry.hindrances[one.files.flag] = one.problem

    made = {files.flag: Tls(files) for files in wanted}
    for one in made.values():
        watch(one, asyncio.get_running_loop().call_later, partial(tell, one))
    return made


async def _listen(
    opened: socket.socket,
    accept: Callable[[], asyncio.Protocol],
    tls: Tls | None,
    plain: Callable[[], bool] = lambda: False,
) -> Closable:
    if tls is None:
        return await asyncio.get_running_loop().create_server(accept, sock=opened)
    from .relay.listener import Listener

    return Listener(opened, accept, tls, plain=plain)


class Closable(Protocol):
    """Accepts connections until it is closed."""

    def close(self) -> None: ...


async def _drain(front: Front, server: Closable, deadline: float, signals: _Signals) -> None:
    front.draining = True
    await asyncio.sleep(ACCEPT_QUEUED)
    server.close()
    front.drain()
    # Connections end by themselves; a watch on each of them would cost requests what this poll does not.
    while front.connections and monotonic() < deadline and not signals.second.is_set():  # noqa: ASYNC110 - see above
        await asyncio.sleep(POLL)
    if front.connections:
        log.warning("%d connections cut off, %d of them with requests", len(front.connections), front.busy)
    front.abort()


class _Signals:
    """The first SIGTERM or SIGINT asks for an end, the second one for an end at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._came)

    def _came(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


def _open(role: str, listen: Listen) -> socket.socket:
    try:
        return open_socket(listen)
    except OSError as error:
        raise StartError(f"--{role} {listen}: {error.strerror}") from None


def _name(opened: socket.socket) -> str:
    host, port = opened.getsockname()[:2]
    return f"{host}:{port}"


def _addresses(local: socket.socket) -> frozenset[tuple[str, int]]:
    """Under which the local port can be reached."""
    host, port = local.getsockname()[:2]
    if host not in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not bound to
        return frozenset({(host, port)})
    own = (address for addresses in psutil.net_if_addrs().values() for address in addresses)
    return frozenset(
        (address.address.partition("%")[0], port)
        for address in own
        if address.family in (socket.AF_INET, socket.AF_INET6)
    )
