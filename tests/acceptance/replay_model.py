"""A model server that gives the scores it is sent: recorded predictions, replayed through the Open Inference Protocol.

`python replay_model.py OUTPUT...`: each input tensor of such a name is an output of the answer; all others are ignored.
`FAILS=N` in its environment: each Nth request is answered with 503.
"""

from __future__ import annotations

import itertools
import json
import os
import sys

from aiohttp import web

_numbers = itertools.count(1)
_fails = int(os.environ.get("FAILS", "0"))


async def infer(request: web.Request) -> web.Response:
    if _fails and next(_numbers) % _fails == 0:
        return web.json_response({"error": "told to fail"}, status=503)
    document = json.loads(await request.read())
    outputs = [tensor for tensor in document["inputs"] if tensor["name"] in sys.argv[1:]]
    return web.json_response({"model_name": "replay", "outputs": outputs})


async def ready(_: web.Request) -> web.Response:
    return web.Response()


def main() -> None:
    app = web.Application(client_max_size=16 << 20)
    app.router.add_post("/v2/models/replay/infer", infer)
    app.router.add_get("/v2/health/ready", ready)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None, access_log=None)


if __name__ == "__main__":
    main()
