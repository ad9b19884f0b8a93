"""A small server of OpenAI's API: says word after word, slowly if asked to, and breaks in the ways that servers do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from aiohttp import web

WORDS = ("Coal", "mines", " had", " canaries", ".")


class OpenAIModel:
    """What is asked for is said by the `model` of a request; see `_KINDS`."""

    #: slow: 50 ms before each word; cut: events in pieces of 7 bytes; tools: a call instead of words; error: instead of
    #: an answer, midway: after two words, refused: with a status of its own; counts: running totals in every event.
    KINDS = ("plain", "slow", "cut", "tools", "error", "client-error", "midway", "refused", "counts", "dies", "early")

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[dict[str, Any]] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "plain", "object": "model"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=True)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, chat=False)

    async def _embeddings(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.seen.append(asked)
        vectors = [{"object": "embedding", "index": i, "embedding": [0.1] * 16} for i in range(len(asked["input"]))]
        return web.json_response(
            {"object": "list", "model": "m", "data": vectors, "usage": {"prompt_tokens": 6, "total_tokens": 6}}
        )

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        asked = await request.json()
        self.seen.append(asked)
        kind = asked["model"]
        if kind == "refused":
            return web.json_response(_error("no such model", 404), status=404)
        if not asked.get("stream"):
            return web.json_response(_whole(kind, chat=chat))
        return await self._stream(request, asked, chat=chat)

    async def _stream(self, request: web.Request, asked: dict[str, Any], *, chat: bool) -> web.StreamResponse:
        kind = asked["model"]
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await reply.prepare(request)

        async def say(event: bytes) -> None:
            pieces = [event[at : at + 7] for at in range(0, len(event), 7)] if kind == "cut" else [event]
            for piece in pieces:
                await reply.write(piece)
                await asyncio.sleep(0)

        if kind in ("error", "client-error"):
            await say(_event(_error("out of memory", 500 if kind == "error" else 400)))
            await say(b"data: [DONE]\n\n")
            return reply
        await say(b": ping\r\n\r\n")
        for number, chunk in enumerate(_chunks(kind, chat=chat)):
            if kind == "midway" and number == 3:
                await say(_event(_error("out of memory", 500)))
                return reply
            if kind == "dies" and number == 3:
                assert request.transport is not None
                request.transport.abort()
                return reply
            if kind == "slow" and number:
                await asyncio.sleep(0.05)
            if kind == "counts":
                chunk["usage"] = {"prompt_tokens": 9, "completion_tokens": number, "total_tokens": 9 + number}
            await say(_event(chunk))
        if (asked.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
            await say(_event(_chunk([], chat=chat) | {"usage": usage}))
        await say(b"data: [DONE]\n\n")
        return reply


def _whole(kind: str, *, chat: bool) -> dict[str, Any]:
    text = "".join(WORDS)
    if kind == "tools":
        message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [_tool()]}
    else:
        message = {"role": "assistant", "content": text}
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "tool_calls" if kind == "tools" else "stop",
        "logprobs": None,
    }
    choice |= {"message": message} if chat else {"text": text}
    return _chunk([choice], chat=chat) | {
        "object": "chat.completion" if chat else "text_completion",
        "usage": {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16},
    }


def _chunks(kind: str, *, chat: bool) -> Iterator[dict[str, Any]]:
    """The first one has no token in it, as most servers' first of a chat."""
    yield _chunk([_choice({"role": "assistant", "content": ""}, "", chat=chat)], chat=chat)
    if kind == "tools":
        yield _chunk([_choice({"tool_calls": [_tool() | {"index": 0}]}, "", chat=chat)], chat=chat)
    else:
        for word in WORDS:
            yield _chunk([_choice({"content": word}, word, chat=chat)], chat=chat)
    end = _choice({}, "", chat=chat) | {"finish_reason": "tool_calls" if kind == "tools" else "length"}
    yield _chunk([end], chat=chat)


def _choice(delta: dict[str, Any], text: str, *, chat: bool) -> dict[str, Any]:
    return {"index": 0, "finish_reason": None} | ({"delta": delta} if chat else {"text": text})


def _chunk(choices: list[dict[str, Any]], *, chat: bool) -> dict[str, Any]:
    return {
        "id": "c-1",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": 1,
        "model": "m",
        "choices": choices,
    }


def _tool() -> dict[str, Any]:
    return {"id": "call-1", "type": "function", "function": {"name": "dig", "arguments": '{"deep":true}'}}


def _error(message: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": code}}


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"
