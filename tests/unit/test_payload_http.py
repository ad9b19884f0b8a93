"""The payload log to a real HTTP sink, which may hang, break or refuse: what arrives, and what is counted."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.relay.authority import Authority
from tests.unit.test_payload_events import exchange
from tests.unit.test_payload_logger import balanced, logger

from coalmine_sidecar.monitoring import PayloadLog
from coalmine_sidecar.payload import PayloadLogger
from coalmine_sidecar.payload.event import REQUEST, RESPONSE, Body
from coalmine_sidecar.payload.http import TRIES, HttpSink

#: Among the answers of a Receiver: the connection ends instead.
RESET = 599


class Receiver:
    """A sink that writes down what it gets. `answers`: statuses of its first answers (or RESET); 200 after them."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.hangs = False
        self.port = 0
        #: Events that were answered with 200.
        self.taken = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    async def take(self, request: web.Request) -> web.Response:
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        if self.hangs:
            await asyncio.sleep(60)
        status = self.answers.pop(0) if self.answers else 200
        if status == RESET and request.transport is not None:
            request.transport.abort()
        self.taken += status == 200
        return web.Response(status=status, headers={"Location": "/elsewhere"}, body=b"y" * 200_000)

    async def start(self, tls: ssl.SSLContext | None = None) -> web.AppRunner:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/{path:.*}", self.take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    runner = await one.start()
    yield one
    await runner.cleanup()


def to(url: str, *, percent: float = 100, timeout: float = 30.0, **more: Any) -> PayloadLogger:
    settings = PayloadLog(percent=percent, url=url, **more)
    return logger(settings, sink=HttpSink(url, timeout=timeout, pause=0.001))


async def test_both_events_arrive_as_kserve_sends_them(receiver: Receiver):
    log = to(receiver.url)
    binary = Body(data=b"{}\x00\xff", content_type="application/octet-stream", json_length=2)
    log.offer(exchange(binary, b'{"b": [0.5]}', version="v 1 ä"))
    await log.close(60)
    assert log.counters.outcomes == {"sent": 2, "failed": 0, "dropped_queue": 0, "dropped_end": 0}
    (request, request_body), (response, response_body) = receiver.got
    assert (request_body, response_body) == (b"{}\x00\xff", b'{"b": [0.5]}')
    assert (request["ce-type"], response["ce-type"]) == (REQUEST, RESPONSE)
    assert (request["content-type"], response["content-type"]) == ("application/octet-stream", "application/json")
    assert request["ce-jsonlength"] == "2"
    assert response["ce-version"] == "v%201%20%C3%A4"
    assert response["ce-durationseconds"] == "0.500000"
    for headers in (request, response):
        assert headers["ce-specversion"] == "1.0"
        assert headers["ce-id"] == "p-1"
        assert headers["ce-inferenceservicename"] == "fraud-md"
        assert headers["ce-namespace"] == "ml"
        assert headers["ce-component"] == "predictor"
        assert headers["ce-endpoint"] == "canary"
        assert "authorization" not in headers


async def test_a_body_that_was_left_out_is_an_event_without_one(receiver: Receiver):
    log = to(receiver.url, redact=("$.ssn",))
    log.offer(exchange(b"ssn=s3cret", b'{"ssn": "s3cret", "a": 1}'))
    await log.close(60)
    (request, request_body), (_, response_body) = receiver.got
    assert (request["ce-omitted"], request_body) == ("notjson", b"")
    assert json.loads(response_body) == {"ssn": "[redacted]", "a": 1}
    assert "s3cret" not in str(receiver.got)
    assert log.counters.changes["omitted_not_json"] == 1


async def test_a_sink_that_is_away_for_a_moment_loses_nothing(receiver: Receiver):
    receiver.answers = [503, 500, 202, 429]
    log = to(receiver.url)
    log.offer(exchange())
    await log.close(60)
    assert [headers["ce-type"] for headers, _ in receiver.got] == [REQUEST] * 3 + [RESPONSE] * 2
    assert log.counters.outcomes["sent"] == 2
    assert balanced(log.counters)


async def test_a_sink_that_answers_500_is_asked_three_times(receiver: Receiver, caplog: pytest.LogCaptureFixture):
    receiver.answers = [500] * 100
    log = to(receiver.url)
    log.offer(exchange())
    log.offer(exchange())
    await log.close(60)
    assert len(receiver.got) == 2 * TRIES, "an answer without its request is not sent"
    assert log.counters.outcomes["failed"] == 4
    assert balanced(log.counters)
    assert caplog.messages == [f"payload log to {receiver.url}: answered 500"], "once, not for each"


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 413])
async def test_what_another_try_would_not_change_is_not_tried(receiver: Receiver, status: int):
    receiver.answers = [status]
    log = to(receiver.url)
    log.offer(exchange())
    await log.close(60)
    assert len(receiver.got) == 1
    assert log.counters.outcomes["failed"] == 2


