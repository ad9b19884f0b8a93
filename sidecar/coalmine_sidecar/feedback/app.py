"""Feedback over HTTP: POST of JSON, on whatever path it is handed on from."""

from __future__ import annotations

import logging
from typing import Final, Protocol

import msgspec
from aiohttp.http_exceptions import HttpProcessingError

from ..lean import web
from .counts import FeedbackCounts
from .hops import HOP_HEADER
from .reading import MAX_BODY, MAX_HOP_BODY
from .result import Result

#: Posts that are read at a time, and those of other pods; more are turned away, and told when to come again.
MAX_POSTS: Final = 8
MAX_HOPS: Final = 16


class _OneLine(logging.Filter):
    """aiohttp logs a traceback for each request that it cannot read: clients are not to fill logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            if isinstance(error, HttpProcessingError):
                return False
            record.msg = f"{record.getMessage()}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            record.args, record.exc_info = (), None
        return True


_log: Final = logging.getLogger(f"{__name__}.http")
_log.addFilter(_OneLine())


class TakesFeedback(Protocol):
    """A Joiner, or who stands before it."""

    @property
    def counts(self) -> FeedbackCounts: ...

    async def feedback(self, body: bytes, *, hop: bool = False) -> Result: ...


def make_feedback_runner(joiner: TakesFeedback) -> web.AppRunner:
    """Serves feedback on a socket of its own. Answers are JSON: see Result, or {"error": one line}.

    Bodies are not unpacked: aiohttp tells of a broken one with a traceback.
    """
    return web.AppRunner(make_feedback_app(joiner), access_log=None, auto_decompress=False, logger=_log)


def make_feedback_app(joiner: TakesFeedback) -> web.Application:
    """See make_feedback_runner."""
    posts = {True: 0, False: 0}

    async def post(request: web.Request) -> web.Response:
        if request.method != "POST":
            return _error(405, f"{request.method} is not for feedback: use POST", Allow="POST")
        encoding = request.headers.get("Content-Encoding", "identity")[:80]
        if request.content_type != "application/json" or encoding != "identity":
            joiner.counts.outcomes["malformed"] += 1
            what = request.content_type[:80] if encoding == "identity" else f"Content-Encoding {encoding}"
            return _error(415, f"{what} is not read: send application/json as it is")
        hop = request.headers.get(HOP_HEADER) == "1"
        if posts[hop] >= (MAX_HOPS if hop else MAX_POSTS):
            joiner.counts.outcomes["busy"] += 1
            return _error(503, f"{posts[hop]} posts are being read: send it again", **{"Retry-After": "1"})
        posts[hop] += 1
        try:
            return await take(request, hop)
        finally:
            posts[hop] -= 1

    async def take(request: web.Request, hop: bool) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            joiner.counts.outcomes["too_many"] += 1
            return _error(413, f"the body is over {MAX_BODY} bytes: send several posts")
        except (OSError, web.RequestPayloadError):
            joiner.counts.outcomes["malformed"] += 1
            return _error(400, "the body broke off: send it again")
        return _answer(await joiner.feedback(body, hop=hop))

    app = web.Application(client_max_size=MAX_HOP_BODY)
    app.router.add_route("*", "/{path:.*}", post)
    return app


def _answer(result: Result) -> web.Response:
    headers = {"Retry-After": "1"} if result.status == 503 else None
    return web.Response(status=result.status, body=result.body(), content_type="application/json", headers=headers)


def _error(status: int, line: str, **headers: str) -> web.Response:
    body = msgspec.json.encode({"error": line})
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
