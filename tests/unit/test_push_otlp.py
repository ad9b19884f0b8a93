"""Metrics as OTLP: what the families become, what arrives at a receiver, and what is counted."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client.core import (
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from tests.relay.authority import Authority
from tests.unit.test_push import WHOSE, carbon, families, pushing, until

from coalmine_sidecar.contract import RevisionRoute, Routing
from coalmine_sidecar.push.otlp import AT_A_STRETCH, document, to_metrics
from coalmine_sidecar.push.pusher import start, whose
from coalmine_sidecar.push.receivers import Otlp, PushError
from coalmine_sidecar.push.settings import PushSettings


def mapped(*metrics: Metric) -> dict[str, dict[str, Any]]:
    found = {}
    for metric in metrics:
        for one in to_metrics(metric, started=100.5, now=200):
            list(one.write())
            told = json.loads(one.json())
            found[told["name"]] = told
    return found


def attributes(point: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: one["value"]["stringValue"] for one in point["attributes"]}


TIMES = {"startTimeUnixNano": "100500000000", "timeUnixNano": "200000000000"}


def test_counters_are_monotonic_sums_since_the_start():
    told = mapped(*families())
    assert set(told) == {"coalmine_requests", "coalmine_route_weight", "coalmine_drift", "coalmine_seconds"}
    requests = told["coalmine_requests"]
    assert requests["description"] == "Requests."
    total = requests["sum"]
    assert (total["isMonotonic"], total["aggregationTemporality"]) == (True, 2)
    first, second = total["dataPoints"]
    assert attributes(first) == {"version": "v1.2", "code": "200"}
    assert (first["asDouble"], second["asDouble"]) == (7, 0.5)
    assert {name: first[name] for name in TIMES} == TIMES


def test_gauges_are_gauges_and_no_number_is_text():
    told = mapped(*families())
    (weight,) = told["coalmine_route_weight"]["gauge"]["dataPoints"]
    assert (weight["asDouble"], weight["attributes"], weight["timeUnixNano"]) == (90, [], "200000000000")
    assert [one["asDouble"] for one in told["coalmine_drift"]["gauge"]["dataPoints"]] == ["NaN", "-Infinity"]


def test_buckets_of_histograms_are_no_longer_cumulative():
    histogram = mapped(*families())["coalmine_seconds"]["histogram"]
    assert histogram["aggregationTemporality"] == 2
    first, second = histogram["dataPoints"]
    assert attributes(first) == {"version": "v1"}
    assert first["explicitBounds"] == [0.1, 0.5]
    assert first["bucketCounts"] == ["1", "3", "2"]
    assert (first["count"], first["sum"]) == ("6", 3.25)
    assert {name: first[name] for name in TIMES} == TIMES
    assert first["exemplars"] == [
        {
            "asDouble": 0.2,
            "timeUnixNano": "1500000000",
            "traceId": "0af7651916cd43dd8448eb211c80319c",
            "filteredAttributes": [{"key": "x", "value": {"stringValue": "y"}}],
        }
    ]
    assert (second["bucketCounts"], second["count"], second["sum"]) == (["0", "0", "0"], "0", 0)
    assert "exemplars" not in second


def test_what_otlp_has_no_kind_for_is_a_gauge():
    info = InfoMetricFamily("coalmine_build", "Build.", value={"version": "1"})
    states = StateSetMetricFamily("coalmine_state", "State.", value={"open": True, "closed": False})
    told = mapped(info, states)
    assert attributes(told["coalmine_build_info"]["gauge"]["dataPoints"][0]) == {"version": "1"}
    points = told["coalmine_state"]["gauge"]["dataPoints"]
    assert {attributes(one)["coalmine_state"]: one["asDouble"] for one in points} == {"open": 1, "closed": 0}


def test_a_document_says_whose_metrics_they_are():
    (told,) = json.loads(document(WHOSE, [b'{"name":"a"}', b'{"name":"b"}']))["resourceMetrics"]
    assert attributes(told["resource"]) == WHOSE
    assert told["scopeMetrics"][0]["scope"]["name"] == "coalmine"
    assert told["scopeMetrics"][0]["metrics"] == [{"name": "a"}, {"name": "b"}]


def test_many_points_are_written_some_at_a_time():
    many = GaugeMetricFamily("coalmine_many", "Many.", labels=("n",))
    for number in range(3 * AT_A_STRETCH + 1):
        many.add_metric((str(number),), number)
    (metric,) = to_metrics(many, started=0, now=1)
    written = [len(json.loads(metric.json())["gauge"]["dataPoints"]) for _ in metric.write()]
    assert written == [AT_A_STRETCH, 2 * AT_A_STRETCH, 3 * AT_A_STRETCH, 3 * AT_A_STRETCH + 1]
    points = json.loads(metric.json())["gauge"]["dataPoints"]
    assert [one["asDouble"] for one in points] == list(range(3 * AT_A_STRETCH + 1))


def test_nothing_is_pushed_before_it_is_known_for_whom():
    route = RevisionRoute(name="a", version="v1", track="stable", weight=100)
    routing = Routing(deployment="fraud", namespace="ml", model="m", generation=1, revisions=(route,))
    assert whose(None, "fraud-1") is None
    assert whose(routing, "fraud-1") == WHOSE


class Collector:
    """A receiver of OTLP over HTTP. `answer`: status and body."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], Any]] = []
        self.answer: tuple[int, bytes] = (200, b"{}")
        self.hangs = False
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()  # aiohttp's server unpacks it
        if self.hangs:
            await asyncio.sleep(60)
        self.got.append((dict(request.headers), json.loads(body)))
        status, text = self.answer
        return web.Response(status=status, body=text, headers={"Location": "/elsewhere"})


