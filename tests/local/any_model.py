"""A model server of formats of their own, of the standard library alone; a score is a hundredth of the first feature.

Plain JSON at /predict, Seldon's at /api/v1.0/predictions, CSV at /invocations. Listens on PORT.
"""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply("application/json", b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/predict":
            self.reply("application/json", json.dumps({"risk": json.loads(body)["age"] / 100}).encode())
        elif self.path == "/invocations":
            ages = [int(line.split(b",")[0]) for line in body.splitlines()]
            self.reply("text/csv", "".join(f"{age / 100}\n" for age in ages).encode())
        else:
            rows = [[row[0] / 100] for row in json.loads(body)["data"]["ndarray"]]
            self.reply("application/json", json.dumps({"data": {"names": ["risk"], "ndarray": rows}}).encode())

    def reply(self, content_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
