"""A model server of the standard library alone: Open Inference Protocol v2, with faults on demand. Starts in 0.1 s.

    python v2_model.py --version v1 [--exit-after S] [--exit-code N] [--never-ready] [--slow S] [--score X] [--say TEXT]
                       [--deaf]

`POST /crash` ends it with exit code 3, `POST /hang` stops it from answering, `POST /unready` makes it not ready.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from http import HTTPStatus


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.ready = not options.never_ready
        self.hung = False
        self.paths: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, path, _ = head.split(" ", 2)
                length = next(
                    (
                        int(line.split(":")[1])
                        for line in head.splitlines()
                        if line.lower().startswith("content-length:")
                    ),
                    0,
                )
                await reader.readexactly(length)
                if self.hung:
                    await asyncio.sleep(3600)
                status, body = await self.answer(method, path)
                data = json.dumps(body).encode()
                writer.write(
                    f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(data)}\r\n\r\n".encode()
                    + data
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, method: str, path: str) -> tuple[int, object]:
        if path == "/crash":
            print("told to crash", flush=True)
            os._exit(3)
        if path == "/hang":
            self.hung = True
        if path == "/unready":
            self.ready = False
        if path.endswith("/ready") or path == "/custom-ready":
            return (200 if self.ready else 503), {"ready": self.ready}
        if path.endswith("/infer"):
            await asyncio.sleep(self.options.slow)
            score = {"name": "score", "datatype": "FP64", "shape": [1], "data": [self.options.score]}
            return 200, {
                "model_name": "m",
                "model_version": self.options.version,
                "parameters": {"pid": os.getpid(), "cwd": os.getcwd(), "colour": os.environ.get("COLOUR", "")},
                "outputs": [score],
            }
        return (200 if method == "POST" else 404), {}


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", default="v1")
    parser.add_argument("--exit-after", type=float)
    parser.add_argument("--exit-code", type=int, default=1)
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--score", type=float, default=0.25)
    parser.add_argument("--say", default="")
    parser.add_argument("--deaf", action="store_true", help="ignore SIGTERM")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "0")))
    options = parser.parse_args()
    if options.say:
        print(options.say, flush=True)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if options.deaf else (lambda: sys.exit(0)))
    if options.exit_after is not None:
        await asyncio.sleep(options.exit_after)
        sys.exit(options.exit_code)
    server = await asyncio.start_server(Server(options).serve, "127.0.0.1", options.port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
