"""A gRPC model server on grpcio, without generated code: in this process, or as one of its own that can be killed.

Methods of any service: `Echo` unary, `Collect` (client streams), `Count` (server streams), `Chat` (both stream), `Fail`
(aborts with the status in the metadata), `Hang` (never answers), and the Open Inference Protocol's `ModelInfer`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

INFER = "/inference.GRPCInferenceService/ModelInfer"
LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def field(number: int, value: bytes | int) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, datatype: str, shape: list[int], contents: bytes = b"") -> bytes:
    """An InferOutputTensor; `contents` an InferTensorContents."""
    parts = [field(1, name.encode()), field(2, datatype.encode()), field(3, b"".join(map(varint, shape)))]
    return b"".join(parts) + (field(5, contents) if contents else b"")


def infer_response(*tensors: bytes, raw: tuple[bytes, ...] = ()) -> bytes:
    outputs = b"".join(field(5, one) for one in tensors) + b"".join(field(6, one) for one in raw)
    return field(1, b"m") + field(2, b"1") + outputs


SCORE = infer_response(tensor("score", "FP64", [1]), raw=(b"\0\0\0\0\0\0\xd0\x3f",))  # 0.25


class Model(grpc.GenericRpcHandler):
    """`name` comes back in the metadata; `seen` are the metadata of each call."""

    def __init__(self, name: str = "m", answer: bytes = SCORE) -> None:
        self.name = name
        self.answer = answer
        self.seen: list[dict[str, str | bytes]] = []
        self.paths: list[str] = []
        self.cancelled = 0
        self.received = 0
        #: grpc-status and message of every answer; 0: the model is well.
        self.failing: tuple[int, str] = (0, "")
        self.port = 0
        self.server: grpc.aio.Server

    async def start(self, port: int = 0, tls: grpc.ServerCredentials | None = None) -> None:
        self.server = grpc.aio.server(options=LARGE)
        self.server.add_generic_rpc_handlers((self,))
        address = f"127.0.0.1:{port}"
        self.port = self.server.add_secure_port(address, tls) if tls else self.server.add_insecure_port(address)
        await self.server.start()

    async def stop(self, grace: float | None = None) -> None:
        await self.server.stop(grace)

    def service(self, details: Any) -> Any:
        self.paths.append(details.method)
        self.seen.append(dict(details.invocation_metadata))
        method = details.method.rpartition("/")[2]
        return {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Hang": grpc.unary_unary_rpc_method_handler(self.hang),
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.infer),
        }.get(method)

    async def _begin(self, context: grpc.aio.ServicerContext) -> None:
        code, message = self.failing
        if code:
            context.set_trailing_metadata((("why", message),))
            await context.abort(next(status for status in grpc.StatusCode if status.value[0] == code), message)
        context.set_trailing_metadata((("name", self.name), ("end-bin", b"\x00\xff")))

    async def echo(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await self._begin(context)
        self.received += len(request)
        return request

    async def infer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await self._begin(context)
        return self.answer

    async def collect(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
        await self._begin(context)
        return b"".join([request async for request in requests])

    async def count(self, request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        await self._begin(context)
        try:
            for number in range(int(request)):
                yield b"%d" % number
                await asyncio.sleep(0)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def chat(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        await self._begin(context)
        async for request in requests:
            yield b"re: " + request

    async def hang(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return request


async def serve(name: str, port: int) -> None:
    model = Model(name)
    await model.start(port)
    print(model.port, flush=True)
    await model.server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
