"""Clients of gRPC: grpcio's in few words, and one that writes frames."""

from __future__ import annotations

import struct

import grpc.aio
from hpack import Encoder
from tests.relay.harness import Client, revision, routing

from coalmine_sidecar.relay.h2 import frames


def request(method: str = "/any.Service/Echo") -> list[tuple[str, str]]:
    """The fields of a call's head."""
    first = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "m")]
    return [*first, ("te", "trailers"), ("content-type", "application/grpc")]


REQUEST = request()


def one(*ports: int, **more):
    return routing(revision("a", 100, *ports), **more)


def unary(channel: grpc.aio.Channel, method: str = "/any.Service/Echo"):
    return channel.unary_unary(method)


async def answered_by(call) -> str:
    return dict(await call.initial_metadata())["coalmine-revision"]


class Raw:
    """A client that writes frames."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.encoder = Encoder()

    @classmethod
    async def connect(cls, port: int, preface: bytes = frames.PREFACE + frames.settings({})) -> Raw:
        raw = cls(await Client.connect(port))
        raw.send(preface)
        return raw

    def send(self, data: bytes) -> None:
        self.client.writer.write(data)

    def open(self, stream: int, fields: list[tuple[str, str]] = REQUEST) -> None:
        """A call whose messages are still to come."""
        self.send(frames.headers(self.encoder.encode(fields), 0, stream, 16384))

    def call(self, stream: int, fields: list[tuple[str, str]] = REQUEST) -> None:
        """A call with one empty message."""
        self.open(stream, fields)
        self.send(frames.frame(frames.DATA, frames.END_STREAM, stream, bytes(5)))

    async def frame(self) -> tuple[int, int, int, bytes]:
        head = await self.client.reader.readexactly(frames.HEAD_SIZE)
        high, low, kind, flags, stream = frames.HEAD.unpack(head)
        return kind, flags, stream, await self.client.reader.readexactly(high << 16 | low)

    async def until(self, wanted: int) -> tuple[int, bytes]:
        """Flags and payload of the next frame of a kind."""
        while True:
            kind, flags, _, payload = await self.frame()
            if kind == wanted:
                return flags, payload

    async def goodbye(self) -> int:
        """The error code of the GOAWAY that comes."""
        return struct.unpack(">LL", (await self.until(frames.GOAWAY))[1][:8])[1]
