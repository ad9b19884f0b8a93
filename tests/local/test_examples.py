"""The example models, their server over real HTTP, and the load generator against it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from examples import train
from examples.load import DelayedLabels, Load

ROOT = Path(__file__).resolve().parents[2]
ROW = [0.5] * 30


def call(url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@contextmanager
def serve(version: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {"PORT": str(port), "MODEL_NAME": "tumours", "MODEL_VERSION": version}
    process = subprocess.Popen([sys.executable, ROOT / "examples/model_server.py"], env=env, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the model server ended"
            try:
                if call(f"{url}/v2/health/ready")[0] == 200:
                    break
            except OSError:
                pass
            time.sleep(0.05)
        else:
            pytest.fail("the model server did not get ready within 30 s")
        yield url, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def v2() -> Iterator[str]:
    with serve("v2") as (url, _):
        yield url


def tensor(data: Any = None, **changes: Any) -> dict[str, Any]:
    plain = {"name": "features", "datatype": "FP64", "shape": [1, 30], "data": ROW if data is None else data}
    return {"inputs": [plain | changes]}


def test_successor_is_better_and_forgotten_scaling_is_bad_on_held_out_rows() -> None:
    rows, labels = train.held_out()
    early, boosted = train.load_model("v1"), train.load_model("v2")

    def accuracy(probability: Any) -> float:
        return float(((probability >= 0.5) == labels).mean())

    v1, v2 = accuracy(early.probability(rows)), accuracy(boosted.probability(rows))
    v3 = boosted.probability(rows, forget_scaling=True)
    assert v2 > v1 + 0.01 > 0.9
    assert accuracy(v3) < 0.6
    # What the demo's drift metric lives on: how many are called malignant.
    assert abs((boosted.probability(rows) >= 0.5).mean() - (early.probability(rows) >= 0.5).mean()) < 0.03
    assert (v3 >= 0.5).mean() > 0.9


def test_held_out_rows_were_not_trained_on() -> None:
    trained, _, _, _ = train.split()
    rows, labels = train.held_out()
    assert not {tuple(r) for r in trained.tolist()} & {tuple(r) for r in rows.tolist()}
    assert len(rows) == len(labels) == 285


def test_training_again_on_an_empty_cache_gives_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = train.held_out()
    first = train.load_model("v2").probability(rows)
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path))
    again = train.load_model("v2").probability(rows)
    assert (first == again).all()
    assert sorted(p.name for p in train.folder().iterdir()) == ["held_out.npz", "v1.npz", "v2.npz"]


def test_what_is_served_is_what_was_fitted() -> None:
    rows, labels, held, _ = train.split()
    for pipeline, name, columns in zip(train.fit(rows, labels), ("v1", "v2"), (10, 30), strict=True):
        for each in (held, held[:1]):
            expected = pipeline.predict_proba(each[:, :columns])[:, 1]
            assert train.load_model(name).probability(each) == pytest.approx(expected, abs=1e-12)
        unscaled = pipeline[-1].predict_proba(held[:, :columns])[:, 1]
        assert train.load_model(name).probability(held, forget_scaling=True) == pytest.approx(unscaled, abs=1e-12)


def test_health_and_metadata(v2: str) -> None:
    for path in ("health/live", "health/ready", "models/tumours/ready", "models/tumours/versions/v2/ready"):
        assert call(f"{v2}/v2/{path}")[0] == 200
    for path in ("models/tumours", "models/tumours/versions/v2"):
        status, answer = call(f"{v2}/v2/{path}")
        assert status == 200
        assert answer["name"] == "tumours"
        assert answer["versions"] == ["v2"]
        assert answer["inputs"] == [{"name": "features", "datatype": "FP64", "shape": [-1, 30]}]
        assert {o["name"]: o["datatype"] for o in answer["outputs"]} == {"probability": "FP64", "label": "INT64"}


def test_infer_answers_every_row_and_echoes_the_id(v2: str) -> None:
    rows = train.held_out()[0][:3]
    expected = train.load_model("v2").probability(rows).tolist()
    for data in (rows.tolist(), rows.ravel().tolist()):
        status, answer = call(f"{v2}/v2/models/tumours/infer", {"id": "a1"} | tensor(data, shape=[3, 30]))
        assert status == 200
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a1", "tumours", "v2")
        probability, label = answer["outputs"]
        assert probability == {"name": "probability", "datatype": "FP64", "shape": [3], "data": expected}
        assert label == {"name": "label", "datatype": "INT64", "shape": [3], "data": [int(p >= 0.5) for p in expected]}


def test_infer_without_id_and_with_one_output_asked_for(v2: str) -> None:
    status, answer = call(f"{v2}/v2/models/tumours/versions/v2/infer", tensor() | {"outputs": [{"name": "label"}]})
    assert status == 200
    assert "id" not in answer
    assert [o["name"] for o in answer["outputs"]] == ["label"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "no JSON"),
        ([], "object"),
        ({}, "inputs"),
        ({"inputs": [1]}, "inputs"),
        ({"id": 7} | tensor(), "id"),
        (tensor(name="x"), "inputs[0].name"),
        (tensor(datatype="BYTES"), "inputs[0].datatype"),
        (tensor(shape=[1, 29]), "29 features"),
        (tensor(shape=[30]), "inputs[0].shape"),
        (tensor(shape=[True, 30]), "inputs[0].shape"),
        (tensor(shape=[2, 30]), "needs 60"),
        (tensor(["x"] * 30), "inputs[0].data"),
        (tensor([None] * 30), "not finite"),
        (tensor([[1.0], [2.0, 3.0]]), "inputs[0].data"),
        (tensor() | {"outputs": [{"name": "nope"}]}, "nope"),
        (tensor() | {"outputs": ["label"]}, "outputs"),
    ],
)
def test_bad_requests_get_one_line_that_says_what_to_mend(v2: str, body: Any, says: str) -> None:
    status, answer = call(f"{v2}/v2/models/tumours/infer", body)
    assert status == 400
    assert list(answer) == ["error"]
    assert says in answer["error"]
    assert "\n" not in answer["error"]


def test_unknown_models_versions_and_methods(v2: str) -> None:
    assert "is not served here" in call(f"{v2}/v2/models/other/infer", tensor())[1]["error"]
    for path in ("models/other/infer", "models/tumours/versions/v9/infer", "nothing"):
        assert call(f"{v2}/v2/{path}", tensor())[0] == 404
    status, answer = call(f"{v2}/v2/models/tumours/infer")
    assert (status, list(answer)) == (405, ["error"])
    binary = {"Inference-Header-Content-Length": "10"}
    assert call(f"{v2}/v2/models/tumours/infer", tensor(), binary)[0] == 400


async def test_v4_says_what_v2_says_but_late_and_sigterm_waits_for_it() -> None:
    rows = train.held_out()[0][:1]
    expected = train.load_model("v2").probability(rows).tolist()
    with serve("v4") as (url, process):
        start = time.monotonic()
        asked = asyncio.create_task(asyncio.to_thread(call, f"{url}/v2/models/tumours/infer", tensor(rows.tolist())))
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        status, answer = await asked
        assert time.monotonic() - start >= 0.3
        assert status == 200
        assert answer["model_version"] == "v4"
        assert answer["outputs"][0]["data"] == expected
        assert await asyncio.to_thread(process.wait, 10) == 0


def test_the_manifest_is_good_for_this_machine() -> None:
    lint = [Path(sys.executable).with_name("coalmine"), "lint", "--local", "examples/breast-cancer.yaml"]
    ended = subprocess.run(lint, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "examples/breast-cancer.yaml: ok: 1 ModelDeployment\n"


@pytest.mark.skipif(not (ROOT / ".venv/bin/python").exists(), reason="the manifest names the environment in .venv")
def test_the_manifest_runs_as_it_is(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("coalmine"), "run", ROOT / "examples/breast-cancer.yaml"]
    command += ["--state", tmp_path / "state", "--port", str(port), "--web-port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        status, answer, end = 0, {}, time.monotonic() + 60
        while status != 200 and time.monotonic() < end and run.poll() is None:
            time.sleep(0.2)
            with suppress(OSError, ValueError):  # nobody there, or not yet a model
                status, answer = call(f"http://127.0.0.1:{port}/v2/models/breast-cancer/infer", tensor())
        run.send_signal(signal.SIGTERM)
        output = run.communicate(timeout=60)[0]
    assert status == 200, output
    assert (answer["model_name"], answer["model_version"]) == ("breast-cancer", "v1")
    assert run.returncode == 0, output


def test_unknown_version_is_refused_in_one_line() -> None:
    env = os.environ | {"MODEL_VERSION": "v9"}
    ended = subprocess.run([sys.executable, ROOT / "examples/model_server.py"], env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (1, "MODEL_VERSION: 'v9' is none of v1, v2, v3, v4\n")


async def _for(load: Load, seconds: float) -> None:
    asyncio.get_running_loop().call_later(seconds, load.stop)
    await load.run()


async def test_load_against_the_model_server_counts_answers_and_joins_labels(v2: str) -> None:
    rows, labels = train.held_out()
    load = Load(f"{v2}/v2/models/tumours/infer", rows, labels, rate=100, label_delay=0.2)
    await _for(load, 1.5)
    assert len(load.records) > 50
    assert load.errors == []
    assert {r.version for r in load.records} == {"v2"}
    assert all(0 < r.sent <= r.done for r in load.records)
    assert load.labels.right["v2"] + load.labels.wrong["v2"] == len(load.records)
    assert load.labels.unmatched == 0
    assert load.labels.accuracy()["v2"] > 0.85


async def test_every_injected_fault_is_a_client_error_and_nothing_else_is(unused_port: int) -> None:
    seen: list[str] = []

    async def infer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        seen.append(body["id"])
        kind = len(seen) % 6
        good = {"id": body["id"], "model_name": "m", "model_version": "v7", "outputs": [{"name": "label", "data": [1]}]}
        if kind == 1:
            raise web.HTTPServiceUnavailable
        if kind == 2:
            assert request.transport is not None
            request.transport.close()
        if kind == 3:
            await asyncio.sleep(3)
        if kind == 4:
            good["id"] = "another"
        return web.json_response({} if kind == 5 else good, headers={"coalmine-revision": "m-7"})

    app = web.Application()
    app.router.add_post("/infer", infer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_port).start()
    rows, labels = train.held_out()
    load = Load(f"http://127.0.0.1:{unused_port}/infer", rows, labels, rate=60, timeout=2)
    await _for(load, 0.8)
    await runner.cleanup()

    by_id = {r.id: r for r in load.records}
    wrong = {request for n, request in enumerate(seen, 1) if n % 6}
    assert len(seen) == len(load.records) >= 24
    assert {r.id for r in load.errors} == wrong
    assert {by_id[r].version for r in seen if r not in wrong} == {"v7"}
    assert {r.revision for r in load.records if not r.error} == {"m-7"}
    assert load.labels.unmatched == len(wrong)


async def test_requests_beyond_the_bound_are_counted_not_sent(unused_port: int) -> None:
    load = Load(f"http://127.0.0.1:{unused_port}/infer", *train.held_out(), rate=200, in_flight=2, timeout=0.4)
    with socket.create_server(("127.0.0.1", unused_port)):  # connects, never answers
        await _for(load, 0.3)
    assert len(load.records) == 2
    assert load.held_back > 10
    assert [r.error for r in load.records] == ["no whole answer in time"] * 2


async def test_a_refused_connection_is_a_client_error(unused_port: int) -> None:
    load = Load(f"http://127.0.0.1:{unused_port}/infer", *train.held_out(), rate=50)
    await _for(load, 0.1)
    assert load.records
    assert all("Connect" in r.error for r in load.records)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_labels_join_by_id_only_when_they_arrive() -> None:
    labels = DelayedLabels(delay=2.0)
    for request, truth, said in (("a", 1, 1), ("b", 0, 1), ("c", 1, None)):
        labels.sent(request, truth, now=10.0)
        if said is not None:
            labels.answered(request, "v1", said)
    labels.arrive(11.9)
    assert labels.accuracy() == {}
    labels.arrive(12.0)
    assert labels.accuracy() == {"v1": 0.5}
    assert labels.unmatched == 1
    labels.answered("c", "v2", 1)  # slower than its label
    assert labels.accuracy() == {"v1": 0.5, "v2": 1.0}
    assert labels.unmatched == 0
