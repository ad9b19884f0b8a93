"""A sidecar that pushes, as a process of its own: what /metrics says arrives at Graphite and at a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.lab import prometheus as lab
from tests.cluster.lab.cache import CACHE, fingerprint
from tests.cluster.lab.golang import SOURCE
from tests.relay.harness import Client, Upstream, free_port, post, revision, routing
from tests.relay.process import Sidecar, replace, sidecar
from tests.unit.test_push import carbon
from tests.unit.test_push_otlp import collector

TRACE = "0af7651916cd43dd8448eb211c80319c"
OUTPUTS = {"observe": {"outputs": {"score": [0.2, 0.5]}}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "routing.json"
    replace(path, routing(revision("a", 100), namespace="ml", **OUTPUTS))
    return path


async def ask(running: Sidecar, times: int) -> None:
    client = await Client.connect(running.ingress)
    for _ in range(times):
        assert (await client.ask(post(headers=f"traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n"))).status == 200
    await client.close()


async def exposed(running: Sidecar, *prefixes: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What /metrics has of what no longer changes."""
    text = (await running.get("/metrics"))[1].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(prefixes) and not sample.name.endswith("_created")
    }


async def test_graphite_gets_what_metrics_has(model: Upstream, file: Path) -> None:
    async with carbon() as sink:
        flags = (f"--graphite=127.0.0.1:{sink.port}", "--graphite-prefix=ml", "--push-interval=1")
        async with sidecar(file, model.port, *flags) as running:
            await ask(running, 7)
            asked = "ml.coalmine_requests_total;code=200;model=m;outcome=ok;pod=p;role=ingress;track=stable;version=a"
            for _ in range(1000):
                if sink.series.get(asked) == 7:
                    break
                await asyncio.sleep(0.02)
            told = await exposed(running, "coalmine_request", "coalmine_output", "coalmine_push")
            found = {
                (name.removeprefix("ml."), frozenset(tuple(tag.split("=")) for tag in tags)): value
                for name, *tags in (path.split(";") for path in sink.series)
                for value in (sink.series[";".join((name, *tags))],)
            }
    assert sink.wrong == []
    assert sink.series[asked] == 7
    assert len(told) > 50
    for (name, labels), value in told.items():
        if not name.startswith("coalmine_push"):
            tags = {(key, _sanitized(text)) for key, text in labels} | {("pod", "p")}
            assert found[name, frozenset(tags)] == value, (name, labels)
    assert told["coalmine_push_total", frozenset({("to", "graphite"), ("outcome", "ok")})] >= 1


def _sanitized(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in text)


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        words = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{words}", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def exemplars(self, expression: str) -> list[dict[str, str]]:
        """Labels of the exemplars of the last hour."""
        words = urllib.parse.urlencode({"query": expression, "start": time.time() - 3600, "end": time.time() + 60})
        with urllib.request.urlopen(f"{self.url}/api/v1/query_exemplars?{words}", timeout=10) as answer:
            return [one["labels"] for series in json.load(answer)["data"] for one in series["exemplars"]]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def executable() -> Path | None:
    """Prometheus 3, if the tests on the node have compiled it: it takes minutes, and Debian's 2.42 knows no OTLP."""
    sources = [lab.MODULE / "go.mod", lab.MODULE / "go.sum", Path(lab.__file__), SOURCE]
    found = CACHE / "prometheus" / fingerprint(sources) / "prometheus"
    return found if found.exists() else None


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    program = executable()
    if program is None:
        pytest.skip("no Prometheus that takes OTLP: the tests on the node (`make test`) compile one, for some minutes")
    port = free_port()
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text("{}")
    flags = (
        f"--config.file={configuration}",
        f"--storage.tsdb.path={tmp_path}/series",
        "--web.enable-otlp-receiver",
        "--enable-feature=exemplar-storage",
    )
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program, *flags, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


