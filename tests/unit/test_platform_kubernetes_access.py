"""The way to the API server: service accounts, kubeconfig files, tokens that rotate, certificates."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from coalmine_operator.platforms.kubernetes import ApiError, Client
from coalmine_operator.platforms.kubernetes.access import (
    TOKEN_PERIOD,
    Access,
    AccessError,
    Token,
    from_kubeconfig,
    in_pod,
)
from coalmine_operator.webhook.authority import Certificate, issue


class Api:
    """Answers whoever shows the right token, with what they showed."""

    def __init__(self) -> None:
        self.token = ""
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        shown = request.headers.get("Authorization", "")
        self.asked.append(shown)
        await request.read()
        if self.token and shown != f"Bearer {self.token}":
            return web.json_response({"message": "Unauthorized"}, status=401)
        return web.json_response({"shown": shown, "agent": request.headers["User-Agent"], "method": request.method})

    @asynccontextmanager
    async def served(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


@asynccontextmanager
async def talking(access: Access) -> AsyncIterator[Client]:
    client = Client(access)
    try:
        yield client
    finally:
        await client.close()


# Tokens


async def test_a_token_that_rotates_is_read_anew(tmp_path: Path) -> None:
    now, file, api = 0.0, tmp_path / "token", Api()
    file.write_text("one\n")
    token = Token(path=file, clock=lambda: now)
    async with api.served() as port, talking(Access(f"http://127.0.0.1:{port}", token=token)) as client:
        assert (await client.get("/version"))["shown"] == "Bearer one"
        file.write_text("two")
        assert (await client.get("/version"))["shown"] == "Bearer one"
        now += TOKEN_PERIOD
        assert (await client.get("/version"))["shown"] == "Bearer two"


async def test_a_401_in_the_middle_is_answered_with_the_newest_token(tmp_path: Path) -> None:
    file, api = tmp_path / "token", Api()
    file.write_text("one")
    access_token = Token(path=file)
    async with api.served() as port, talking(Access(f"http://127.0.0.1:{port}", token=access_token)) as client:
        api.token = "two"
        with pytest.raises(ApiError, match="Unauthorized") as caught:
            await client.get("/version")
        assert caught.value.status == 401
        assert api.asked == ["Bearer one"], "the same token again would be refused again"
        file.write_text("two")
        assert (await client.create("/things", {"a": 1}))["method"] == "POST"
        assert api.asked[1:] == ["Bearer one", "Bearer two"]
        assert client.calls == {("GET", 401): 1, ("POST", 200): 1}


def test_a_token_file_that_is_being_written_leaves_the_last_one_in_use(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    token = Token(path=file)
    file.write_text("")
    assert token.anew() == "one"
    file.unlink()
    assert token.anew() == "one"


# In a pod


def test_in_a_pod_it_is_the_service_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_bytes(certificate().authorities)
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    assert in_pod(environ, tmp_path).server == "https://[fd00::1]:443"
    assert in_pod(environ | {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path).server == "https://10.0.0.1:443"


@pytest.mark.parametrize(
    ("missing", "message"),
    [("token", "token: No such file"), ("ca.crt", r"ca\.crt: No such file"), ("", "certificates: ")],
)
def test_a_service_account_that_is_not_whole_is_told(tmp_path: Path, missing: str, message: str) -> None:
    for name in {"token", "ca.crt"} - {missing}:
        (tmp_path / name).write_text("x")
    if missing == "token":
        (tmp_path / "ca.crt").write_bytes(certificate().authorities)
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(AccessError, match=message):
        in_pod(environ, tmp_path)


# Kubeconfig files


def certificate() -> Certificate:
    return issue(dt.datetime.now(dt.UTC), ("localhost",), None)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def written(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    path = folder / "kubeconfig"
    document = {
        "clusters": [{"name": "other", "cluster": {}}, {"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_bytes(msgspec.json.encode(document))  # JSON is YAML
    return path


@pytest.mark.parametrize("inline", [True, False])
async def test_certificates_of_both_sides_are_checked(tmp_path: Path, inline: bool) -> None:
    server, mine, api = certificate(), certificate(), Api()
    (tmp_path / "server.pem").write_bytes(server.certificate + server.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=mine.authorities.decode())
    # Ours is a server's certificate, which is all that the authority issues.
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(tmp_path / "server.pem")
    files = {"certificate-authority": server.authorities}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    async with api.served(context) as port:
        url = {"server": f"https://localhost:{port}"}
        given = {f"{k}-data": encoded(v) for k, v in files.items()} if inline else {k: k for k in files}
        async with talking(from_kubeconfig(written(tmp_path, url | given, {"token": "t"}))) as client:
            assert await client.get("/version") == {
                "shown": "Bearer t",
                "agent": "coalmine-operator",
                "method": "GET",
            }
        stranger = {"certificate-authority-data": encoded(mine.authorities)}
        async with talking(from_kubeconfig(written(tmp_path, url | stranger, {}))) as client:
            with pytest.raises(ApiError, match="certificate verify failed") as caught:
                await client.get("/version")
            assert caught.value.status == 0
        async with talking(from_kubeconfig(written(tmp_path, url | {"insecure-skip-tls-verify": True}, {}))) as client:
            assert (await client.get("/version"))["shown"] == ""


def test_a_client_certificate_is_loaded_from_data_and_from_files(tmp_path: Path) -> None:
    mine = certificate()
    url = {"server": "https://localhost:1"}
    data = {"client-certificate-data": encoded(mine.certificate), "client-key-data": encoded(mine.key)}
    assert from_kubeconfig(written(tmp_path, url, data)).server == "https://localhost:1"
    (tmp_path / "tls.crt").write_bytes(mine.certificate)
    (tmp_path / "tls.key").write_bytes(mine.key)
    from_kubeconfig(written(tmp_path, url, {"client-certificate": "tls.crt", "client-key": "tls.key"}))
    (tmp_path / "tls.key").write_bytes(certificate().key)
    with pytest.raises(AccessError, match=r"certificates: .*mismatch"):
        from_kubeconfig(written(tmp_path, url, {"client-certificate": "tls.crt", "client-key": "tls.key"}))


URL = {"server": "https://localhost:1"}


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        (URL, {"exec": {"command": "aws"}}, r"user\.exec: not supported: use a token"),
        (URL, {"auth-provider": {"name": "gcp"}}, r"user\.auth-provider: not supported"),
        (URL, {"username": "a", "password": "b"}, r"user\.password: not supported"),
        (URL | {"tls-server-name": "a"}, {}, r"cluster\.tls-server-name: not supported"),
        ({}, {}, r"cluster\.server: None is no URL"),
        ({"server": "localhost:1"}, {}, "'localhost:1' is no URL"),
        (URL | {"certificate-authority": "gone"}, {}, "gone: No such file"),
        (URL | {"certificate-authority-data": "???"}, {}, "certificate-authority-data: no base64"),
        (URL, {"tokenFile": "gone"}, "gone: No such file"),
    ],
)
def test_what_is_wrong_in_a_kubeconfig_is_told(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], message: str
) -> None:
    path = written(tmp_path, cluster, user)
    with pytest.raises(AccessError, match=message) as caught:
        from_kubeconfig(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: b"",
        lambda text: b"- a",
        lambda text: b"{",
        lambda text: b"\xff\xfe\x00",
        lambda text: text.replace(b'"current-context":"x"', b'"current-context":"y"'),
        lambda text: text.replace(b'"cluster":"c"', b'"cluster":"gone"'),
        lambda text: text.replace(b'"user":"u"', b'"user":"gone"'),
        lambda text: text.replace(b'"contexts":[', b'"contexts":[7,'),
    ],
)
def test_a_spoilt_kubeconfig_is_one_line(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = written(tmp_path, URL, {})
    before = path.read_bytes()
    path.write_bytes(spoil(before))
    try:
        from_kubeconfig(path)
    except AccessError as error:
        assert "\n" not in str(error)  # noqa: PT017 - one of them is harmless, the others are told
    else:
        assert b"[7," in path.read_bytes()
