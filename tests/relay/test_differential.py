"""Whatever is sent, and in whatever pieces: the model gets it as it was, and the client the model's answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.relay.harness import Client, Pod, Request, Upstream, close_all, revision, routing

LIMITS = {"replayBytes": 2000}
TOKEN = st.text("abcXYZ019-_", min_size=1, max_size=12)
SIZES = st.one_of(st.integers(0, 40), st.integers(0, 9000))


@dataclass
class Spec:
    """One request and the answer the model is to give."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    chunks: list[int] | None
    status: int
    reply: bytes
    reply_chunks: list[int] | None

    def bytes(self) -> bytes:
        lines = [
            f"{self.method} {self.target} HTTP/1.1",
            "Host: m",
            *(f"x-{name}: {value}" for name, value in self.headers),
        ]
        if self.chunks is not None:
            lines.append("Transfer-Encoding: chunked")
        elif self.body or self.method not in ("GET", "HEAD"):
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + framed(self.body, self.chunks)

    @property
    def bodyless(self) -> bool:
        return self.method == "HEAD" or self.status in (204, 304)


def framed(body: bytes, chunks: list[int] | None) -> bytes:
    if chunks is None:
        return body
    framed = b""
    for size in [*chunks, len(body)]:
        piece, body = body[:size], body[size:]
        if piece:
            framed += b"%X\r\n%b\r\n" % (len(piece), piece)
    return framed + b"0\r\n\r\n"


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    chunks = st.none() | st.lists(st.integers(1, 3000), max_size=5)
    method = draw(st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]))
    fill = draw(st.integers(0, 255))
    size, reply = draw(SIZES), draw(SIZES)
    return Spec(
        method=method,
        target="/" + draw(st.text("az/09.%~:?=&;,", max_size=30)).replace("%", "%41"),
        headers=draw(st.lists(st.tuples(TOKEN, TOKEN), max_size=4)),
        body=bytes((fill + i) % 256 for i in range(size)),
        chunks=draw(chunks),
        status=draw(st.sampled_from([200, 201, 204, 304, 400, 404, 500])),
        reply=bytes((fill - i) % 256 for i in range(reply)),
        reply_chunks=draw(chunks),
    )


async def run(wanted: list[Spec], cuts: list[int], ahead: bool) -> None:
    pending = list(wanted)

    async def reply(_: Request, writer: asyncio.StreamWriter) -> None:
        spec = pending.pop(0)
        head = f"HTTP/1.1 {spec.status} X\r\nx-status: {spec.status}\r\n"
        if spec.bodyless:
            writer.write(f"{head}\r\n".encode())
            return
        framing = f"Content-Length: {len(spec.reply)}" if spec.reply_chunks is None else "Transfer-Encoding: chunked"
        writer.write(f"{head}{framing}\r\n\r\n".encode() + framed(spec.reply, spec.reply_chunks))

    model = Upstream(reply)
    await model.start()
    pod = Pod(model.port, routing(revision("a", 100), limits=LIMITS))
    await pod.start()
    client = await Client.connect(pod.ingress)

    async def send(data: bytes) -> None:
        for cut in cuts:
            await client.send(data[:cut])
            data = data[cut:]
            await asyncio.sleep(0)
        await client.send(data)

    async def check(spec: Spec) -> None:
        answer = await client.answer(spec.method)
        assert answer.status == spec.status
        assert answer.header("x-status") == str(spec.status)
        assert answer.body == (b"" if spec.bodyless else spec.reply)

    if ahead:
        await send(b"".join(spec.bytes() for spec in wanted))
        for spec in wanted:
            await check(spec)
    else:
        for spec in wanted:
            await send(spec.bytes())
            await check(spec)
    assert [(r.method, r.target, r.body) for r in model.requests] == [(s.method, s.target, s.body) for s in wanted]
    for seen, spec in zip(model.requests, wanted, strict=True):
        assert [(n, v) for n, v in seen.headers if n.startswith("x-")] == [(f"x-{n}", v) for n, v in spec.headers]
    assert pod.series().in_flight == 0
    await close_all()
    await pod.stop()
    await model.stop()


@given(st.lists(specs(), min_size=1, max_size=5), st.lists(st.integers(1, 400), max_size=6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_requests_and_answers_arrive_as_they_were(wanted, cuts, ahead):
    uvloop.run(asyncio.wait_for(run(wanted, cuts, ahead), 20))
