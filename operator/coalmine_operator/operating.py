"""The operator in a cluster: client, platform, runtime, web and watches, started together and ended together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from prometheus_client import Gauge

from coalmine_sidecar.push.settings import PushSettings

from .api import conditions
from .api.status import Status
from .engine.model import Event
from .handlers import watching
from .orders import OrderDesk
from .platforms.kubernetes import ApiError, Client, KubernetesPlatform
from .platforms.kubernetes import Settings as PlatformSettings
from .platforms.kubernetes.access import Access, AccessError, from_kubeconfig, in_pod
from .runtime import Runtime
from .web.app import make_app
from .web.bridge import RuntimeBackend
from .web.metrics import Metrics
from .web.push import pushed
from .web.server import WebServer

logger = logging.getLogger("coalmine")

#: Seconds between two tries to begin while the API server is away or the CRD not there yet.
AGAIN: Final = 2.0
#: Seconds without a word from the cluster after which the operator is better started anew: three lists were missed.
SILENCE: Final = 1000.0


class OperatorError(Exception):
    """It cannot run; the message is one line that says what to change."""


class OperatorSettings(Struct, frozen=True, kw_only=True):
    """`kubeconfig`: None in a pod. Token files hold one line; without one the guarded part answers nobody.

    `webhook`: namespace and name of the webhook's Service, where its certificate is the operator's to keep. `push`: who
    gets its metrics unasked.
    """

    platform: PlatformSettings
    webhook: tuple[str, str] | None = None
    kubeconfig: Path | None = None
    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address, guarded by tokens
    port: int = 8080
    alerts_token_file: Path | None = None
    api_token_file: Path | None = None
    push: PushSettings = PushSettings()


async def operate(settings: OperatorSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises OperatorError."""
    alerts_token, api_token = _token(settings.alerts_token_file), _token(settings.api_token_file)
    access = _access(settings.kubeconfig)
    client = Client(access)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        try:
            server = WebServer(settings.host, settings.port)
        except OSError as error:
            raise OperatorError(f"--listen {settings.host}:{settings.port}: {error.strerror}") from error
        stack.push_async_callback(server.close)
        platform = KubernetesPlatform(client, settings.platform)
        runtime = Runtime(platform)
        metrics = _metrics(client, platform, runtime)
        backend = RuntimeBackend(
            runtime, platform, keys=platform.keys, ingress=platform.ingress, listed=lambda: platform.listed
        )
        app = make_app(
            backend,
            alerts_token=alerts_token,
            api_token=api_token,
            metrics=metrics,
            only_loopback=False,
            health=lambda: _health(platform),
        )
        await server.serve(app)
        await stack.enter_async_context(pushed(settings.push, backend, metrics, instance=settings.platform.instance))
        if settings.webhook is not None:
            from .certificates import CertificateKeeper  # cryptography: 7 MB that cert-manager saves us

            namespace, name = settings.webhook
            keeper = CertificateKeeper(client, namespace=namespace, name=name, domain=settings.platform.cluster_domain)
            stack.push_async_callback(_end, asyncio.create_task(keeper.run(), name="certificates"))
        if not await _unless_told(_begin(platform)):
            return
        stack.push_async_callback(platform.stop)
        watches = await stack.enter_async_context(
            watching(platform.saw, access, namespaces=settings.platform.namespaces)
        )
        async with _reconciling(platform, runtime):
            logger.info("serving %s", ", ".join(settings.platform.namespaces) or "all namespaces")
            ended = await _unless_told(asyncio.wait({watches}))
        if ended:
            # Begun anew it waits for what is not there, and lists what it missed.
            raise OperatorError(f"watching ended: {watches.exception() or 'kopf gave up'}; ends, to be started anew")


def _access(kubeconfig: Path | None) -> Access:
    """Raises OperatorError."""
    try:
        return from_kubeconfig(kubeconfig) if kubeconfig else in_pod()
    except AccessError as error:
        raise OperatorError(
            f"no access to a cluster: {error}: give --kubeconfig, or run in a pod with a service account"
        ) from error


async def _unless_told(work: Coroutine[Any, Any, object]) -> bool:
    """Do `work`, and give up on it when a SIGTERM or SIGINT comes; whether it was done. Raises what it raised."""
    # Each time anew: others take the signals as well, such as kopf when it starts.
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    told, doing = asyncio.create_task(stop.wait()), asyncio.create_task(work)
    await asyncio.wait({told, doing}, return_when=asyncio.FIRST_COMPLETED)
    done = doing.done()
    for task in (told, doing):
        task.cancel()
    await asyncio.gather(told, doing, return_exceptions=True)
    if done:
        doing.result()
    return done


@contextlib.asynccontextmanager
async def _reconciling(platform: KubernetesPlatform, runtime: Runtime) -> AsyncIterator[None]:
    desk = OrderDesk(platform, runtime)
    runtime.start()
    desk.start()
    try:
        yield
    finally:
        await desk.stop()
        await runtime.stop()


async def _begin(platform: KubernetesPlatform) -> None:
    """List the cluster; what is not there yet may come."""
    told = ""
    while True:
        try:
            await platform.start()
        except ApiError as error:
            message = f"{error}: apply the CRD (crds/modeldeployments.yaml)" if error.gone else str(error)
            if message != told:
                logger.warning("waiting: %s", message)
                told = message
            await asyncio.sleep(AGAIN)
        else:
            return


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _metrics(client: Client, platform: KubernetesPlatform, runtime: Runtime) -> Metrics:
    metrics = Metrics(api_calls=client.calls)
    age = Gauge(
        "coalmine_operator_last_event_age_seconds",
        "Since the API server last told of anything, by watch or by list.",
        registry=metrics.registry,
    )
    age.set_function(lambda: time.monotonic() - platform.heard_at)

    def count(_key: str, event: Event, _status: Status) -> None:
        if event.reason == conditions.ROLLED_BACK:
            metrics.rolled_back()

    runtime.on_event(count)
    runtime.on_reconcile(lambda seconds, ok: metrics.reconciled(seconds, ok=ok))
    return metrics


def _health(platform: KubernetesPlatform) -> str:
    silent = time.monotonic() - platform.heard_at
    return f"no word from the API server for {silent:.0f} s" if silent > SILENCE else ""


def _token(path: Path | None) -> str:
    """What a file holds, or a token that nobody knows. Raises OperatorError."""
    if path is None:
        return secrets.token_urlsafe(32)
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path}: {error}") from error
    if not token:
        raise OperatorError(f"{path}: empty: write a token into it")
    return token
