"""The sidecar as a process: its command line, its start, reloads under load, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.relay.harness import (
    Client,
    Upstream,
    answer,
    close_all,
    eventually,
    free_port,
    get,
    listen_raw,
    post,
    revision,
    routing,
)
from tests.relay.process import Load, replace, sidecar, start

FLAGS = {
    "routing": "/nowhere/routing.json",
    "revision": "a",
    "pod": "p",
    "model": "127.0.0.1:1",
    "ingress": "127.0.0.1:0",
    "local": "127.0.0.1:0",
    "admin": "127.0.0.1:0",
}


def flags(**changed: str) -> list[str]:
    return [f"--{name}={value}" for name, value in (FLAGS | changed).items()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "routing.json"
    replace(path, routing(revision("a", 100)))
    return path


async def test_a_port_that_is_taken_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await start(*flags(ingress=f"127.0.0.1:{taken.getsockname()[1]}"))
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"--ingress 127.0.0.1:" in errors
    assert b"Address already in use" in errors
    assert errors.count(b"\n") == 1


async def test_a_routing_file_that_is_wrong_at_the_start_is_one_clear_line(tmp_path):
    path = tmp_path / "routing.json"
    path.write_bytes(b'{"deployment":"d","model":"m","generation":1,"revisions":[]}')
    process = await start(*flags(routing=str(path)))
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.decode() == "coalmine-sidecar: routing file: revisions: weights sum to 0, not to 100\n"


async def test_a_routing_file_that_comes_later(model, tmp_path):
    path = tmp_path / "routing.json"
    async with sidecar(path, model.port) as running:
        assert (await running.get("/readyz"))[0] == 503
        client = await Client.connect(running.ingress)
        assert (await client.ask(get())).status == 503
        replace(path, routing(revision("a", 100)))
        for _ in range(200):
            if (await running.get("/readyz"))[0] == 200:
                break
            await asyncio.sleep(0.01)
        assert (await client.ask(get())).status == 200
        await client.close()


async def test_reloads_under_load_lose_nothing(model, other, file):
    """Weights, endpoints and epochs change many times a second; in between the file is broken."""
    async with sidecar(file, model.port) as running:
        load = Load(running.ingress, 8)
        for generation in range(2, 42):
            weight = generation * 7 % 101
            replace(
                file,
                routing(
                    revision("a", 100 - weight),
                    revision("b", weight, other.port, track="canary"),
                    generation=generation,
                    epoch=str(generation),
                ),
            )
            await asyncio.sleep(0.03)
            if generation % 10 == 0:
                replace(file, b'{"broken": %d' % generation)
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
        await load.stop()
        snapshot = await running.snapshot()
        assert load.errors == []
        assert load.total > 100
        assert set(load.answered) == {"a", "b"}
        assert snapshot["routingErrors"] == 4
        assert snapshot["generation"] == 41 or snapshot["generation"] == 40
        answered = {name: totals["outcomes"] for name, totals in snapshot["totals"].items()}
        assert answered == {name: {"ok": count} for name, count in load.answered.items()}
        running.terminate()
        status, log = await running.ended()
        assert status == 0
        assert log.count("the last good one stays in force") == 4


async def test_a_symbolic_link_two_levels_up_is_noticed(model, tmp_path):
    """How a kubelet projects a Secret: file -> ..data/file, ..data -> a folder with a time stamp."""
    for name, weight in (("one", 100), ("two", 0)):
        (tmp_path / name).mkdir()
        document = routing(revision("a", weight), revision("b", 100 - weight), generation=weight + 1)
        replace(tmp_path / name / "routing.json", document)
    data = tmp_path / "..data"
    data.symlink_to("one")
    path = tmp_path / "routing.json"
    path.symlink_to("..data/routing.json")
    async with sidecar(path, model.port) as running:
        assert (await running.snapshot())["generation"] == 101
        (tmp_path / "fresh").symlink_to("two")
        os.replace(tmp_path / "fresh", data)
        for _ in range(200):
            if (await running.snapshot())["generation"] == 1:
                return
            await asyncio.sleep(0.01)
        pytest.fail("the new file was not noticed")


async def test_ten_thousand_requests_over_three_revisions(model, file):
    """Each share within a point, whoever counts: the client by the header, the models, the sidecar."""
    async with AsyncExitStack() as stack:
        others = [Upstream(), Upstream()]
        for upstream in others:
            await upstream.start()
            stack.push_async_callback(upstream.stop)
        weights = {"a": 70, "b": 25, "c": 5}
        replace(
            file,
            routing(
                revision("a", 70),
                revision("b", 25, others[0].port, track="canary"),
                revision("c", 5, others[1].port, track="canary"),
            ),
        )
        running = await stack.enter_async_context(sidecar(file, model.port))
        answered: Counter[str | None] = Counter()

        async def ask() -> None:
            client = await Client.connect(running.ingress)
            for _ in range(25):
                # Ahead by 50, which is what a test of 10,000 has time for.
                await client.send(post() * 50)
                for _ in range(50):
                    answered[(await client.answer()).revision] += 1
            await client.close()

        await asyncio.gather(*(ask() for _ in range(8)))
        assert sum(answered.values()) == 10_000
        for name, weight in weights.items():
            assert abs(answered[name] / 100 - weight) <= 1
        assert [len(u.requests) for u in (model, *others)] == [answered["a"], answered["b"], answered["c"]]
        epochs = (await running.snapshot())["epochs"][""]
        assert {name: epochs[name]["requests"] for name in weights} == answered


async def test_sigterm_finishes_what_is_under_way(model, file):
    gate = asyncio.Event()

    async def wait(request, writer) -> None:
        await gate.wait()
        writer.write(answer())

    async with sidecar(file, model.port) as running:
        idle = await Client.connect(running.ingress)
        assert (await idle.ask(get())).status == 200
        await asyncio.sleep(1.1)
        model.handle = wait
        busy, local = await Client.connect(running.ingress), await Client.connect(running.local)
        await busy.send(post())
        await local.send(post())
        await eventually(lambda: len(model.requests) == 3)
        running.terminate()
        assert await asyncio.wait_for(idle.rest(), 1) == b"", "idle connections end at once"
        assert (await running.get("/readyz"))[0] == 503
        assert (await running.snapshot())["draining"]
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(running.ingress)
        other_sidecar = await Client.connect(running.local)
        await other_sidecar.send(post())
        await eventually(lambda: len(model.requests) == 4)
        gate.set()
        reply = await busy.answer()
        assert (reply.status, reply.header("connection")) == (200, "close")
        assert (await local.answer()).status == 200
        assert (await other_sidecar.answer()).status == 200
        assert (await running.ended())[0] == 0
        for client in (idle, busy, local, other_sidecar):
            await client.close()


async def test_sigterm_under_load_loses_nothing_where_another_sidecar_shares_the_socket(model, file):
    """The local platform's rolling restart: two sidecars accept from one inherited socket, one ends."""
    shared = socket.socket()
    shared.bind(("127.0.0.1", 0))
    shared.listen(512)
    with shared:
        async with (
            sidecar(file, model.port, ingress=shared) as first,
            sidecar(file, model.port, ingress=shared) as second,
        ):
            load = Load(first.ingress, 8)
            await asyncio.sleep(0.3)
            first.terminate()
            assert (await first.ended())[0] == 0
            before = load.total
            await asyncio.sleep(0.2)
            await load.stop()
            assert load.errors == []
            assert load.total > before
            second.terminate()
            assert (await second.ended())[0] == 0


