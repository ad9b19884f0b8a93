from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc.aio
import pytest
import uvloop
from tests.relay.grpc_model import LARGE, Model
from tests.relay.harness import Pod, Upstream, close_all


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The sidecar's own event loop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def model() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture
async def other() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.start()
    yield upstream
    await upstream.stop()


@pytest.fixture
async def start_pod() -> AsyncIterator[Callable[..., Pod]]:
    """Makes relays in this process; each is ended with the test, and has to have kept its books in order."""
    pods: list[Pod] = []

    async def start(*args: object, **kwargs: object) -> Pod:
        pod = Pod(*args, **kwargs)
        await pod.start()
        pods.append(pod)
        return pod

    yield start
    await close_all()
    for pod in pods:
        await pod.stop()
    for pod in pods:
        assert pod.telemetry.queue is None or pod.telemetry.queue.depth == 0, "requests still in the queue"
        for revision in pod.telemetry.revisions.values():
            for series in revision.series.values():
                assert series.in_flight == 0, f"{revision.name} {series.role}: requests still in flight"
        for endpoint in pod.endpoints():
            assert endpoint.outstanding == 0, f"{endpoint}: requests still outstanding"


@pytest.fixture
async def start_model() -> AsyncIterator[Callable[..., Model]]:
    models: list[Model] = []

    async def start(name: str = "m", **options: bytes) -> Model:
        model = Model(name, **options)
        await model.start()
        models.append(model)
        return model

    yield start
    for model in models:
        await model.stop()


@pytest.fixture
async def dial() -> AsyncIterator[Callable[[int], grpc.aio.Channel]]:
    channels: list[grpc.aio.Channel] = []

    def open_channel(port: int) -> grpc.aio.Channel:
        options = [*LARGE, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options))
        return channels[-1]

    yield open_channel
    for channel in channels:
        await channel.close()
