"""The admin port, on a real socket; its metrics are read by prometheus_client's parsers and by promtool."""

import asyncio
import os
import shutil
import tomllib
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic
from prometheus_client.samples import Sample

from coalmine_sidecar import VERSION
from coalmine_sidecar.admin import make_app
from coalmine_sidecar.contract import Observe, RevisionRoute, Routing, decode_snapshot
from coalmine_sidecar.observe.record import record
from coalmine_sidecar.observe.resources import ResourceReader
from coalmine_sidecar.protocols import Answer
from coalmine_sidecar.telemetry import Telemetry

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"

ROUTING = Routing(
    deployment="fraud",
    model="fraud",
    generation=7,
    epoch="1",
    revisions=(
        RevisionRoute(name="a", version="v1", track="stable", weight=90),
        RevisionRoute(name="b", version='v"2\\\n', track="canary", weight=10),
    ),
    observe=Observe(outputs={"score": (0.25, 0.5)}, thresholds=(0.1,)),
)


class Admin:
    """A running admin port and what its handlers read."""

    def __init__(self, telemetry: Telemetry, session: aiohttp.ClientSession) -> None:
        self.telemetry = telemetry
        self.session = session
        self.ready: bool | str = True

    async def get(self, path: str, accept: str = "*/*") -> tuple[int, str, str]:
        async with self.session.get(path, headers={"Accept": accept}) as answer:
            return answer.status, answer.headers["Content-Type"], await answer.text()

    async def samples(self, accept: str = "*/*") -> list[Sample]:
        _, content_type, text = await self.get("/metrics", accept)
        parse = parse_openmetrics if "openmetrics" in content_type else parse_classic
        return [sample for family in parse(text) for sample in family.samples]

    async def value(self, name: str, **labels: str) -> float:
        """The one sample of this name with (at least) these labels."""
        (found,) = [s.value for s in await self.samples() if s.name == name and labels.items() <= s.labels.items()]
        return found


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    pid_file = tmp_path / "pid"
    pid_file.write_text(str(os.getpid()))
    telemetry = Telemetry(pod="pod-1", revision="a", boot="boot")
    resources = ResourceReader(pid_file, memory_limit_bytes=1 << 40, cpu_limit_cores=2.0)
    runner = web.AppRunner(make_app(telemetry, ready=lambda: admin.ready, resources=resources, clock=lambda: 5.0))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as session:
        admin = Admin(telemetry, session)
        yield admin
    await runner.cleanup()


def use(telemetry: Telemetry) -> None:
    """A bit of everything, with what would break an exposition if it was not escaped."""
    telemetry.configure(ROUTING)
    for name in ("a", "b"):
        series = telemetry.series(name, "ingress")
        series.done(0, 200, 0.004, 0.0035, 95, 130)
        telemetry.decisions(name)[0] += 1
    telemetry.series("a", "local").done(2, 599, 0.004, 0.0035, 95, 130)
    answer = Answer(2, [("score", [0.3, None]), ('la"bel\n\\', ["x\\y\n", "ß\ud800"])], ["wide"])
    record(telemetry.series("b", "ingress"), telemetry.epoch("b"), answer, 0.0)
    telemetry.epoch("b").answered(200, 0.004)
    telemetry.fallback("b", "a", "reset")
    telemetry.reload_failed("no JSON")


@pytest.mark.parametrize("accept", ["*/*", OPENMETRICS])
async def test_no_series_stands_twice_and_none_names_a_client(admin: Admin, accept: str) -> None:
    use(admin.telemetry)
    samples = await admin.samples(accept)
    keys = [(s.name, *sorted(s.labels.items())) for s in samples]
    assert len(set(keys)) == len(keys)
    assert {label for s in samples for label in s.labels} == {
        "model", "version", "track", "role", "code", "outcome", "reason", "kind", "le",
        "output", "bin", "class", "from_version", "to_version", "python_version", "who",
    }  # fmt: skip
    assert len({s.name for s in samples}) > 30


async def test_the_content_type_follows_accept(admin: Admin) -> None:
    _, classic, text = await admin.get("/metrics")
    assert classic.startswith("text/plain; version=0.0.4")
    assert "# EOF" not in text
    _, openmetrics, text = await admin.get("/metrics", OPENMETRICS)
    assert openmetrics.startswith("application/openmetrics-text; version=1.0.0")
    assert text.count("# EOF") == 1
    assert text.endswith("# EOF\n")


