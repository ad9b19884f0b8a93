"""What is under way when a pod is told to end, by its hook or by SIGTERM: it ends by itself, or is cut off at last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from tests.relay.harness import Client, close_all, eventually, listen_raw, revision, routing
from tests.relay.process import Sidecar, replace, sidecar
from tests.relay.test_drain import eventually_draining

KEY = "not-for-strangers"
KINDS = ("unary", "upload", "sse", "websocket")

Go = Callable[[], Awaitable[None]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "routing.json"
    # Nothing is held back: an upload is on its way to the model.
    replace(path, routing(revision("a", 100), limits={"replayBytes": 10}))
    return path


class Model:
    """Answers each kind in its own time: `go` lets those end that wait."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.met: list[str] = []
        self.uploaded = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        kind = head.split(b" ", 2)[1][1:].decode()
        self.met.append(kind)
        match kind:
            case "unary":
                await self.go.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
            case "upload":
                self.uploaded = len(await reader.readexactly(100_000))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
            case "sse":
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for token in (b"one", b"two", b"done"):
                    writer.write(b"%x\r\n%s\r\n" % (len(token), token))
                    await self.go.wait()
                writer.write(b"0\r\n\r\n")
            case "websocket":
                writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                while data := await reader.read(100):
                    writer.write(data.upper())
                writer.close()


class UnderWay:
    """A client of one kind in the middle of it; `finish` is what it does to come to its end, and what it then has."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.client: Client

    async def begin(self, port: int) -> None:
        self.client = await Client.connect(port)
        head = f"POST /{self.kind} HTTP/1.1\r\nHost: m\r\n"
        match self.kind:
            case "upload":
                await self.client.send(f"{head}Content-Length: 100000\r\n\r\n".encode() + b"x" * 50_000)
            case "websocket":
                await self.client.send(
                    b"GET /websocket HTTP/1.1\r\nHost: m\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                )
                await self.client.reader.readuntil(b"\r\n\r\n")
            case _:
                await self.client.send(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())

    async def finish(self) -> bytes:
        match self.kind:
            case "upload":
                await self.client.send(b"x" * 50_000)
            case "websocket":
                await self.client.send(b"done")
                said = await self.client.reader.readexactly(4)
                self.client.writer.write_eof()
                return said.lower() + await self.client.rest()
        reply = await self.client.answer()
        assert (reply.status, reply.header("connection")) == (200, None if self.kind == "sse" else "close")
        return reply.body


async def hooked(running: Sidecar) -> str:
    """What kubelet asks before it ends the model."""
    url = f"http://127.0.0.1:{running.admin}/drain"
    async with aiohttp.ClientSession() as http, http.get(url, headers={"Coalmine-Drain-Key": KEY}) as reply:
        assert reply.status == 200
        return await reply.text()


@pytest.mark.parametrize("by", ["hook", "signal"])
async def test_all_of_it_ends_by_itself(file: Path, by: str) -> None:
    model = Model()
    async with sidecar(file, await listen_raw(model.serve), f"--drain-key={KEY}") as running:
        under_way = [UnderWay(kind) for kind in KINDS]
        for one in under_way:
            await one.begin(running.ingress)
        await eventually(lambda: len(model.met) == len(KINDS))
        drained = asyncio.create_task(hooked(running)) if by == "hook" else None
        if drained is None:
            running.terminate()
        await eventually_draining(running)
        ready = (await running.get("/readyz"))[0]
        # A hook leaves the pod ready on purpose: see admin.py.
        assert ready == (200 if by == "hook" else 503)
        await asyncio.sleep(2.5)
        assert running.process.returncode is None
        assert drained is None or not drained.done()
        model.go.set()
        assert [(await one.finish()).removeprefix(b"onetwo") for one in under_way] == [b"done"] * len(KINDS)
        assert model.uploaded == 100_000
        if drained is not None:
            assert await asyncio.wait_for(drained, 10) == "drained, 0 connections left\n"
            running.terminate()
        status, log = await running.ended()
        assert (status, "cut off" in log) == (0, False)
    await close_all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("twice", [False, True])
async def test_what_does_not_end_is_cut_off(file: Path, kind: str, twice: bool) -> None:
    """By the end of the grace period, or by a second SIGTERM at once; and the client sees it broken."""
    model = Model()
    async with sidecar(file, await listen_raw(model.serve), f"--drain-timeout={60 if twice else 0.5}") as running:
        one = UnderWay(kind)
        await one.begin(running.ingress)
        await eventually(lambda: model.met)
        running.terminate()
        if twice:
            await eventually_draining(running)
            running.terminate()
        status, log = await running.ended(10)
        assert (status, "1 connections cut off" in log) == (1 if twice else 0, True)
        assert not (await one.client.rest()).endswith(b"done")
    await close_all()
