"""A door into the node's network: relays connections of a listening socket made outside to an address inside.

    python -m tests.cluster.lab.gate FD HOST PORT

A socket stays in the network namespace it was made in, so this process listens on the machine's loopback and connects
as the node does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys


def gate_command(listening: int, host: str, port: int) -> list[str]:
    """The command line of a gate; its process must inherit the socket `listening` and find this package."""
    return [sys.executable, "-m", "tests.cluster.lab.gate", str(listening), host, str(port)]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on one direction until its end; a broken connection is an end."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def serve(listening: socket.socket, host: str, port: int) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
            with contextlib.closing(inner_writer):
                await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

    server = await asyncio.start_server(relay, sock=listening)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], int(sys.argv[3])))