async def test_connections_wait_in_the_shared_queue_for_the_next_sidecar(model, file):
    shared = socket.socket()
    shared.bind(("127.0.0.1", 0))
    shared.listen(512)
    with shared:
        async with sidecar(file, model.port, ingress=shared) as first:
            first.terminate()
            assert (await first.ended())[0] == 0
            client = await Client.connect(shared.getsockname()[1])
            await client.send(get())
        async with sidecar(file, model.port, ingress=shared):
            assert (await client.answer()).status == 200
            await client.close()


@pytest.mark.parametrize("twice", [False, True])
async def test_the_drain_has_an_end(model, file, twice):
    async def hang(request, writer) -> None:
        await asyncio.sleep(60)

    model.handle = hang
    async with sidecar(file, model.port, "--drain-timeout=30" if twice else "--drain-timeout=0.3") as running:
        client = await Client.connect(running.ingress)
        await client.send(post())
        await eventually(lambda: len(model.requests) == 1)
        running.terminate()
        if twice:
            await asyncio.sleep(0.1)
            running.terminate()
        status, log = await running.ended(5)
        assert status == (1 if twice else 0)
        assert "1 connections cut off, 1 of them with requests" in log
        await client.close()


async def test_a_name_stands_for_the_pods_behind_it(model, file):
    """localhost resolves to what it resolves to; what refuses is left out."""
    replace(file, routing(revision("b", 100) | {"endpoints": [f"localhost:{model.port}"]}))
    async with sidecar(file, free_port()) as running:
        client = await Client.connect(running.ingress)
        for _ in range(100):
            reply = await client.ask(post())
            if reply.status == 200:
                break
            await asyncio.sleep(0.02)
        assert (reply.status, reply.revision) == (200, "b")
        await client.close()


async def test_sigterm_waits_for_a_tunnel(file):
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.close()

    async with sidecar(file, await listen_raw(shout)) as running:
        client = await Client.connect(running.ingress)
        await client.send(get(headers="Connection: upgrade\r\nUpgrade: echo\r\n"))
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        running.terminate()
        await asyncio.sleep(0.3)
        assert running.process.returncode is None
        await client.send(b"still here")
        assert await client.reader.readexactly(10) == b"STILL HERE"
        await client.close()
        assert (await running.ended())[0] == 0
    await close_all()
