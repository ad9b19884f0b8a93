"""`coalmine run` for those without Prometheus: what its operator and its sidecars tell arrives where variables say."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from tests.local.running import Run, free_port, manifest, said
from tests.local.test_drift_told import BASELINE
from tests.relay.test_push_sidecar import Prometheus, prometheus
from tests.unit.test_push import carbon
from tests.unit.test_push_otlp import collector

from coalmine_operator.api.baseline import encode_baseline

__all__ = ["prometheus"]

MONITORED = "  monitoring: {baseline: {file: v1.json}, features: [{name: age}]}\n"
#: These go on by themselves between a push and a look.
MOVING = ("coalmine_operator_", "coalmine_push")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Run]]:
    runs: list[Run] = []

    def begin() -> Run:
        (tmp_path / "v1.json").write_bytes(encode_baseline(replace(BASELINE, model="fraud")))
        runs.append(Run(tmp_path, manifest("v1", more=MONITORED)))
        runs[-1].until_phase("Healthy", "v1")
        return runs[-1]

    yield begin
    for run in runs:
        run.clean()


def scraped(run: Run) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The operator's own /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{run.info()['port']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


async def until(true: Callable[[], Any], what: str) -> None:
    for _ in range(1500):
        if true():
            return
        await asyncio.sleep(0.02)
    pytest.fail(what)


def plain(text: str) -> str:
    """As Graphite's names take it."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in text) or "none"


def named(name: str, labels: frozenset[tuple[str, str]], pod: str) -> str:
    """A series as Graphite knows it."""
    tags = sorted({key: plain(text) for key, text in labels}.items() | {("pod", pod)})
    return ";".join([name, *(f"{key}={text}" for key, text in tags)])


async def test_graphite_and_otlp_get_what_the_operators_metrics_has(
    start: Callable[[], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with carbon() as graphite, collector() as otlp:
        monkeypatch.setenv("COALMINE_GRAPHITE", f"127.0.0.1:{graphite.port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", otlp.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret")
        monkeypatch.setenv("COALMINE_PUSH_INTERVAL", "1")
        run = await asyncio.to_thread(start)
        us = f"127_0_0_1_{run.info()['port']}"
        healthy = f"coalmine_deployment_phase;name=fraud;namespace=default;phase=Healthy;pod={us}"
        drift = f"coalmine_drift_alarm_threshold_log;model=fraud;namespace=default;pod={us};version=v1"
        await until(lambda: graphite.series.get(healthy) and drift in graphite.series, "nothing of the operator")
        told = {named(*key, us): value for key, value in (await asyncio.to_thread(scraped, run)).items()}
        await until(lambda: told.keys() <= graphite.series.keys(), "not all of the operator")
        await until(lambda: pods(graphite.series), "nothing of the sidecar")
        await until(lambda: services(otlp.got) == {"coalmine-operator", "fraud"}, "not from both, by OTLP")
        run.signal()
        assert await asyncio.to_thread(run.ended) == 0
    assert graphite.wrong == []
    assert len(told) > 30
    for path, value in told.items():
        assert graphite.series[path] == value or path.startswith(MOVING), path
    assert us not in pods(graphite.series)
    assert {headers.get("api-key") for headers, _ in otlp.got} == {"s3cret"}
    assert "s3cret" not in run.said()


def pods(series: Mapping[str, float]) -> set[str]:
    """Whose sidecars told."""
    found = (path.split(";") for path in series if path.startswith("coalmine_route_weight;"))
    return {tag.removeprefix("pod=") for _, *tags in found for tag in tags if tag.startswith("pod=")}


def services(got: Iterable[tuple[Any, Any]]) -> set[str]:
    return {whose(document)["service.name"] for _, document in got}


def whose(document: Any) -> dict[str, str]:
    attributes = document["resourceMetrics"][0]["resource"]["attributes"]
    return {one["key"]: one["value"]["stringValue"] for one in attributes}


async def test_a_real_prometheus_has_both_under_the_names_that_rules_ask_for(
    start: Callable[[], Run], monkeypatch: pytest.MonkeyPatch, prometheus: Prometheus
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{prometheus.url}/api/v1/otlp")
    monkeypatch.setenv("COALMINE_PUSH_INTERVAL", "1")
    await until(prometheus.ready, "no Prometheus")
    run = await asyncio.to_thread(start)

    def ask(expression: str) -> list[dict[str, str]]:
        return [one["metric"] for one in prometheus.query(expression)]

    await until(lambda: ask("coalmine_drift_alarm_threshold_log") and ask("coalmine_route_weight"), "nothing arrived")
    told = await asyncio.to_thread(scraped, run)
    stored = ask('{__name__=~"coalmine_.+", job="coalmine-operator"}')
    assert {one["instance"] for one in stored} == {f"127.0.0.1:{run.info()['port']}"}
    ours = {key: value for key, value in told.items() if not key[0].startswith("coalmine_push")}
    assert {one["__name__"] for one in stored} >= {name for name, _ in ours}
    bins = {one["bin"] for one in stored if one["__name__"] == "coalmine_feature_baseline_ratio"}
    assert bins == {dict(labels)["bin"] for name, labels in ours if name == "coalmine_feature_baseline_ratio"}
    assert ask('coalmine_route_weight{job="default/fraud"}')


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("COALMINE_GRAPHITE", "nowhere", "COALMINE_GRAPHITE: 'nowhere' is no host:port"),
        (
            "COALMINE_OTLP",
            "http://u:s3cret@",
            "COALMINE_OTLP: no URL: write http://HOST:PORT/PATH or https://HOST/PATH",
        ),
    ],
)
def test_a_variable_that_says_nothing_is_one_line_and_nothing_starts(
    name: str, text: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fraud.yaml").write_text(manifest("v1"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, text)
    assert said(capsys, "run", "fraud.yaml", "--port", str(free_port()), "--web-port", "0") == (2, "", f"{line}\n")
    assert not (tmp_path / ".coalmine").exists()
