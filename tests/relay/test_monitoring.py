"""Monitored requests: read with their answers once these are out, named by an id, their feedback taken aside."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from tests.relay.harness import Client, Pod, Upstream, answer, eventually, get, post, revision, routing, says

from coalmine_sidecar.contract import Routing
from coalmine_sidecar.telemetry.exposition import expose
from coalmine_sidecar.telemetry.snapshot import take_snapshot

INSTANCES = b'{"instances": [{"age": 33, "state": "CA"}, {"age": null, "state": "TX"}, {"state": 5}]}'
SCORES = b'{"predictions": [{"score": 0.9}, {"score": 0.2}, {"score": 0.4}]}'
SHARED = frozenset({"model", "version", "track"})
PREDICT = "/v1/models/m:predict"
JSON = "Content-Type: application/json\r\n"
MONITORING: dict[str, Any] = {
    "features": [{"name": "age"}, {"name": "state", "type": "categorical"}],
    "slices": [{"attribute": "sex", "header": "x-sex"}, {"attribute": "state", "path": "state"}],
    "prediction": {"score": "score"},
    "feedback": {},
    "baselines": {
        "a": {
            "digest": "sha256:1",
            "features": {"age": {"edges": [20, 40], "center": 30}, "state": {"categories": ["CA"]}},
            "outputs": {"score": {"edges": [0.5], "center": 0.5}},
            "score": {"edges": [0.5], "calibration": [0.1, 0.8]},
        }
    },
}


def monitored(**more: Any) -> Routing:
    return routing(revision("a", 100), monitoring=MONITORING | more)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    model = Upstream(says(answer(SCORES)))
    await model.start()
    yield model
    await model.stop()


@pytest.fixture
def labels() -> list[bytes]:
    """What came as feedback."""
    return []


@pytest.fixture
async def taker(labels: list[bytes]) -> AsyncIterator[int]:
    async def take(request: web.Request) -> web.Response:
        labels.append(await request.read())
        return web.json_response({"accepted": 1}, status=202)

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
async def pod(upstream: Upstream, taker: int) -> AsyncIterator[Pod]:
    pod = Pod(upstream.port, monitored(), feedback=("127.0.0.1", taker))
    await pod.start()
    yield pod
    await pod.stop()


def exposed(pod: Pod) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of those labels that are not the same for all, in the order of their names."""
    _, pieces = expose(pod.telemetry, "")
    families = text_string_to_metric_families(b"".join(pieces).decode())
    return {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name not in SHARED)): sample.value
        for family in families
        for sample in family.samples
    }


async def test_features_slices_and_estimates_are_counted(pod: Pod) -> None:
    reply = await pod.ask(post(INSTANCES, PREDICT, JSON + "X-Sex: F\r\n"))
    assert reply.status == 200
    await eventually(lambda: pod.series().predictions == 3)
    samples = exposed(pod)
    bins = {tuple(labels): value for (name, *labels), value in samples.items() if name == "coalmine_feature_bin_total"}
    assert bins == {
        ("(-Inf,20.0)", "age"): 0, ("[20.0,40.0)", "age"): 1, ("[40.0,+Inf)", "age"): 0, ("missing", "age"): 2,
        ("unseen", "age"): 0, ("CA", "state"): 1, ("missing", "state"): 0, ("unseen", "state"): 2,
    }  # fmt: skip
    assert samples["coalmine_feature_deviation_total", "age", "above"] == 3
    assert samples["coalmine_output_bin_total", "[0.5,+Inf)", "score"] == 1
    assert samples["coalmine_output_squared_deviation_total", "score"] == pytest.approx(0.16 + 0.09 + 0.01)
    assert samples["coalmine_score_total", "000", "1", "estimate"] == pytest.approx(0.2)
    assert samples["coalmine_score_total", "001", "1", "estimate"] == pytest.approx(0.8)
    assert samples["coalmine_slice_predictions_total", "sex", "F", "0"] == 2
    assert samples["coalmine_slice_predictions_total", "state", "CA", "1"] == 1
    monitored = take_snapshot(pod.telemetry, at=0.0).totals["a"].monitored
    assert monitored is not None
    assert (monitored.digest, monitored.features["age"].bins) == ("sha256:1", [0, 1, 0])
    assert monitored.outputs["score"].bins == [2, 1]


async def test_a_prediction_has_the_clients_id_or_one_of_ours(pod: Pod) -> None:
    reply = await pod.ask(post(INSTANCES, PREDICT, JSON + "X-Prediction-Id: order-7\r\n"))
    assert reply.header("x-prediction-id") == "order-7"
    reply = await pod.ask(post(INSTANCES, PREDICT, JSON))
    assert reply.header("x-prediction-id") == dict(reply.identity)["x-request-id"]
    pod.relay.use(monitored(predictionId={"header": "x-id", "generate": False}))
    reply = await pod.ask(post(INSTANCES, PREDICT, JSON + "X-Id: order-8\r\n"))
    assert (reply.header("x-id"), reply.header("x-prediction-id")) == ("order-8", None)
    assert (await pod.ask(post(INSTANCES, PREDICT, JSON))).header("x-id") is None


async def test_an_id_that_is_too_long_is_none(pod: Pod) -> None:
    reply = await pod.ask(post(INSTANCES, PREDICT, JSON + f"X-Prediction-Id: {'i' * 300}\r\n"))
    assert reply.header("x-prediction-id") == dict(reply.identity)["x-request-id"]


