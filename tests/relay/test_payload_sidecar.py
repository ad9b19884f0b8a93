"""A sidecar that logs payloads, as a process of its own, to a sink of KServe's events and to a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from tests.relay.harness import V2, Client, Upstream, post, revision, routing
from tests.relay.process import Sidecar, replace, sidecar
from tests.unit.test_payload_http import Receiver

from coalmine_sidecar.payload.event import REQUEST, RESPONSE

BODY = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [0.5], "parameters": {"ssn": "s3cret"}}]}'
JSON = "Content-Type: application/json\r\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "routing.json"


def write(file: Path, payload_log: dict[str, Any] | None, generation: int = 1) -> None:
    monitoring = {"monitoring": {"payloadLog": payload_log}} if payload_log is not None else {"monitoring": {}}
    replace(file, routing(revision("a", 100), namespace="ml", generation=generation, **monitoring))


async def counted(running: Sidecar) -> dict[str, float]:
    """Events by outcome, and how many are queued."""
    lines = (await running.get("/metrics"))[1].decode().splitlines()
    figures = dict(line.rsplit(" ", 1) for line in lines if line.startswith("coalmine_payload_log_"))
    outcomes = {name: figure for name, figure in figures.items() if name.startswith("coalmine_payload_log_total{")}
    found = {name.split('outcome="')[1].split('"')[0]: float(figure) for name, figure in outcomes.items()}
    return found | {"queued": float(figures["coalmine_payload_log_queued"])} if found else {}


async def until(running: Sidecar, true: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    found: dict[str, float] = {}
    for _ in range(1000):
        found = await counted(running)
        if true(found):
            return found
        await asyncio.sleep(0.02)
    pytest.fail(f"{found}")


async def ask(running: Sidecar, times: int, body: bytes = BODY) -> list[str | None]:
    """The ids that the answers have."""
    client = await Client.connect(running.ingress)
    ids = []
    for _ in range(times):
        answer = await client.ask(post(body, headers=JSON))
        assert answer.status == 200
        ids.append(answer.header("x-prediction-id"))
    await client.close()
    return ids


async def test_a_sink_gets_requests_and_answers_with_the_ids_that_clients_got(model: Upstream, file: Path) -> None:
    receiver = Receiver()
    runner = await receiver.start()
    write(file, {"percent": 100, "url": receiver.url, "redact": ["$.inputs[*].parameters.ssn"]})
    async with sidecar(file, model.port) as running:
        ids = await ask(running, 5)
        await until(running, lambda found: found["sent"] == 10)
    await runner.cleanup()
    assert len(set(ids)) == 5
    assert None not in ids
    by_id = {(headers["ce-id"], headers["ce-type"]): (headers, body) for headers, body in receiver.got}
    assert set(by_id) == {(one, kind) for one in ids for kind in (REQUEST, RESPONSE)}
    headers, body = by_id[str(ids[0]), REQUEST]
    assert json.loads(body)["inputs"][0]["parameters"] == {"ssn": "[redacted]"}
    assert headers["ce-path"] == "/v2/models/m/infer"
    assert headers["ce-source"] == "/namespaces/ml/modeldeployments/d/pods/p"
    headers, body = by_id[str(ids[0]), RESPONSE]
    assert json.loads(body) == json.loads(V2)
    assert headers["content-type"] == "application/json"
    assert (headers["ce-revision"], headers["ce-version"], headers["ce-track"]) == ("a", "a", "stable")
    assert headers["ce-status"] == "200"
    assert "s3cret" not in str(receiver.got)


async def test_a_sink_that_hangs_never_reaches_a_client(model: Upstream, file: Path) -> None:
    """Far more than its queue holds; every request is answered, and every event accounted for."""
    receiver = Receiver()
    receiver.hangs = True
    runner = await receiver.start()
    write(file, {"percent": 100, "url": receiver.url})
    async with sidecar(file, model.port, "--observe-share=1") as running:
        await ask(running, 1500)
        found = await until(running, lambda found: found["dropped_queue"] > 0)
        assert found["sent"] == 0
        running.terminate()
        status, said = await running.ended(60)
    await runner.cleanup()
    assert status == 0
    assert "Traceback" not in said


async def test_lines_in_a_file_are_there_when_the_sidecar_has_ended(
    model: Upstream, file: Path, tmp_path: Path
) -> None:
    write(file, {"percent": 100, "file": str(tmp_path / "log/payloads.jsonl")})
    async with sidecar(file, model.port) as running:
        ids = await ask(running, 20)
        running.terminate()
        assert (await running.ended())[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "log/payloads.p.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines if line["type"] == REQUEST] == ids
    assert [line["id"] for line in lines if line["type"] == RESPONSE] == ids
    assert lines[0]["data"] == json.loads(BODY)
    assert lines[1]["data"] == json.loads(V2)


async def test_parquet_is_there_when_the_sidecar_has_ended_or_gathers_no_longer(
    model: Upstream, file: Path, tmp_path: Path
) -> None:
    """Two requests are not enough for a file until one of these comes."""
    payload_log = {"percent": 100, "file": str(tmp_path / "log/payloads.parquet"), "redact": ["$.inputs[0].parameters"]}
    write(file, payload_log)
    async with sidecar(file, model.port) as running:
        ids = await ask(running, 2)
        assert (await until(running, lambda found: found["queued"] == 4))["sent"] == 0
        write(file, payload_log | {"maxBytes": 1000}, 2)
        await until(running, lambda found: found["sent"] == 4)
        ids += await ask(running, 2)
        await until(running, lambda found: found["queued"] == 4)
        running.terminate()
        assert (await running.ended())[0] == 0
    paths = sorted((tmp_path / "log").iterdir())
    rows = [row for path in paths for row in parquet.read_table(path).to_pylist()]
    assert len(paths) == 2
    assert [row["id"] for row in rows if row["type"] == REQUEST] == ids
    assert [row["id"] for row in rows if row["type"] == RESPONSE] == ids
    assert json.loads(rows[0]["data"])["inputs"][0]["parameters"] == "[redacted]"
    assert json.loads(rows[1]["data"]) == json.loads(V2)
    assert rows[1]["status"] == "200"


async def test_a_routing_file_turns_it_on_and_off(model: Upstream, file: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.p.jsonl", tmp_path / "b.p.jsonl"
    write(file, None)
    async with sidecar(file, model.port) as running:

        async def configured(payload_log: dict[str, Any] | None, generation: int) -> None:
            write(file, payload_log, generation)
            for _ in range(1000):
                if f"coalmine_routing_generation {generation}.0" in (await running.get("/metrics"))[1].decode():
                    return
                await asyncio.sleep(0.02)
            pytest.fail("the routing file did not come into force")

        await ask(running, 1)
        assert await counted(running) == {}
        await configured({"percent": 100, "file": str(tmp_path / "a.jsonl")}, 2)
        await ask(running, 2)
        await until(running, lambda found: found["sent"] == 4)
        await configured({"percent": 100, "file": str(tmp_path / "b.jsonl")}, 3)
        await ask(running, 3)
        await until(running, lambda found: found["sent"] == 10)
        await configured(None, 4)
        await ask(running, 4)
        assert (await counted(running))["sent"] == 10
    assert first.read_bytes().count(b"\n") == 4
    assert second.read_bytes().count(b"\n") == 6
