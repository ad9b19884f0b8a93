"""The operator's HTTP over a real server: tokens, hosts, malformed bodies, what is durable and what is sent again."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from tests.local.backend import Behind

from coalmine_operator.api.codec import from_json
from coalmine_operator.sources import alerts
from coalmine_operator.web import app as web_app
from coalmine_operator.web.metrics import Metrics
from coalmine_operator.web.view import DeploymentView

ALERTS_TOKEN = "alerts-token"
API_TOKEN = "api-token"
SLOW = {
    "status": "firing",
    "labels": {"alertname": "Slow", "model": "fraud"},
    "startsAt": "2026-11-21T22:00:00Z",
    "fingerprint": "aa",
}


class Site:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def ask(self, method: str, path: str, token: str = "", **more: Any) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.session.request(
            method, self.url + path, headers=headers | more.pop("headers", {}), **more
        ) as answer:
            return answer.status, await answer.text()

    async def webhook(self, *raw: dict[str, Any], **fields: Any) -> tuple[int, str]:
        body = {"version": "4", "alerts": list(raw), **fields}
        return await self.ask("POST", "/alerts", ALERTS_TOKEN, data=json.dumps(body))


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def site(behind: Behind, metrics: Metrics) -> AsyncIterator[Site]:
    app = web_app.make_app(
        behind, alerts_token=ALERTS_TOKEN, api_token=API_TOKEN, metrics=metrics, clock=lambda: 1_795_300_000.0
    )
    runner = web.AppRunner(app)
    await runner.setup()
    server = web.TCPSite(runner, "127.0.0.1", 0)
    await server.start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as session:
        yield Site(f"http://{host}:{port}", session)
    await runner.cleanup()


async def test_a_matching_alert_reaches_its_deployment_and_the_answer_counts(site: Site, behind: Behind) -> None:
    nobody = {**SLOW, "labels": {"alertname": "Slow"}}
    other = {**SLOW, "labels": {"alertname": "Fast", "model": "fraud"}}
    status, text = await site.webhook(SLOW, nobody, other, truncatedAlerts=3)
    assert status == 200
    assert json.loads(text) == {"received": 3, "matched": {"default/fraud": 1}, "unattributed": 1, "truncated": 3}
    ((key, (event,)),) = behind.heard
    assert (key, event.fingerprint, event.received_at, event.resolved_at) == ("default/fraud", "aa", 1_795_300_000.0, 0)


async def test_what_is_not_durable_is_answered_503_so_that_alertmanager_sends_it_again(
    site: Site, behind: Behind
) -> None:
    behind.full = True
    assert await site.webhook(SLOW) == (503, "status.json: no space left on device: send it again\n")
    behind.full = False
    assert (await site.webhook(SLOW))[0] == 200
    assert len(behind.heard) == 1


async def test_a_reconcile_that_hangs_is_answered_503(
    site: Site, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_app, "DEADLINE", 0.05)
    behind.hangs = True
    assert await site.webhook(SLOW) == (503, "not done within 0.05 s: send it again\n")


@pytest.mark.parametrize(
    ("method", "path", "token"),
    [
        ("POST", "/alerts", ""),
        ("POST", "/alerts", API_TOKEN),
        ("POST", "/alerts", ALERTS_TOKEN + "x"),
        ("GET", "/api/deployments", ""),
        ("GET", "/api/deployments", ALERTS_TOKEN),
        ("GET", "/api/deployments/default/fraud", "\u00e9"),
        ("POST", "/api/deployments/default/fraud/orders", ""),
    ],
)
async def test_without_the_right_token_nothing_is_told_or_done(
    site: Site, behind: Behind, method: str, path: str, token: str
) -> None:
    answer = await site.ask(method, path, token, data=json.dumps({"verb": "pause"}) if method == "POST" else None)
    assert answer == (401, "send the token as Authorization: Bearer TOKEN\n")
    assert not behind.orders
    assert not behind.heard


async def test_another_scheme_with_the_right_token_is_refused(site: Site) -> None:
    headers = {"Authorization": f"Basic {API_TOKEN}"}
    assert (await site.ask("GET", "/api/deployments", headers=headers))[0] == 401


def test_an_empty_token_guards_nothing(behind: Behind) -> None:
    with pytest.raises(ValueError, match="guards nothing"):
        web_app.make_app(behind, alerts_token="", api_token="x")


async def test_malformed_webhooks_get_one_line(site: Site, metrics: Metrics) -> None:
    assert await site.ask("POST", "/alerts", ALERTS_TOKEN, data=b"{") == (
        400,
        "body: is no JSON: Input data was truncated\n",
    )
    status, text = await site.webhook({**SLOW, "status": "pending"})
    assert (status, text) == (400, "alerts[0].status: invalid enum value 'pending'\n")
    status, text = await site.webhook(*[SLOW] * 201)
    assert (status, text) == (413, "alerts: 201 are over 200: set max_alerts: 200 in the webhook receiver\n")
    status, text = await site.ask("POST", "/alerts", ALERTS_TOKEN, data=io.BytesIO(b" " * (alerts.MAX_BODY + 1)))
    assert status == 413
    assert text.count("\n") == 1
    assert metrics.registry.get_sample_value("coalmine_operator_alerts_received_total", {"result": "refused"}) == 4


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8011", 200),
        ("127.0.0.1", 200),
        ("[::1]:8011", 200),
        ("dashboard.localhost", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:8011", 403),
        ("localhost.evil.example", 403),
        ("10.0.0.1:8011", 403),
        ("::1:x", 403),
    ],
)
async def test_a_strangers_host_name_is_refused(site: Site, host: str, status: int) -> None:
    assert (await site.ask("GET", "/healthz", headers={"Host": host}))[0] == status


async def test_reading_deployments(site: Site, behind: Behind) -> None:
    status, text = await site.ask("GET", "/api/deployments", API_TOKEN)
    assert (status, from_json(text.encode(), list[DeploymentView])) == (200, behind.views())
    status, text = await site.ask("GET", "/api/deployments/default/fraud", API_TOKEN)
    assert (status, from_json(text.encode(), DeploymentView)) == (200, behind.view("default/fraud"))
    answer = await site.ask("GET", "/api/deployments/default/other", API_TOKEN)
    assert answer == (404, "no model deployment default/other\n")


async def test_orders_are_passed_on_with_their_actor(site: Site, behind: Behind) -> None:
    path = "/api/deployments/default/fraud/orders"
    body = {"verb": "pause", "revision": "fraud-2", "actor": "ada@lab"}
    status, text = await site.ask("POST", path, API_TOKEN, data=json.dumps(body))
    assert (status, json.loads(text)) == (200, {"message": "held"})
    ((key, order),) = behind.orders
    assert (key, order.verb, order.revision, order.actor) == ("default/fraud", "pause", "fraud-2", "ada@lab")
    assert order.id


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        (b'{"verb": "promote"}', 409, "no rollout is under way"),
        (b'{"verb": "explode"}', 400, "order: Invalid enum value 'explode' - at `$.verb`"),
        (b'{"verb": "pause", "force": true}', 400, "order: Object contains unknown field `force`"),
        (b"{", 400, "order: Input data was truncated"),
        (b"[" * 50_000, 400, "order: Expected `object`, got `array`"),
    ],
)
async def test_refused_and_malformed_orders(site: Site, behind: Behind, body: bytes, status: int, line: str) -> None:
    answer = await site.ask("POST", "/api/deployments/default/fraud/orders", API_TOKEN, data=body)
    assert answer == (status, line + "\n")
    assert not behind.orders


async def test_an_order_to_nobody(site: Site) -> None:
    answer = await site.ask("POST", "/api/deployments/default/other/orders", API_TOKEN, data=b'{"verb": "pause"}')
    assert answer == (404, "no model deployment default/other\n")


async def test_unknown_paths_and_methods_get_one_line(site: Site) -> None:
    assert await site.ask("GET", "/nothing") == (404, "404: Not Found\n")
    assert await site.ask("GET", "/alerts") == (405, "405: Method Not Allowed\n")


async def test_an_unforeseen_error_is_one_line_and_stands_in_the_log(
    site: Site, behind: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    behind.known = None  # type: ignore[assignment]  # any bug would do
    assert await site.ask("GET", "/api/deployments", API_TOKEN) == (500, "an unforeseen error, see the log\n")
    assert "GET /api/deployments failed" in caplog.text


async def test_own_metrics_are_whole_and_bounded(site: Site, behind: Behind, metrics: Metrics) -> None:
    metrics.reconciled(0.02, ok=True)
    metrics.reconciled(0.3, ok=False)
    metrics.rolled_back()
    await site.webhook(SLOW, {**SLOW, "labels": {"alertname": "Slow"}})
    status, text = await site.ask("GET", "/metrics")
    assert status == 200
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["coalmine_operator_reconciles_total", "ok"] == 1
    assert samples["coalmine_operator_reconciles_total", "error"] == 1
    assert samples["coalmine_operator_reconcile_duration_seconds_count",] == 2
    assert samples["coalmine_operator_rollbacks_total",] == 1
    assert samples["coalmine_operator_alerts_received_total", "matched"] == 1
    assert samples["coalmine_operator_alerts_received_total", "unattributed"] == 1
    phases = {key: value for key, value in samples.items() if key[0] == "coalmine_deployment_phase"}
    assert [key[-1] for key, value in phases.items() if value] == ["Progressing"]
    behind.known = []
    assert 'phase="' not in (await site.ask("GET", "/metrics"))[1]
