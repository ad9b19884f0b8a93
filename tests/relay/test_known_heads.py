"""Heads that come again byte by byte are not parsed again: nothing may tell that from the outside."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from tests.relay.harness import Answer, Client, Pod, Request, Upstream, answer, eventually, get, post, revision, routing

from coalmine_sidecar.relay.reading import RequestReader
from coalmine_sidecar.relay.upstream import UpstreamConnection

DOCUMENT = routing(revision("a", 100))


@pytest.fixture
async def pod(model: Upstream, start_pod: Callable[..., Pod]) -> Pod:
    return await start_pod(model.port, DOCUMENT)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many requests and answers were read without the parser."""
    counts = {"requests": 0, "answers": 0}

    def count(kind: type, name: str) -> None:
        read = kind._read_known

        def counting(self: object, data: bytes) -> bool:
            found = read(self, data)
            counts[name] += found
            return found

        monkeypatch.setattr(kind, "_read_known", counting)

    count(RequestReader, "requests")
    count(UpstreamConnection, "answers")
    return counts


def told(request: Request) -> tuple[object, ...]:
    return request.method, request.target, request.headers, request.body


def seen(reply: Answer) -> tuple[object, ...]:
    return reply.status, reply.headers, reply.body


@pytest.mark.looks_inside
async def test_the_second_request_is_what_the_first_was(pod: Pod, model: Upstream, known: dict[str, int]) -> None:
    client = await Client.connect(pod.ingress)
    replies = [await client.ask(post(b"{}", headers="X-A: 1\r\nx-a: 2\r\n")) for _ in range(3)]
    assert len({repr(told(request)) for request in model.requests}) == 1
    assert len({repr(seen(reply)) for reply in replies}) == 1
    assert known == {"requests": 2, "answers": 2}
    assert pod.outcomes() == {"ok": 3}
    assert pod.series().request_bytes.total == 6


@pytest.mark.looks_inside
async def test_each_has_an_identity_of_its_own(pod: Pod, model: Upstream, known: dict[str, int]) -> None:
    client = await Client.connect(pod.ingress)
    for _ in range(4):
        await client.ask(post())
    for name in ("traceparent", "x-request-id"):
        values = [[value for key, value in request.identity if key == name] for request in model.requests]
        assert [len(value) for value in values] == [1, 1, 1, 1]
        assert len({value[0] for value in values}) == 4
    assert known["requests"] == 3


@pytest.mark.looks_inside
async def test_bodies_are_their_own(pod: Pod, model: Upstream, known: dict[str, int]) -> None:
    bodies = [b"one", b"two", b"\r\n\r", b"GET"]

    async def echo(request: Request, writer: object) -> None:
        writer.write(answer(request.body[::-1]))  # type: ignore[attr-defined] # a StreamWriter

    model.handle = echo
    client = await Client.connect(pod.ingress)
    assert [(await client.ask(post(body.ljust(4)))).body for body in bodies] == [body.ljust(4)[::-1] for body in bodies]
    assert known == {"requests": 3, "answers": 3}


async def test_another_head_of_the_same_length_is_read(pod: Pod, model: Upstream) -> None:
    client = await Client.connect(pod.ingress)
    await client.ask(post(b"{}", path="/v2/models/m/infer"))
    await client.ask(post(b"{}", path="/v2/models/n/infer"))
    await client.ask(post(b"{}", path="/v2/models/n/infer", headers="X: 1\r\n"))
    await client.ask(post(b"{}", path="/v2/models/n/infer", headers="Y: 1\r\n"))
    assert [request.target[11] for request in model.requests] == ["m", "n", "n", "n"]
    assert [request.header("y") for request in model.requests] == [None, None, None, "1"]


async def test_the_end_of_a_head_is_never_taken_for_a_head(pod: Pod, model: Upstream) -> None:
    client = await Client.connect(pod.ingress)
    rest = b"Content-Length: 2\r\n\r\n{}"
    await client.send(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: m\r\n")
    await eventually(lambda: any(connection.busy for connection in pod.relay.ingress.connections))
    assert (await client.ask(rest)).status == 200
    assert (await client.ask(rest)).status == 400
    assert len(model.requests) == 1


async def test_a_known_head_in_pieces_and_several_at_once(pod: Pod, model: Upstream) -> None:
    client = await Client.connect(pod.ingress)
    whole = post(b"{}")
    await client.ask(whole)
    for cut in (1, len(whole) - 2, len(whole) - 1):
        await client.send(whole[:cut])
        await eventually(lambda: any(connection.busy for connection in pod.relay.ingress.connections))
        assert (await client.ask(whole[cut:])).status == 200
    await client.send(whole + whole + get())
    assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]
    assert (await client.ask(whole)).status == 200
    assert [request.method for request in model.requests] == [*["POST"] * 6, "GET", "POST"]


async def test_new_limits_hold_for_known_heads(pod: Pod, model: Upstream) -> None:
    client = await Client.connect(pod.ingress)
    assert [(await client.ask(post(b"12345"))).status for _ in range(2)] == [200, 200]
    limits = msgspec.structs.replace(DOCUMENT.limits, body_bytes=4)
    pod.relay.use(msgspec.structs.replace(DOCUMENT, generation=2, limits=limits))
    assert (await client.ask(post(b"12345"))).status == 413


@pytest.mark.parametrize(
    "headers", ["Connection: close\r\n", "Expect: 100-continue\r\n", "Transfer-Encoding: gzip\r\n"]
)
async def test_what_is_not_plain_is_not_remembered(pod: Pod, known: dict[str, int], headers: str) -> None:
    for _ in range(2):
        await pod.ask(post(headers=headers))
    client = await Client.connect(pod.ingress)
    await client.ask(post(headers="traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"))
    await client.ask(post(headers="traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"))
    assert known["requests"] == 0


async def test_a_known_answer_to_another_method(pod: Pod, model: Upstream) -> None:
    client = await Client.connect(pod.ingress)
    assert (await client.ask(get())).body == (await client.ask(get())).body != b""

    async def headless(_: Request, writer: object) -> None:
        writer.write(answer().partition(b"\r\n\r\n")[0] + b"\r\n\r\n")  # type: ignore[attr-defined] # a StreamWriter

    model.handle = headless
    await client.send(b"HEAD / HTTP/1.1\r\nHost: m\r\n\r\n")
    head = await client.answer("HEAD")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.looks_inside
async def test_a_known_answer_with_more_behind_it_is_read(pod: Pod, model: Upstream, known: dict[str, int]) -> None:
    client = await Client.connect(pod.ingress)
    for _ in range(2):
        await client.ask(get())
    assert known["answers"] == 1

    async def more(_: Request, writer: object) -> None:
        writer.write(answer() + b"HTTP/1.1 200 OK\r\n\r\n")  # type: ignore[attr-defined] # a StreamWriter

    model.handle = more
    assert (await client.ask(get())).status == 200
    assert known["answers"] == 1
    # Nobody's bytes: the connection is not used again.
    model.handle = lambda request, writer: _well(request, writer)
    before = model.connections
    assert (await client.ask(get())).status == 200
    assert model.connections == before + 1


async def _well(_: Request, writer: object) -> None:
    writer.write(answer())  # type: ignore[attr-defined] # a StreamWriter