async def test_a_real_prometheus_takes_otlp_and_has_what_metrics_has(
    model: Upstream, file: Path, prometheus: Prometheus, tmp_path: Path
) -> None:
    for _ in range(600):
        if await asyncio.to_thread(prometheus.ready):
            break
        await asyncio.sleep(0.1)
    flags = (f"--otlp={prometheus.url}/api/v1/otlp", "--push-interval=1")
    async with sidecar(file, model.port, *flags) as running:
        await ask(running, 7)
        asked = 'coalmine_requests_total{role="ingress",code="200"}'
        for _ in range(600):
            found = await asyncio.to_thread(prometheus.query, asked)
            if found and found[0]["value"][1] == "7":
                break
            await asyncio.sleep(0.1)
        assert found, (tmp_path / "prometheus.log").read_text()[-2000:]
        assert found[0]["value"][1] == "7"
        told = await exposed(running, "coalmine_")
        series = await asyncio.to_thread(prometheus.query, '{__name__=~"coalmine_.+"}')
        exemplars = await asyncio.to_thread(prometheus.exemplars, "coalmine_request_duration_seconds_bucket")
    assert {one["trace_id"] for one in exemplars} == {TRACE}, "who looks at a slow bucket finds its requests"
    assert {(one["metric"].pop("job"), one["metric"].pop("instance")) for one in series} == {("ml/d", "p")}
    names = {name for name, _ in told}
    stored = {(one["metric"].pop("__name__"), _plain(one["metric"])): float(one["value"][1]) for one in series}
    assert {"coalmine_request_duration_seconds_bucket", "coalmine_output_bin_total", "coalmine_route_weight"} <= names
    # The same series, no more and no less; of what changes by itself the values are not compared.
    ours = {(name, _plain(dict(labels))): value for (name, labels), value in told.items()}
    assert set(stored) == set(ours)
    moving = ("coalmine_push", "coalmine_model_cpu", "coalmine_model_memory")
    for key, value in ours.items():
        if not key[0].startswith(moving):
            assert math.isclose(stored[key], value, rel_tol=1e-12), key


def _plain(labels: dict[str, str]) -> frozenset[tuple[str, str]]:
    """Prometheus drops labels that are empty, writes a bucket's 60.0 as 60, and adds who counted."""
    plain = {name: value for name, value in labels.items() if value and not name.startswith("otel_scope")}
    return frozenset((plain | {"le": repr(float(plain["le"]))} if "le" in plain else plain).items())


async def test_a_key_of_the_environment_is_shown_to_the_receiver_alone(model: Upstream, file: Path) -> None:
    """As pods get it of a Secret: nobody who sees the pod, its flags or its log sees the key."""
    async with collector() as sink:
        variables = {
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret%20key,s3cret",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "9000",
        }
        async with sidecar(file, model.port, "--push-interval=1", **variables) as running:
            for _ in range(1000):
                if sink.got:
                    break
                await asyncio.sleep(0.02)
            exposition = (await running.get("/metrics"))[1]
            running.terminate()
            status, said = await running.ended()
    assert sink.got[0][0]["api-key"] == "s3cret key"
    assert "OTEL_EXPORTER_OTLP_HEADERS: entry 2 is left out: write NAME=VALUE" in said
    assert status == 0
    assert "s3cret" not in said + exposition.decode()


async def test_receivers_that_are_away_cost_nobody_anything(model: Upstream, file: Path) -> None:
    nowhere = free_port()
    flags = (
        f"--otlp=http://user:s3cret@127.0.0.1:{nowhere}/?key=s3cret",
        f"--graphite=127.0.0.1:{nowhere}",
        "--push-interval=1",
    )
    async with sidecar(file, model.port, *flags) as running:
        for _ in range(1000):
            pushes = await exposed(running, "coalmine_push")
            if sum(value for (_, labels), value in pushes.items() if ("outcome", "failed") in labels) >= 2:
                break
            await asyncio.sleep(0.02)
        await ask(running, 3)
        running.terminate()
        status, said = await running.ended()
    assert status == 0
    assert f"metrics to http://127.0.0.1:{nowhere}/v1/metrics: no connection: " in said
    assert f"metrics to Graphite at 127.0.0.1:{nowhere}: no connection: " in said
    assert "s3cret" not in said
    assert "Traceback" not in said