@asynccontextmanager
async def collector(tls: ssl.SSLContext | None = None) -> AsyncIterator[Collector]:
    one = Collector()
    app = web.Application()
    app.router.add_post("/v1/metrics", one.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    place = f"{'127.0.0.1' if tls is None else 'localhost'}:{runner.addresses[0][1]}"
    one.url = f"{'http' if tls is None else 'https'}://{place}/v1/metrics"
    yield one
    await runner.cleanup()


async def test_otlp_is_posted_as_json():
    async with collector() as sink:
        running = pushing(PushSettings(otlp=sink.url.replace("//", "//user:s3cret@"), interval=0.01))
        await until(running, "otlp", "ok", 2)
        await running.stop()
    headers, told = sink.got[0]
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:s3cret").decode()
    (scope,) = told["resourceMetrics"][0]["scopeMetrics"]
    assert {one["name"] for one in scope["metrics"]} == {
        "coalmine_requests",
        "coalmine_route_weight",
        "coalmine_drift",
        "coalmine_seconds",
    }
    first, second = (one["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0] for _, one in sink.got[:2])
    (before, _), (after, _) = first["sum"]["dataPoints"], second["sum"]["dataPoints"]
    assert before["startTimeUnixNano"] == after["startTimeUnixNano"], "counters count from one start on"
    assert int(before["startTimeUnixNano"]) < int(before["timeUnixNano"]) < int(after["timeUnixNano"])


async def test_headers_are_shown_to_the_receiver_and_to_nobody_else(caplog: pytest.LogCaptureFixture):
    """One that says who pushes takes the place of the URL's user: two of them are no request."""
    async with collector() as sink:
        settings = PushSettings(
            otlp=sink.url.replace("//", "//user:pass@"),
            headers=(("authorization", "Bearer s3cret"), ("x-tenant", "a, b")),
            interval=0.01,
        )
        running = pushing(settings)
        await until(running, "otlp", "ok")
        sink.answer = 401, b""
        await until(running, "otlp", "failed")
        await running.stop()
    headers = sink.got[0][0]
    assert (headers["Authorization"], headers["x-tenant"]) == ("Bearer s3cret", "a, b")
    assert headers["Content-Type"] == "application/json"
    assert caplog.messages == [f"metrics to {sink.url}: answered 401"]


async def test_pieces_are_pushed_one_by_one_until_one_fails():
    """One that is taken in part stops nothing; where nobody answers the rest is not even made."""
    made: list[str] = []

    async def collected() -> AsyncGenerator[list[Metric], None]:
        for name in ("a", "b", "c"):
            made.append(name)
            yield [GaugeMetricFamily(name, name, value=1)]

    async with collector() as sink:
        sink.answer = 200, b'{"partialSuccess":{"rejectedDataPoints":"1"}}'
        running = start(PushSettings(otlp=sink.url, interval=60), collected, lambda: WHOSE, draw=float)
        await until(running, "otlp", "partial")
        await running.stop()
        names = [got["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["name"] for _, got in sink.got]
        assert names == made == ["a", "b", "c"]
        made.clear()
        sink.answer = 503, b""
        running = start(PushSettings(otlp=sink.url, interval=60), collected, lambda: WHOSE, draw=float)
        await until(running, "otlp", "failed")
        await running.stop()
    assert made == ["a"]
    assert sum(running.pushes.values()) == 1


@pytest.mark.parametrize(
    ("answer", "outcome", "says"),
    [
        ((200, b'{"partialSuccess":{"rejectedDataPoints":"3"}}'), "partial", "did not take 3 of the values"),
        ((200, b'{"partialSuccess":{"errorMessage":"slow down"}}'), "ok", ""),
        ((200, b"fine"), "ok", ""),
        ((204, b""), "ok", ""),
        ((400, b"secrets of others"), "failed", "answered 400"),
        ((503, b""), "failed", "answered 503"),
        ((307, b""), "failed", "answered 307"),
    ],
)
async def test_what_becomes_of_a_push(
    answer: tuple[int, bytes], outcome: str, says: str, caplog: pytest.LogCaptureFixture
):
    async with collector() as sink:
        sink.answer = answer
        running = pushing(PushSettings(otlp=sink.url.replace("//", "//user:s3cret@") + "?key=s3cret", interval=0.01))
        await until(running, "otlp", outcome)
        await running.stop()
        samples = [(sample.labels["outcome"], sample.value) for one in running.collect() for sample in one.samples]
    assert caplog.messages == ([f"metrics to {sink.url}: {says}"] if says else [])
    assert {name for name, value in samples if value} == {outcome}
    assert {name for name, _ in samples} == {"ok", "partial", "failed"}


async def test_a_receiver_that_hangs_holds_up_no_other():
    async with collector() as sink, carbon() as graphite:
        sink.hangs = True
        running = pushing(PushSettings(otlp=sink.url, graphite=("127.0.0.1", graphite.port), interval=0.01))
        await until(running, "graphite", "ok", 3)
        assert running.pushes["otlp", "ok"] == running.pushes["otlp", "failed"] == 0
        await running.stop()


async def test_a_receiver_that_hangs_is_given_up():
    async with collector() as sink:
        sink.hangs = True
        otlp = Otlp(sink.url, started=0, clock=lambda: 1.0, timeout=0.05)
        with pytest.raises(Exception, match=r"^no answer within 0.05 s$"):
            await otlp.push(families(), WHOSE)
        await otlp.close()


async def test_a_figure_that_cannot_be_written_is_counted(caplog: pytest.LogCaptureFixture):
    async def wrong() -> AsyncGenerator[list[Metric], None]:
        raise ZeroDivisionError
        yield []

    running = start(PushSettings(otlp="http://127.0.0.1:1/", interval=0.01), wrong, lambda: WHOSE)
    await until(running, "otlp", "failed", 2)
    await running.stop()
    assert caplog.messages == ["metrics to http://127.0.0.1:1/: could not be made: ZeroDivisionError"]


async def test_certificates_of_a_receiver_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    files = ours.issue("localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.cert, files.key)
    outcomes = {}
    async with collector(tls) as sink:
        for name, authority in (("good", ours), ("bad", others)):
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
            otlp = Otlp(sink.url, started=0, clock=lambda: 1.0, timeout=30)
            try:
                await otlp.push(families(), WHOSE)
                outcomes[name] = "ok"
            except PushError as error:
                outcomes[name] = str(error)
            await otlp.close()
        assert len(sink.got) == 1
    assert outcomes["good"] == "ok"
    assert outcomes["bad"].startswith("no connection: ")
