"""The two gRPC proxies everyone writes, for the bench: `h2` the library, and grpcio's generic handlers on asyncio.

They pass unary calls on and nothing else: no routing, no counters, no fallback, no bounds. What they cost is the least
that they can cost.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop


async def serve_grpcio(port: int, model: int) -> None:
    import grpc
    import grpc.aio

    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{model}", options=options)

    class Pass(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            method = channel.unary_unary(details.method)

            async def handle(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
                metadata = [pair for pair in context.invocation_metadata() if not pair[0].startswith("grpc-")]
                call = method(request, metadata=metadata, timeout=context.time_remaining())
                try:
                    answer = await call
                except grpc.aio.AioRpcError as error:
                    await context.abort(error.code(), error.details(), error.trailing_metadata())
                context.set_trailing_metadata(tuple(await call.trailing_metadata()))
                return answer

            return grpc.unary_unary_rpc_method_handler(handle)

    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((Pass(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def serve_h2(port: int, model: int) -> None:
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded, TrailersReceived

    class Side(asyncio.Protocol):
        """One connection; `other` is the other side's, streams are told apart by `numbers`."""

        def __init__(self, *, client: bool) -> None:
            self.client = client
            config = H2Configuration(client_side=client, header_encoding=False, validate_inbound_headers=True)
            self.h2 = H2Connection(config)
            self.h2.initiate_connection()
            self.h2.increment_flow_control_window(1 << 22)
            self.numbers: dict[int, int] = {}
            self.dirty = False
            self.transport: asyncio.BaseTransport | None = None
            self.other: Side

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.flush()

        def later(self) -> None:
            if not self.dirty:
                self.dirty = True
                asyncio.get_running_loop().call_soon(self.flush)

        def flush(self) -> None:
            self.dirty = False
            if self.transport is not None and (data := self.h2.data_to_send()):
                self.transport.write(data)

        def data_received(self, data: bytes) -> None:
            other = self.other
            for event in self.h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    number = other.h2.get_next_available_stream_id()
                    self.numbers[event.stream_id], other.numbers[number] = number, event.stream_id
                    other.h2.send_headers(number, event.headers)
                elif isinstance(event, ResponseReceived):
                    other.h2.send_headers(self.numbers[event.stream_id], event.headers)
                elif isinstance(event, TrailersReceived):
                    other.h2.send_headers(self.numbers[event.stream_id], event.headers, end_stream=True)
                elif isinstance(event, DataReceived):
                    end = event.stream_ended is not None and not self.client
                    other.h2.send_data(self.numbers[event.stream_id], event.data, end_stream=end)
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded) and self.client:
                    del other.numbers[self.numbers.pop(event.stream_id)]
            self.later()
            other.later()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        # One connection to the model for each client's, so that all of its calls share one as ours do.
        tasks = set()

        def accept() -> Side:
            near, far = Side(client=False), Side(client=True)
            near.other, far.other = far, near
            tasks.add(loop.create_task(loop.create_connection(lambda: far, "127.0.0.1", model)))
            return near

        server = await loop.create_server(accept, "127.0.0.1", port)
        await server.serve_forever()

    await main()


if __name__ == "__main__":
    which, port, model = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    uvloop.run({"h2": serve_h2, "grpcio": serve_grpcio}[which](port, model))
