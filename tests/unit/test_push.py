"""Metrics pushed to Graphite: what arrives at its port, and what is counted; flags that say where to push."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.samples import Exemplar

from coalmine_sidecar.push.graphite import Graphite
from coalmine_sidecar.push.pusher import Pushing, start
from coalmine_sidecar.push.receivers import PushError
from coalmine_sidecar.push.settings import PushSettings, graphite_prefix, otlp_url, push_settings
from coalmine_sidecar.settings import read_settings

WHOSE = {"service.name": "fraud", "service.namespace": "ml", "service.instance.id": "fraud-1"}


def families() -> list[Metric]:
    requests = CounterMetricFamily("coalmine_requests", "Requests.", labels=("version", "code"))
    requests.add_metric(("v1.2", "200"), 7)
    requests.add_metric(("", "_other"), 0.5)
    weight = GaugeMetricFamily("coalmine_route_weight", "Per cent.", value=90)
    drift = GaugeMetricFamily("coalmine_drift", "Not known yet.", labels=("name",))
    drift.add_metric(("age",), math.nan)
    drift.add_metric(("sex",), -math.inf)
    seconds = HistogramMetricFamily("coalmine_seconds", "Seconds.", labels=("version",))
    exemplar = Exemplar({"trace_id": "0af7651916cd43dd8448eb211c80319c", "x": "y"}, 0.2, 1.5)
    seconds.add_metric(("v1",), [("0.1", 1), ("0.5", 4, exemplar), ("+Inf", 6)], 3.25)
    seconds.add_metric(("v2",), [("0.1", 0), ("0.5", 0), ("+Inf", 0)], 0)
    empty = CounterMetricFamily("coalmine_nothing", "Nothing yet.", labels=("a",))
    return [requests, weight, drift, seconds, empty]


async def collected() -> AsyncGenerator[list[Metric], None]:
    yield families()


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("", ""),
        ("http://otel:4318", "http://otel:4318/v1/metrics"),
        ("http://otel:4318/", "http://otel:4318/v1/metrics"),
        ("https://u:p@prometheus/api/v1/otlp", "https://u:p@prometheus/api/v1/otlp/v1/metrics"),
        ("http://otel/v1/metrics?tenant=a", "http://otel/v1/metrics?tenant=a"),
        ("http://otel/x?tenant=a", "http://otel/x/v1/metrics?tenant=a"),
    ],
)
def test_a_receivers_base_is_enough(given: str, whole: str):
    assert otlp_url(given) == whole


@pytest.mark.parametrize("text", ["otel:4318", "grpc://otel", "http://", "http://u:s3cret@:80", "http://a:s3cret", "ä"])
def test_what_is_no_url_is_refused_without_its_text(text: str):
    with pytest.raises(ValueError, match=r"^no URL: write [^\n]*$") as refused:
        otlp_url(text)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("text", [".", "a.", "a..b", "a b", "ä", "a\n"])
def test_what_is_no_prefix_is_refused(text: str):
    with pytest.raises(ValueError, match="is no prefix"):
        graphite_prefix(text)


def test_pushing_every_moment_is_refused():
    given = {"COALMINE_GRAPHITE": "h:1", "COALMINE_PUSH_INTERVAL": "0.5"}
    with pytest.raises(ValueError, match=r"^COALMINE_PUSH_INTERVAL: 0.5 is under 1 second$"):
        push_settings(given)
    assert not push_settings(given | {"COALMINE_GRAPHITE": ""}), "nobody is asked how often nothing is pushed"


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--graphite=nowhere", "argument --graphite: 'nowhere' is no host:port"),
        ("--graphite-prefix=a..b", "argument --graphite-prefix: 'a..b' is no prefix of letters"),
        ("--graphite-tags=yes", "argument --graphite-tags: 'yes' is neither true nor false"),
        ("--otlp=grpc://user:s3cret@otel", "argument --otlp: no URL: write http://HOST:PORT/PATH"),
        ("--push-interval=0.1", "--push-interval: 0.1 is under 1 second"),
        ("--push-interval=soon", "argument --push-interval: 'soon' is no number of 0 or more"),
    ],
)
def test_wrong_flags_are_one_clear_line(flag: str, says: str, capsys: pytest.CaptureFixture[str]):
    given = [f"--{name}=x" for name in ("routing", "revision", "pod")]
    given += [f"--{role}=fd:9" for role in ("ingress", "local", "admin")]
    with pytest.raises(SystemExit) as ended:
        read_settings([*given, "--model=h:1", "--graphite=g:1", flag], {})
    errors = capsys.readouterr().err
    assert ended.value.code == 2
    assert errors.startswith(f"coalmine-sidecar: {says}")
    assert errors.count("\n") == 1
    assert "s3cret" not in errors


class Carbon:
    """Graphite's port: reads its plaintext protocol as carbon does, strictly. `series`: the last value of each."""

    def __init__(self) -> None:
        self.series: dict[str, float] = {}
        self.pushes = 0
        self.wrong: list[str] = []
        self.port = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in (await reader.read(-1)).decode("ascii").splitlines():
            try:
                path, value, at = line.split(" ")
                name, *tags = path.split(";")
                assert all(name.split("."))
                assert all(key and value for key, _, value in (tag.partition("=") for tag in tags))
                assert int(at) > 0
                self.series[path] = float(value)
            except (ValueError, AssertionError):
                self.wrong.append(line)
        self.pushes += 1
        writer.close()