async def test_counts_arrive(admin: Admin) -> None:
    use(admin.telemetry)
    stable = {"model": "fraud", "version": "v1", "track": "stable"}
    assert await admin.value("coalmine_requests_total", **stable, role="ingress", outcome="ok", code="200") == 1
    assert (
        await admin.value("coalmine_requests_total", **stable, role="local", outcome="model_error", code="_other") == 1
    )
    assert await admin.value("coalmine_request_duration_seconds_bucket", **stable, role="ingress", le="0.005") == 1
    assert await admin.value("coalmine_request_duration_seconds_bucket", **stable, role="ingress", le="0.0025") == 0
    assert await admin.value("coalmine_request_duration_seconds_count", **stable, role="ingress") == 1
    assert await admin.value("coalmine_request_size_bytes_bucket", **stable, role="ingress", le="256.0") == 1
    assert await admin.value("coalmine_overhead_seconds_sum", **stable, role="local") == pytest.approx(0.0005)
    assert await admin.value("coalmine_route_weight", **stable) == 90
    assert await admin.value("coalmine_predictions_total", track="canary") == 2
    assert await admin.value("coalmine_extract_failures_total", track="canary", reason="wide") == 1
    assert await admin.value("coalmine_route_decisions_total", track="canary", reason="weight") == 1
    assert await admin.value("coalmine_fallbacks_total", to_version="v1", reason="reset") == 1
    assert await admin.value("coalmine_routing_generation") == 7
    assert await admin.value("coalmine_routing_errors_total") == 1
    assert await admin.value("coalmine_output_class_total", **{"class": "x\\y?"}) == 1


async def test_all_bins_are_there_from_the_start(admin: Admin) -> None:
    admin.telemetry.configure(ROUTING)
    admin.telemetry.series("a", "ingress")
    bins = {s.labels["bin"]: s.value for s in await admin.samples() if s.name == "coalmine_output_bin_total"}
    assert bins == {"(-Inf,0.25)": 0, "[0.25,0.5)": 0, "[0.5,+Inf)": 0, "missing": 0}


async def test_labels_follow_a_promotion(admin: Admin) -> None:
    use(admin.telemetry)
    admin.telemetry.configure(
        Routing(
            deployment="fraud",
            model="fraud",
            generation=8,
            revisions=(RevisionRoute(name="b", version="v2", track="stable", weight=100),),
        )
    )
    assert await admin.value("coalmine_requests_total", role="ingress", version="v2", track="stable") == 1
    assert await admin.value("coalmine_requests_total", role="ingress", version="v1", track="retired") == 1


async def test_resources_beside_their_limits(admin: Admin) -> None:
    use(admin.telemetry)
    assert 10 << 20 < await admin.value("coalmine_model_memory_bytes", kind="rss") < 1 << 40
    assert await admin.value("coalmine_model_memory_bytes", kind="limit", version="v1") == 1 << 40
    assert await admin.value("coalmine_model_cpu_seconds_total", version="v1") > 0
    assert await admin.value("coalmine_model_cpu_limit_cores") == 2.0


async def test_before_any_routing_file(admin: Admin) -> None:
    assert await admin.value("coalmine_routing_generation") == 0
    assert (await admin.get("/readyz"))[::2] == (503, "no routing file yet\n")
    admin.telemetry.reload_failed("routing file: no JSON")
    assert (await admin.get("/readyz"))[::2] == (503, "routing file: no JSON\n")


async def test_health_and_readiness(admin: Admin) -> None:
    admin.telemetry.configure(ROUTING)
    assert (await admin.get("/readyz"))[::2] == (200, "ok\n")
    admin.ready = False
    assert (await admin.get("/readyz"))[::2] == (503, "the model is not ready\n")
    admin.ready = "the model's port refuses connections"
    assert (await admin.get("/readyz"))[::2] == (503, "the model's port refuses connections\n")
    admin.ready = True
    admin.telemetry.draining = True
    assert (await admin.get("/readyz"))[::2] == (200, "ok\n"), "the last pods of a Service serve to their end"
    assert await admin.value("coalmine_draining") == 1
    assert (await admin.get("/healthz"))[::2] == (200, "ok\n")


async def test_the_snapshot_is_the_contract(admin: Admin) -> None:
    use(admin.telemetry)
    status, content_type, text = await admin.get("/snapshot")
    assert (status, content_type.split(";")[0]) == (200, "application/json")
    snapshot = decode_snapshot(text.encode())
    assert (snapshot.at, snapshot.generation, snapshot.weights) == (5.0, 7, {"a": 90, "b": 10})
    assert snapshot.epochs["1"]["b"].outputs["score"].bins == [0, 1, 0]
    assert snapshot.model
    assert snapshot.model.memory_limit_bytes == 1 << 40
    assert snapshot.totals["b"].values == {}
    _, _, text = await admin.get("/snapshot?values=1")
    assert decode_snapshot(text.encode()).totals["b"].values == {"score": [0.3]}


async def test_get_only(admin: Admin) -> None:
    for path in ("/metrics", "/snapshot", "/healthz", "/readyz"):
        async with admin.session.post(path) as answer:
            assert answer.status == 405


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian's prometheus package) is not installed")
async def test_promtool_has_nothing_to_say(admin: Admin) -> None:
    use(admin.telemetry)
    _, _, text = await admin.get("/metrics")
    promtool = await asyncio.create_subprocess_exec(
        "promtool", "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await promtool.communicate(text.encode())
    assert said.strip() == b""
    assert promtool.returncode == 0


def test_the_sidecar_knows_the_version_of_the_project():
    assert tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"] == VERSION