async def test_feedback_goes_aside_and_is_nobodys_request(pod: Pod, upstream: Upstream, labels: list[bytes]) -> None:
    client = await Client.connect(pod.ingress)
    other = await Client.connect(pod.local)
    for path in ("/feedback", "/feedback?from=shop"):
        reply = await client.ask(post(b'{"predictionId": "1", "label": 1}', path, JSON))
        assert (reply.status, json.loads(reply.body)) == (202, {"accepted": 1})
        assert reply.revision is None
    assert len(labels) == 2
    assert upstream.requests == []
    assert pod.outcomes() == {}
    # Another path that begins in the same way is the model's, on the same connection.
    assert (await client.ask(post(INSTANCES, "/feedbacks", JSON))).status == 200
    assert len(upstream.requests) == 1
    # From another pod, which had no prediction of that name.
    assert (await other.ask(post(b"{}", "/feedback", JSON))).status == 202
    for one in (client, other):
        await one.close()


async def test_without_monitoring_nothing_of_it_is_there(pod: Pod, upstream: Upstream, labels: list[bytes]) -> None:
    pod.relay.use(routing(revision("a", 100)))
    reply = await pod.ask(post(b'{"predictionId": "1"}', "/feedback", JSON + "X-Prediction-Id: 1\r\n"))
    assert reply.header("x-prediction-id") is None
    assert (len(upstream.requests), labels) == (1, [])
    assert not [name for name, *_ in exposed(pod) if name.startswith(("coalmine_feature", "coalmine_slice"))]


async def test_requests_that_cannot_be_read_are_counted_by_reason(pod: Pod) -> None:
    wrong = {
        "not_json": post(b'{"instances": [', PREDICT, JSON),
        "encoding": post(b"\x1f\x8b" + INSTANCES, PREDICT, JSON),
    }
    for reason, request in wrong.items():
        assert (await pod.ask(request)).status == 200
        await eventually(lambda reason=reason: pod.series().watched.read_failures[reason] == 1)
    assert (await pod.ask(post(b"", PREDICT, JSON))).status == 200
    await eventually(lambda: pod.series().watched.read_failures["not_json"] == 2)
    pod.relay.use(routing(revision("a", 100), monitoring=MONITORING, limits={"replayBytes": 10}))
    assert (await pod.ask(post(INSTANCES, PREDICT, JSON))).status == 200
    await eventually(lambda: pod.series().watched.read_failures["size"] == 1)
    assert pod.series().predictions == 12  # what was answered counts all the same


async def test_a_label_beside_a_score_is_the_choice_only_where_it_is_said_to_be(pod: Pod, upstream: Upstream) -> None:
    rows = json.dumps({"predictions": [{"score": 0.9, "decision": "no"}] * 3}).encode()
    upstream.handle = says(answer(rows))
    sex = "coalmine_slice_predictions_total", "sex", "F"
    await pod.ask(post(INSTANCES, PREDICT, JSON + "X-Sex: F\r\n"))
    await eventually(lambda: pod.series().predictions == 3)
    assert (exposed(pod)[*sex, "1"], exposed(pod)[*sex, "0"]) == (3, 0)
    pod.relay.use(monitored(prediction={"score": "score", "label": "decision", "positive": "yes"}))
    await pod.ask(post(INSTANCES, PREDICT, JSON + "X-Sex: F\r\n"))
    await eventually(lambda: pod.series().predictions == 6)
    assert exposed(pod)[*sex, "0"] == 3


async def test_numbers_that_are_none_are_told_from_what_is_not_there(pod: Pod, upstream: Upstream) -> None:
    upstream.handle = says(answer(b'{"predictions": [{"score": NaN}]}'))
    await pod.ask(post(b'{"instances": [{"age": Infinity}]}', PREDICT, JSON))
    await eventually(lambda: pod.series().predictions == 1)
    samples = exposed(pod)
    assert (
        samples["coalmine_feature_nonfinite_total", "age"] == samples["coalmine_output_nonfinite_total", "score"] == 1
    )
    assert samples["coalmine_feature_bin_total", "missing", "age"] == 1


async def test_answers_without_a_prediction(pod: Pod, upstream: Upstream) -> None:
    upstream.handle = says(answer(b'{"predictions": [[null], [null]]}'))
    await pod.ask(post(INSTANCES, PREDICT, JSON))
    await eventually(lambda: pod.series().predictions == 2)
    await asyncio.sleep(0)
    assert pod.series().watched.performance.labels == 0
    assert (await pod.ask(get("/v2/health/ready"))).status == 200


async def test_bins_go_on_under_a_new_routing_file_and_begin_anew_with_a_new_baseline(pod: Pod) -> None:
    await pod.ask(post(INSTANCES, PREDICT, JSON))
    await eventually(lambda: pod.series().predictions == 3)
    pod.relay.use(routing(revision("a", 100), monitoring=MONITORING, generation=2))
    assert pod.series().watched.features["age"].values == 3
    other = {"a": MONITORING["baselines"]["a"] | {"digest": "sha256:2"}}
    pod.relay.use(monitored(baselines=other))
    assert pod.series().watched.features["age"].values == 0
