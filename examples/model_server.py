"""A small model server: what scikit-learn has fitted, behind the Open Inference Protocol (v2).

Environment: `PORT`, `MODEL_NAME`, and `MODEL_VERSION`, which also says what is served:

- v1: logistic regression on ten measurements;
- v2: gradient boosting on all thirty, better;
- v3: v2 whose feature scaling was forgotten: fast, HTTP 200, wrong;
- v4: v2's answers, each 0.3 s late.

`GET /v2/health/live` answers at once, `/v2/health/ready` answers 200 when the model is loaded. SIGTERM ends the server
after the requests in flight.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Many small requests, one row each: threads inside numpy only cost.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
# Run as a script, Python looks for modules beside it, not in the project's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvloop
from aiohttp import web
from examples import protocol

if TYPE_CHECKING:
    from examples.fitted import Fitted

#: version -> (trained model, is scaling forgotten, seconds that each answer is late)
VARIANTS = {"v1": ("v1", False, 0.0), "v2": ("v2", False, 0.0), "v3": ("v2", True, 0.0), "v4": ("v2", False, 0.3)}
FEATURES = 30


class Server:
    """One model, loaded in the background."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.source, self.forget_scaling, self.late = VARIANTS[version]
        self.model: Fitted | None = None

    def app(self) -> web.Application:
        app = web.Application(middlewares=[errors_as_json])
        app.add_routes([web.get("/v2/health/live", self.live), web.get("/v2/health/ready", self.ready)])
        for base in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            app.add_routes(
                [
                    web.get(base, self.metadata),
                    web.get(base + "/ready", self.ready),
                    web.post(base + "/infer", self.infer),
                ]
            )
        app.cleanup_ctx.append(self._loading)
        return app

    async def _loading(self, app: web.Application) -> Any:
        task = asyncio.create_task(asyncio.to_thread(self._load))
        # A server that can't load its model must not stay around, alive and never ready.
        task.add_done_callback(lambda t: None if t.cancelled() or t.exception() is None else _die(t.exception()))
        yield
        task.cancel()

    def _load(self) -> None:
        from examples.train import load_model

        self.model = load_model(self.source)

    def _check(self, request: web.Request) -> None:
        name, version = request.match_info.get("name", self.name), request.match_info.get("version", self.version)
        if name != self.name:
            raise web.HTTPNotFound(text=f"model {name!r} is not served here, {self.name!r} is")
        if version != self.version:
            raise web.HTTPNotFound(text=f"version {version!r} of {name!r} is not served here, {self.version!r} is")

    def _loaded(self) -> Fitted:
        if self.model is None:
            raise web.HTTPServiceUnavailable(text=f"{self.name} {self.version} is still loading")
        return self.model

    async def live(self, _: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def ready(self, request: web.Request) -> web.Response:
        self._check(request)
        self._loaded()
        return web.json_response({"ready": True})

    async def metadata(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.json_response(protocol.metadata(self.name, self.version, FEATURES))

    async def infer(self, request: web.Request) -> web.Response:
        self._check(request)
        model = self._loaded()
        if "Inference-Header-Content-Length" in request.headers:
            raise web.HTTPBadRequest(text="binary tensors are not read here: send `data` as JSON")
        try:
            rows, request_id, wanted = protocol.read_request(await request.read(), FEATURES)
        except protocol.ProtocolError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        probability = model.probability(rows, forget_scaling=self.forget_scaling)
        if self.late:
            await asyncio.sleep(self.late)
        return web.json_response(protocol.write_answer(self.name, self.version, request_id, probability, wanted))


@web.middleware
async def errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    """The protocol's errors are `{"error": "…"}`."""
    try:
        answer: web.StreamResponse = await handler(request)
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return web.json_response({"error": error.text or error.reason}, status=error.status, headers=headers)
    return answer


def _die(error: BaseException | None) -> None:
    print(f"the model could not be loaded: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    version = os.environ.get("MODEL_VERSION", "v1")
    if version not in VARIANTS:
        sys.exit(f"MODEL_VERSION: {version!r} is none of {', '.join(VARIANTS)}")
    server = Server(os.environ.get("MODEL_NAME", "breast-cancer"), version)
    web.run_app(
        server.app(),
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "8080")),
        access_log=None,
        loop=uvloop.new_event_loop(),
        shutdown_timeout=10,
        print=lambda _: print(f"{server.name} {version} listens", flush=True),
    )


if __name__ == "__main__":
    main()
