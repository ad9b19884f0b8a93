"""A relay in this process, a scriptable upstream that may misbehave, and clients that write bytes."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from coalmine_sidecar.contract import Routing
from coalmine_sidecar.observe.observer import Observer
from coalmine_sidecar.relay.endpoints import Endpoint
from coalmine_sidecar.relay.front import Front
from coalmine_sidecar.relay.relay import Relay
from coalmine_sidecar.telemetry import Series, Telemetry

V2 = b'{"model_name":"m","outputs":[{"name":"score","shape":[1],"datatype":"FP64","data":[0.25]}]}'


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def revision(name: str, weight: int = 0, *ports: int, track: str = "stable") -> dict[str, Any]:
    endpoints = [f"127.0.0.1:{port}" for port in ports]
    return {"name": name, "version": name, "track": track, "weight": weight, "endpoints": endpoints}


def routing(*revisions: dict[str, Any], **more: Any) -> Routing:
    """A routing file; short limits where a test has to wait for them."""
    document = {"deployment": "d", "model": "m", "generation": 1, "revisions": revisions} | more
    return msgspec.convert(json.loads(json.dumps(document)), Routing)


# Upstream


#: What every request and every answer gets from the ingress; test_trace.py has an eye on them.
IDENTITY = ("traceparent", "tracestate", "x-request-id")


@dataclass
class Request:
    """`headers` without those of IDENTITY, which are in `identity`."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    identity: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def names(self) -> list[str]:
        return [key for key, _ in self.headers]


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes = V2, *, status: str = "200 OK", headers: str = "content-type: application/json\r\n") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


async def well(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(answer())


def says(data: bytes) -> Handler:
    async def handle(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return handle


async def reset(_: Request, writer: asyncio.StreamWriter) -> None:
    """The read request goes unanswered; the connection ends."""
    writer.transport.abort()


async def silent(_: Request, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


class Upstream:
    """An HTTP server on raw streams: `handle` writes whatever bytes it likes, or none."""

    def __init__(self, handle: Handler = well) -> None:
        self.handle = handle
        self.requests: list[Request] = []
        self.connections = 0
        self.open = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(
        self, port: int = 0, *, sock: socket.socket | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """On a port, or on a socket that listens already."""
        where = {"sock": sock} if sock else {"host": "127.0.0.1", "port": port}
        self._server = await asyncio.start_server(self._serve, ssl=tls, **where)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop_connections(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        self.open += 1
        try:
            while (request := await read_request(reader)) is not None:
                self.requests.append(request)
                await self.handle(request, writer)
                if writer.is_closing():
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()


async def listen_raw(handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> int:
    """A server for what `Upstream` reads too well for: its port. Ended with the test."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        OPEN.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    SERVERS.append(server)
    return int(server.sockets[0].getsockname()[1])


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, headers = parse_head(head)
    method, target, _ = first.split(" ")
    headers, identity = part(headers)
    return Request(method, target, headers, await read_body(reader, headers, to_eof=False), identity)


def without_identity(head: bytes) -> bytes:
    """Bytes of a message but its lines of IDENTITY."""
    return re.sub(rb"(?im)^(?:%b): .*\r\n" % "|".join(IDENTITY).encode(), b"", head)


def part(headers: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Headers without those of IDENTITY, and those."""
    identity = [header for header in headers if header[0].lower() in IDENTITY]
    return [header for header in headers if header not in identity], identity


def parse_head(head: str) -> tuple[str, list[tuple[str, str]]]:
    first, *lines = head[:-4].split("\r\n")
    return first, [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


async def read_body(reader: asyncio.StreamReader, headers: list[tuple[str, str]], *, to_eof: bool) -> bytes:
    fields = {name.lower(): value for name, value in headers}
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body
    return await reader.read(-1) if to_eof else b""


# Client

#: What a test opened and perhaps left open; ended with the test.
OPEN: list[asyncio.StreamWriter] = []
SERVERS: list[asyncio.Server] = []


async def close_all() -> None:
    while SERVERS:
        SERVERS.pop().close()
    for writer in OPEN:
        writer.transport.abort()
    await asyncio.sleep(0.01)
    OPEN.clear()


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    identity: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def revision(self) -> str | None:
        return self.header("coalmine-revision")

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext | None = None, server_name: str | None = None) -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=server_name))
        OPEN.append(client.writer)
        return client

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer; `method` is that of its request."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, headers = parse_head(head)
        status = int(first.split(" ")[1])
        bodyless = method == "HEAD" or status in (204, 304) or status < 200
        headers, identity = part(headers)
        body = b"" if bodyless else await read_body(self.reader, headers, to_eof=True)
        return Answer(status, headers, body, identity)

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer(data.split(b" ", 1)[0].decode())

    async def rest(self) -> bytes:
        """What comes until the connection ends, by whatever end."""
        data = b""
        with suppress(ConnectionError):
            while piece := await self.reader.read(65536):
                data += piece
        return data

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


async def ask(port: int, data: bytes) -> Answer:
    """One request on a connection of its own."""
    client = await Client.connect(port)
    try:
        return await client.ask(data)
    finally:
        await client.close()


def get(path: str = "/", headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: m\r\n{headers}\r\n".encode()


def post(body: bytes = b"{}", path: str = "/v2/models/m/infer", headers: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: m\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def chunked(*pieces: bytes, path: str = "/v2/models/m/infer") -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return f"POST {path} HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


# The relay


class Pod:
    """One sidecar's relay on free ports in this process, its model at `model_port`."""

    def __init__(
        self, model_port: int, document: Routing | None = None, *, revision: str = "a", **options: Any
    ) -> None:
        self.telemetry = Telemetry(pod="p", revision=revision)
        self.document = document
        self.model_port = model_port
        self.revision = revision
        self.options = options
        self.relay: Relay
        self.ingress = 0
        self.local = 0
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for one in (self.options.get("model_tls"), self.options.get("peers_tls")):
            if one is not None:
                one.poll()
        observer = Observer(self.telemetry, schedule=loop.call_soon, share=1.0)
        model = ("127.0.0.1", self.model_port)
        self.relay = Relay(self.telemetry, observer, revision=self.revision, model=model, **self.options)
        self.local = await self._listen(self.relay.local)
        self.ingress = await self._listen(self.relay.ingress)
        self.relay.own_addresses = frozenset({("127.0.0.1", self.local)})
        if self.document is not None:
            self.relay.use(self.document)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        self.relay.close()
        await asyncio.sleep(0.01)

    async def ask(self, data: bytes, port: int = 0) -> Answer:
        """One request on a connection of its own."""
        client = await Client.connect(port or self.ingress)
        try:
            return await client.ask(data)
        finally:
            await client.close()

    def series(self, name: str = "a", role: str = "ingress") -> Series:
        return self.telemetry.series(name, role)

    def outcomes(self, name: str = "a", role: str = "ingress") -> dict[str, int]:
        return self.series(name, role).outcomes()

    def endpoints(self) -> list[Endpoint]:
        found = [self.relay._model, *self.relay._book._endpoints.values()]
        return [*found, *(endpoint.twin for endpoint in found if endpoint.twin is not None)]

    async def _listen(self, front: Front) -> int:
        server = await asyncio.get_running_loop().create_server(front.accept, "127.0.0.1", 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])


async def eventually(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something holds that another process or callback brings about."""
    for _ in range(int(seconds / 0.005)):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("did not come true in time")
