"""The keeper of the certificate against an API server of a few lines; tests/cluster has it against the real one."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509

from coalmine_operator import certificates
from coalmine_operator.certificates import TOUCH, CertificateKeeper
from coalmine_operator.platforms.kubernetes import ApiError, Client
from coalmine_operator.platforms.kubernetes.access import Access
from coalmine_operator.webhook.authority import LIFE, RENEW_BEFORE

START = dt.datetime(2026, 11, 21, 22, 0, tzinfo=dt.UTC)
SECRET = "/api/v1/namespaces/ns/secrets/hook-tls"
PODS = "/api/v1/namespaces/ns/pods"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MUTATING, VALIDATING = (f"{ADMISSION}/{kind}webhookconfigurations/hook.ns" for kind in ("mutating", "validating"))


class Cluster:
    """Objects by path, and the writes in their order."""

    def __init__(self) -> None:
        self.now = START
        self.writes: list[str] = []
        self.fail_writes_of = ""
        mounted = [{"name": "certificate", "secret": {"secretName": "hook-tls"}}]
        self.objects: dict[str, Any] = {
            SECRET: {"metadata": {"resourceVersion": "7"}},
            MUTATING: {"webhooks": [self.hook("a"), self.hook("b")]},
            VALIDATING: {"webhooks": [self.hook("c")]},
            f"{PODS}/hook-1": {"metadata": {"name": "hook-1"}, "spec": {"volumes": mounted}},
            f"{PODS}/other": {"metadata": {"name": "other"}, "spec": {"volumes": [{"name": "tmp", "emptyDir": {}}]}},
        }

    @staticmethod
    def hook(name: str) -> dict[str, Any]:
        return {"name": name, "clientConfig": {"service": {"name": "hook"}}}

    async def handle(self, request: web.Request) -> web.Response:
        path = request.path
        if path == PODS:
            items = [value for key, value in self.objects.items() if key.startswith(f"{PODS}/")]
            return web.json_response({"metadata": {}, "items": items})
        if path not in self.objects:
            return web.json_response({"message": f"{path} not found"}, status=404)
        if request.method == "PATCH":
            if path == self.fail_writes_of:
                return web.json_response({"message": "etcd is away"}, status=500)
            self.patch(path, json.loads(await request.read()))
        return web.json_response(self.objects[path])

    def patch(self, path: str, body: Any) -> None:
        self.writes.append(path)
        target = self.objects[path]
        if isinstance(body, list):
            for test, add in zip(body[::2], body[1::2], strict=True):
                index = int(test["path"].split("/")[2])
                assert test == {
                    "op": "test",
                    "path": f"/webhooks/{index}/name",
                    "value": target["webhooks"][index]["name"],
                }
                assert (add["op"], add["path"]) == ("add", f"/webhooks/{index}/clientConfig/caBundle")
                target["webhooks"][index]["clientConfig"]["caBundle"] = add["value"]
        else:
            metadata = body.pop("metadata", {})
            assert metadata.get("resourceVersion", "7") == "7"
            target["metadata"].setdefault("annotations", {}).update(metadata.get("annotations", {}))
            target.update(body)

    def certificate(self) -> bytes:
        return base64.b64decode(self.objects[SECRET]["data"]["tls.crt"])

    def trusts(self, certificate: bytes) -> bool:
        """Whether every caller accepts it who knows nothing but the bundle of one webhook."""
        shown = x509.load_pem_x509_certificate(certificate)
        hooks = [hook for path in (MUTATING, VALIDATING) for hook in self.objects[path]["webhooks"]]
        return all(_signed(shown, hook["clientConfig"].get("caBundle", "")) for hook in hooks)


def _signed(shown: x509.Certificate, bundle: str) -> bool:
    authorities = x509.load_pem_x509_certificates(base64.b64decode(bundle)) if bundle else []
    for authority in authorities:
        if authority.subject == shown.issuer:
            shown.verify_directly_issued_by(authority)
            return True
    return False


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def keeper(cluster: Cluster) -> AsyncIterator[CertificateKeeper]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", cluster.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    client = Client(Access(f"http://{host}:{port}"))
    yield CertificateKeeper(client, namespace="ns", name="hook", domain="cluster.local", clock=lambda: cluster.now)
    await client.close()
    await runner.cleanup()


async def test_the_first_one(cluster: Cluster, keeper: CertificateKeeper) -> None:
    assert await keeper.look()
    shown = x509.load_pem_x509_certificate(cluster.certificate())
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"hook.ns.svc", "hook.ns.svc.cluster.local"}
    assert cluster.trusts(cluster.certificate())
    assert TOUCH in cluster.objects[f"{PODS}/hook-1"]["metadata"]["annotations"]
    assert "annotations" not in cluster.objects[f"{PODS}/other"]["metadata"]


async def test_at_rest_nothing_is_written(cluster: Cluster, keeper: CertificateKeeper) -> None:
    await keeper.look()
    cluster.writes.clear()
    assert not await keeper.look()
    assert cluster.writes == []


async def test_trusted_first_then_shown(cluster: Cluster, keeper: CertificateKeeper) -> None:
    await keeper.look()
    assert cluster.writes == [MUTATING, VALIDATING, SECRET, f"{PODS}/hook-1"]


async def test_renewed_in_time_without_a_moment_of_distrust(cluster: Cluster, keeper: CertificateKeeper) -> None:
    await keeper.look()
    first = cluster.certificate()
    cluster.now = START + LIFE - RENEW_BEFORE - dt.timedelta(hours=1)
    assert not await keeper.look()
    cluster.now += dt.timedelta(hours=2)
    assert await keeper.look()
    assert cluster.certificate() != first
    assert cluster.trusts(cluster.certificate())
    assert cluster.trusts(first)


@pytest.mark.parametrize("path", [MUTATING, VALIDATING, SECRET])
async def test_a_crash_between_two_writes_breaks_nothing(
    cluster: Cluster, keeper: CertificateKeeper, path: str
) -> None:
    await keeper.look()
    first = cluster.certificate()
    cluster.now = START + LIFE - RENEW_BEFORE / 2
    cluster.fail_writes_of = path
    with pytest.raises(ApiError, match="etcd is away"):
        await keeper.look()
    assert cluster.certificate() == first
    assert cluster.trusts(first)
    cluster.fail_writes_of = ""
    assert await keeper.look()
    assert cluster.trusts(cluster.certificate())


async def test_what_an_upgrade_took_away_comes_back(cluster: Cluster, keeper: CertificateKeeper) -> None:
    await keeper.look()
    certificate = cluster.certificate()
    cluster.objects[VALIDATING] = {"webhooks": [cluster.hook("c"), cluster.hook("new")]}
    assert not await keeper.look()
    assert cluster.trusts(certificate)


@pytest.mark.parametrize("data", [{}, None, {"tls.crt": "?", "tls.key": "?", "ca.crt": "?"}, {"tls.crt": "eA=="}])
async def test_a_broken_secret_is_filled_anew(
    cluster: Cluster, keeper: CertificateKeeper, data: dict[str, str] | None
) -> None:
    cluster.objects[SECRET]["data"] = data
    assert await keeper.look()
    assert cluster.trusts(cluster.certificate())


async def test_without_its_secret_it_says_so(cluster: Cluster, keeper: CertificateKeeper) -> None:
    del cluster.objects[SECRET]
    with pytest.raises(ApiError, match="hook-tls not found"):
        await keeper.look()
    assert cluster.writes == []


async def test_it_looks_again_and_again(
    cluster: Cluster, keeper: CertificateKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "PERIOD", 0.01)
    monkeypatch.setattr(certificates, "AGAIN", 0.01)
    running = asyncio.create_task(keeper.run())
    for path in ("", SECRET):
        cluster.fail_writes_of = path
        cluster.objects[SECRET]["data"] = {}
        if path:
            await asyncio.sleep(0.05)
            cluster.fail_writes_of = ""
        for _ in range(500):
            if cluster.objects[SECRET]["data"]:
                break
            await asyncio.sleep(0.01)
        assert cluster.trusts(cluster.certificate())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
