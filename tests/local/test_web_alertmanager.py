"""A real Alertmanager sends to the webhook: firing, refused and sent again, resolved."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from tests.local.backend import Behind

from coalmine_operator.sources.alerts import fingerprint
from coalmine_operator.web.app import make_app
from coalmine_operator.web.metrics import Metrics
from coalmine_operator.web.server import WebServer

ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
TOKEN = "a-token-of-alertmanagers"
LABELS = {"alertname": "Slow", "model": "fraud", "severity": "critical"}

pytestmark = pytest.mark.skipif(
    ALERTMANAGER is None, reason="no alertmanager here: apt-get install prometheus-alertmanager"
)


@contextlib.asynccontextmanager
async def alertmanager(folder: Path, webhook: str) -> AsyncIterator[str]:
    """Its URL, once it is ready."""
    (folder / "token").write_text(TOKEN + "\n")
    config = {
        "route": {
            "receiver": "coalmine",
            "group_by": ["alertname", "model"],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        },
        "receivers": [
            {
                "name": "coalmine",
                "webhook_configs": [
                    {
                        "url": webhook,
                        "send_resolved": True,
                        "max_alerts": 200,
                        "http_config": {"authorization": {"credentials_file": str(folder / "token")}},
                    }
                ],
            }
        ],
    }
    (folder / "alertmanager.yml").write_text(json.dumps(config))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert ALERTMANAGER
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            ALERTMANAGER,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            while True:
                assert process.returncode is None, (folder / "log").read_text()
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(url + "/-/ready") as answer:
                        if answer.status == 200:
                            break
                await asyncio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def send(url: str, *, ends_at: dt.datetime | None = None) -> None:
    alert: dict[str, object] = {"labels": LABELS, "annotations": {"summary": "p99 is 0.9 s"}}
    if ends_at:
        alert["endsAt"] = ends_at.isoformat()
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + "/api/v2/alerts", json=[alert]) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(40):
        while not true():  # noqa: ASYNC110 - what is waited for is done by a server, which sets no event
            await asyncio.sleep(0.05)


async def test_firing_sent_again_after_503_and_resolved(tmp_path: Path) -> None:
    behind, metrics = Behind(), Metrics()
    server = WebServer("127.0.0.1", 0)
    await server.serve(make_app(behind, alerts_token=TOKEN, api_token="x", metrics=metrics))
    refused = {"result": "refused"}
    try:
        async with alertmanager(tmp_path, f"http://127.0.0.1:{server.port}/alerts") as url:
            behind.full = True
            await send(url)
            await until(lambda: metrics.registry.get_sample_value("coalmine_operator_alerts_received_total", refused))
            assert behind.heard == []
            behind.full = False
            await until(lambda: len(behind.heard) == 1)
            key, (event,) = behind.heard[0]
            assert (key, event.name, event.labels, event.resolved_at) == ("default/fraud", "Slow", LABELS, 0)
            assert event.fingerprint == fingerprint(LABELS)
            assert abs(event.received_at - event.starts_at) < 60

            await send(url, ends_at=dt.datetime.now(dt.UTC))
            await until(lambda: len(behind.heard) == 2)
            _, (resolved,) = behind.heard[1]
            assert resolved.fingerprint == event.fingerprint
            assert 0 < resolved.resolved_at <= resolved.received_at
    finally:
        await server.close()