async def test_a_sink_that_hangs_holds_up_nobody_else(receiver: Receiver, caplog: pytest.LogCaptureFixture):
    receiver.hangs = True
    log = to(receiver.url, timeout=0.05)
    for _ in range(2000):
        log.offer(exchange(b"x" * 100))
    assert log.counters.outcomes["dropped_queue"] > 0
    await log.close(1)
    outcomes = log.counters.outcomes
    assert outcomes["sent"] == 0
    assert outcomes["failed"] > 0
    assert outcomes["dropped_end"] > 0
    assert outcomes["failed"] + outcomes["dropped_queue"] + outcomes["dropped_end"] == 4000
    assert balanced(log.counters)
    assert caplog.messages == [f"payload log to {receiver.url}: no answer within 0.05 s"]


async def test_a_sink_that_resets_costs_events_and_nothing_else(caplog: pytest.LogCaptureFixture):
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    log = to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    log.offer(exchange())
    await log.close(60)
    server.close()
    assert log.counters.outcomes["failed"] == 2
    assert balanced(log.counters)
    assert "the connection broke" in caplog.messages[0]


async def test_a_sink_that_reads_nothing_keeps_nobody_from_ending():
    with socket.create_server(("127.0.0.1", 0)) as server:
        log = to(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=0.1, max_bytes=16 << 20)
        for _ in range(4):
            log.offer(exchange(b"x" * (2 << 20), b""))
        await log.close(0.3)
    assert log.counters.outcomes["sent"] == 0
    assert balanced(log.counters)


@pytest.mark.parametrize("seed", range(3))
async def test_of_a_sink_in_trouble_just_what_it_took_counts_as_sent(receiver: Receiver, seed: int):
    draw = random.Random(seed)
    receiver.answers = draw.choices([200, 200, 404, 500, 503, RESET], k=400)
    log = to(receiver.url)
    for number in range(200):
        log.offer(exchange(id=str(number)))
        if draw.random() < 0.2:
            await asyncio.sleep(0.001)
    await log.close(60)
    outcomes = log.counters.outcomes
    assert outcomes["sent"] == receiver.taken
    assert outcomes["failed"] == 400 - receiver.taken > 0
    assert balanced(log.counters)


async def test_where_nobody_listens_events_are_counted(caplog: pytest.LogCaptureFixture):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        log = to(f"http://user:s3cret@127.0.0.1:{port}/a?key=s3cret#s3cret")
        log.offer(exchange())
        await log.close(60)
    assert log.counters.outcomes["failed"] == 2
    (said,) = caplog.messages
    assert said.startswith(f"payload log to http://127.0.0.1:{port}/a: no connection: ")
    assert "\n" not in said


async def test_user_and_password_go_to_the_sink_and_nowhere_else(receiver: Receiver, caplog: pytest.LogCaptureFixture):
    receiver.answers = [401]
    log = to(f"http://user:s3cret@127.0.0.1:{receiver.port}/events")
    log.offer(exchange())
    await log.close(60)
    assert receiver.got[0][0]["authorization"] == "Basic " + base64.b64encode(b"user:s3cret").decode()
    assert caplog.messages == [f"payload log to {receiver.url}: answered 401"]


async def test_long_answers_are_not_read_to_their_end(receiver: Receiver):
    """200 kB are over what is read; a sink cannot fill the sidecar's memory."""
    log = to(receiver.url)
    for _ in range(20):
        log.offer(exchange())
    await log.close(60)
    assert log.counters.outcomes["sent"] == 40


async def test_certificates_of_a_sink_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    files = ours.issue("localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.cert, files.key)
    one = Receiver()
    runner = await one.start(tls)
    url = f"https://localhost:{one.port}/events"
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.ca))
    good = to(url)
    for _ in range(8):  # more than there are workers, of which one opens the session
        good.offer(exchange())
    await good.close(60)
    monkeypatch.setenv("SSL_CERT_FILE", str(others.ca))
    bad = to(url)
    bad.offer(exchange())
    await bad.close(60)
    await runner.cleanup()
    assert good.counters.outcomes["sent"] == 16
    assert bad.counters.outcomes["failed"] == 2
    assert len(one.got) == 16