@asynccontextmanager
async def carbon() -> AsyncIterator[Carbon]:
    one = Carbon()
    server = await asyncio.start_server(one.take, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    yield one
    server.close()


async def taken(sink: Carbon, pushes: int) -> None:
    """Until it has read as many; a push ends when its bytes are on their way."""
    for _ in range(5000):
        if sink.pushes >= pushes:
            return
        await asyncio.sleep(0.002)
    pytest.fail(f"{sink.pushes} pushes of {pushes}")


async def until(pushing: Pushing, to: str, outcome: str, count: int = 1) -> None:
    for _ in range(5000):
        if pushing.pushes[to, outcome] >= count:
            return
        await asyncio.sleep(0.002)
    pytest.fail(f"{pushing.pushes}")


def pushing(settings: PushSettings) -> Pushing:
    """At an interval that flags refuse: tests are not to wait."""
    return start(settings, collected, lambda: WHOSE)


async def test_graphite_gets_every_sample_with_tags():
    async with carbon() as sink:
        running = pushing(PushSettings(graphite=("127.0.0.1", sink.port), prefix="ml.models", interval=0.01))
        await until(running, "graphite", "ok", 2)
        await running.stop()
        await taken(sink, 2)
    assert sink.wrong == []
    assert sink.series == {
        "ml.models.coalmine_requests_total;code=200;pod=fraud-1;version=v1_2": 7,
        "ml.models.coalmine_requests_total;code=_other;pod=fraud-1;version=none": 0.5,
        "ml.models.coalmine_route_weight;pod=fraud-1": 90,
        "ml.models.coalmine_drift;name=sex;pod=fraud-1": -math.inf,
        "ml.models.coalmine_seconds_bucket;le=0_1;pod=fraud-1;version=v1": 1,
        "ml.models.coalmine_seconds_bucket;le=0_5;pod=fraud-1;version=v1": 4,
        "ml.models.coalmine_seconds_bucket;le=_Inf;pod=fraud-1;version=v1": 6,
        "ml.models.coalmine_seconds_count;pod=fraud-1;version=v1": 6,
        "ml.models.coalmine_seconds_sum;pod=fraud-1;version=v1": 3.25,
        "ml.models.coalmine_seconds_bucket;le=0_1;pod=fraud-1;version=v2": 0,
        "ml.models.coalmine_seconds_bucket;le=0_5;pod=fraud-1;version=v2": 0,
        "ml.models.coalmine_seconds_bucket;le=_Inf;pod=fraud-1;version=v2": 0,
        "ml.models.coalmine_seconds_count;pod=fraud-1;version=v2": 0,
        "ml.models.coalmine_seconds_sum;pod=fraud-1;version=v2": 0,
    }


async def test_an_older_graphite_gets_labels_in_names():
    async with carbon() as sink:
        await Graphite(("127.0.0.1", sink.port), tags=False).push(families(), WHOSE)
        await taken(sink, 1)
    assert sink.wrong == []
    assert sink.series["coalmine_requests_total.code.200.pod.fraud-1.version.v1_2"] == 7
    assert len(sink.series) == 14


async def test_pods_do_not_write_over_each_other():
    async with carbon() as sink:
        for pod in ("fraud-1", "fraud-2"):
            await Graphite(("127.0.0.1", sink.port)).push(families(), WHOSE | {"service.instance.id": pod})
        await taken(sink, 2)
    assert len(sink.series) == 28


async def test_a_graphite_that_is_away_is_told_once_and_asked_less_often(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        running = pushing(PushSettings(graphite=("127.0.0.1", port), interval=0.002))
        await until(running, "graphite", "failed", 4)
        await running.stop()
    assert running.pushes["graphite", "ok"] == 0
    assert caplog.messages == [f"metrics to Graphite at 127.0.0.1:{port}: no connection: Connection refused"]


# prometheus_client's bridge leaves it to the garbage collector to close a connection that broke.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_graphite_that_reads_nothing_is_given_up():
    many = GaugeMetricFamily("coalmine_many", "Many.", labels=("n",))
    for number in range(3000):
        many.add_metric((f"{number}{'x' * 3000}",), number)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        graphite = Graphite(server.getsockname(), timeout=0.2)
        with pytest.raises(PushError, match=r"^took nothing within 0.2 s$"):
            await graphite.push([many], WHOSE)
