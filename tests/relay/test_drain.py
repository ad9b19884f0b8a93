"""The drain that kubelet's `preStop` hook asks for, over a sidecar as a process of its own."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from tests.relay.harness import Client, Upstream, answer, eventually, get, post, revision, routing
from tests.relay.process import Load, Sidecar, replace, sidecar

KEY = "not-for-strangers"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "routing.json"
    replace(path, routing(revision("a", 100)))
    return path


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def hook(running: Sidecar, http: aiohttp.ClientSession, key: str = KEY) -> asyncio.Task[tuple[int, str]]:
    """What kubelet does before it ends the model."""

    async def ask() -> tuple[int, str]:
        async with http.get(f"http://127.0.0.1:{running.admin}/drain", headers={"Coalmine-Drain-Key": key}) as reply:
            return reply.status, await reply.text()

    return asyncio.create_task(ask())


async def test_the_hook_is_answered_when_nothing_is_left(model: Upstream, file: Path, http) -> None:
    gate = asyncio.Event()

    async def wait(request, writer) -> None:
        await gate.wait()
        writer.write(answer())

    async with sidecar(file, model.port, f"--drain-key={KEY}") as running:
        idle = await Client.connect(running.ingress)
        assert (await idle.ask(get())).status == 200
        model.handle = wait
        busy, local = await Client.connect(running.ingress), await Client.connect(running.local)
        await busy.send(post())
        await local.send(post())
        await eventually(lambda: len(model.requests) == 3)
        drained = hook(running, http)
        assert (await running.get("/readyz"))[0] == 200, "the last pods of a Service serve to their end"
        pooled = time.monotonic()
        assert await asyncio.wait_for(idle.rest(), 10) == b"", "idle connections end"
        assert time.monotonic() - pooled > 2, "but not those of clients that may be about to send"
        late = await Client.connect(running.ingress)
        await late.send(post())
        await eventually(lambda: len(model.requests) == 4)
        assert not drained.done()
        gate.set()
        for client in (busy, local, late):
            reply = await client.answer()
            assert (reply.status, reply.header("connection")) == (200, "close")
        assert await asyncio.wait_for(drained, 10) == (200, "drained, 0 connections left\n")
        assert (await running.snapshot())["draining"]
        running.terminate()
        assert (await running.ended())[0] == 0
        for client in (idle, busy, local, late):
            await client.close()


async def test_a_drain_without_an_end_of_the_pod_is_taken_back(model: Upstream, file: Path, http) -> None:
    """Kubelet restarts a model whose liveness probe failed: the hook runs, no SIGTERM follows."""
    async with sidecar(file, model.port, f"--drain-key={KEY}", "--drain-hold=0.5") as running:
        assert await asyncio.wait_for(hook(running, http), 10) == (200, "drained, 0 connections left\n")
        assert (await running.snapshot())["draining"]
        for _ in range(200):
            if not (await running.snapshot())["draining"]:
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("the drain was not taken back")
        client = await Client.connect(running.ingress)
        for _ in range(2):
            reply = await client.ask(get())
            assert (reply.status, reply.header("connection")) == (200, None), "keep-alive as before"
        await client.close()
        assert (await asyncio.wait_for(hook(running, http), 10))[0] == 200, "the next drain is one"


async def test_it_waits_for_those_who_still_come(model: Upstream, file: Path, http) -> None:
    async with sidecar(file, model.port, f"--drain-key={KEY}") as running:
        load = Load(running.ingress, 2)
        await eventually(lambda: load.total > 20)
        drained = hook(running, http)
        await asyncio.sleep(3)
        assert not drained.done()
        await load.stop()
        assert load.errors == []
        assert await asyncio.wait_for(drained, 10) == (200, "drained, 0 connections left\n")


async def test_it_has_an_end(model: Upstream, file: Path, http) -> None:
    async def hang(request, writer) -> None:
        await asyncio.sleep(60)

    model.handle = hang
    async with sidecar(file, model.port, f"--drain-key={KEY}", "--drain-timeout=0.5") as running:
        client = await Client.connect(running.ingress)
        await client.send(post())
        await eventually(lambda: len(model.requests) == 1)
        assert await asyncio.wait_for(hook(running, http), 5) == (200, "drained, 1 connections left\n")
        await client.close()


async def test_sigterm_overtakes_it(model: Upstream, file: Path, http) -> None:
    async def hang(request, writer) -> None:
        await asyncio.sleep(60)

    model.handle = hang
    async with sidecar(file, model.port, f"--drain-key={KEY}", "--drain-timeout=1") as running:
        client = await Client.connect(running.ingress)
        await client.send(post())
        await eventually(lambda: len(model.requests) == 1)
        drained = hook(running, http)
        await asyncio.sleep(0.2)
        running.terminate()
        assert (await asyncio.wait_for(drained, 5))[0] == 200
        assert (await running.ended(5))[0] == 0
        await client.close()


async def test_without_a_hook_services_still_send_after_the_sigterm(model: Upstream, file: Path, http) -> None:
    async with sidecar(file, model.port, f"--drain-key={KEY}") as running:
        running.terminate()
        await eventually_draining(running)
        client = await Client.connect(running.ingress)
        reply = await client.ask(get())
        assert (reply.status, reply.header("connection")) == (200, "close")
        await client.close()
        assert (await running.ended(5))[0] == 0


async def eventually_draining(running) -> None:
    for _ in range(200):
        if (await running.snapshot())["draining"]:
            return
        await asyncio.sleep(0.01)
    pytest.fail("it does not drain")


@pytest.mark.parametrize(("flags", "status"), [((f"--drain-key={KEY}",), 403), ((), 404)])
async def test_strangers_take_no_pod_out(
    model: Upstream, file: Path, http, flags: tuple[str, ...], status: int
) -> None:
    async with sidecar(file, model.port, *flags) as running:
        for key in ("", "guess", KEY[:-1], "\u00e9"):
            assert (await hook(running, http, key))[0] == status
        assert (await running.get("/readyz"))[0] == 200
        async with http.post(f"http://127.0.0.1:{running.admin}/drain") as reply:
            assert reply.status in (404, 405)
