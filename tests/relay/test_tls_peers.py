"""TLS between sidecars, each one a process, and at the ingress: who may ask, and what becomes of certificates."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from tests.relay.authority import Authority, Files, asking
from tests.relay.grpc_client import unary
from tests.relay.harness import Client, Upstream, eventually, free_port, get, post, revision, routing
from tests.relay.process import Load, Sidecar, replace, sidecar
from tests.relay.test_warmup import until

from coalmine_sidecar.contract import Routing
from coalmine_sidecar.relay import listener
from coalmine_sidecar.relay.listener import Listener
from coalmine_sidecar.relay.tls import Tls
from coalmine_sidecar.tlsflags import TlsFiles

NAME = "fraud.default.svc"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "own")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "stranger")


def flags(files: Files) -> list[str]:
    return [
        f"--peer-ca={files.ca}",
        f"--peer-cert={files.cert}",
        f"--peer-key={files.key}",
        f"--peer-server-name={NAME}",
    ]


def both(port: int, *, scheme: str = "tls://", generation: int = 1, old: int = 0) -> Routing:
    """All requests are for `b`, which is at `port`; `old`: where a pod without TLS is."""
    routes = [revision("a", 0), revision("b", 100) | {"endpoints": [f"{scheme}127.0.0.1:{port}"]}]
    return routing(*routes, *([revision("old", 0, old)] if old else ()), generation=generation)


@contextlib.asynccontextmanager
async def pair(
    tmp_path: Path, model: Upstream, files: Files, mine: Files | None = None
) -> AsyncIterator[tuple[Sidecar, Sidecar]]:
    """The sidecar that is asked, which has no model, and the one that it asks, which has."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    replace(second, both(1))
    async with sidecar(second, model.port, *flags(files), revision="b") as asked:
        replace(first, both(asked.local))
        async with sidecar(first, free_port(), *flags(mine or files)) as asks:
            yield asks, asked


async def test_sidecars_ask_each_other(tmp_path: Path, model: Upstream, authority: Authority) -> None:
    async with pair(tmp_path, model, authority.issue(NAME)) as (asks, asked):
        client = await Client.connect(asks.ingress)
        for _ in range(3):
            reply = await client.ask(post())
            assert (reply.status, reply.revision) == (200, "b")
        assert (await asked.snapshot())["notReady"] == ""
        asked.terminate()
        asks.terminate()
        assert ((await asked.ended())[0], (await asks.ended())[0]) == (0, 0)
        await client.close()


async def ask(port: int, tls: ssl.SSLContext) -> None:
    await (await Client.connect(port, tls, NAME)).ask(get())


async def test_strangers_are_refused(
    tmp_path: Path, model: Upstream, authority: Authority, stranger: Authority
) -> None:
    files = authority.issue(NAME)
    async with pair(tmp_path, model, files) as (_, asked):
        own = await Client.connect(asked.local, asking(files), NAME)
        assert (await own.ask(get())).status == 200
        await own.close()
        plain = await Client.connect(asked.local)
        await plain.send(get())
        assert await asyncio.wait_for(plain.rest(), 5) == b"", "no word without TLS"
        false = asking(files, shows=False)
        false.load_cert_chain(*stranger.issue(NAME)[1:])
        for context in (asking(files, shows=False), false):
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await ask(asked.local, context)
        assert len(model.requests) == 1
        asked.terminate()
        log = (await asked.ended())[1]
        for why in ("no TLS is spoken there", "peer did not return a certificate", "the certificate is refused: "):
            assert f"peer: TLS with 127.0.0.1 failed: {why}" in log


async def test_a_peer_of_another_authority_is_refused_and_counted(
    tmp_path: Path, model: Upstream, authority: Authority, stranger: Authority
) -> None:
    async with pair(tmp_path, model, stranger.issue(NAME), authority.issue(NAME)) as (asks, _):
        client = await Client.connect(asks.ingress)
        assert (await client.ask(post())).status == 502
        lines = (await asks.get("/metrics"))[1].decode().splitlines()
        counted = [line for line in lines if line.startswith("coalmine_upstream_connection_errors_total")]
        assert sum(float(line.rsplit(" ", 1)[1]) for line in counted if 'version="b"' in line) >= 1
        assert model.requests == []
        await client.close()


async def test_pods_without_tls_are_served_until_they_are_gone(
    tmp_path: Path, model: Upstream, authority: Authority
) -> None:
    """TLS is switched on by a new revision: the old one's pods know no other way to ask."""
    file = tmp_path / "routing.json"
    replace(file, both(1, old=free_port()))
    async with sidecar(file, model.port, *flags(authority.issue(NAME)), revision="b") as asked:
        old = tmp_path / "old.json"
        replace(old, both(asked.local))
        async with sidecar(old, free_port(), revision="old") as without:
            client = await Client.connect(without.ingress)
            assert (await client.ask(post())).status == 200
            replace(file, both(1, generation=2))
            for _ in range(200):
                if (await asked.snapshot())["generation"] == 2:
                    break
                await asyncio.sleep(0.01)
            assert (await client.ask(post())).status == 200, "who is connected stays so"
            await client.close()
            plain = await Client.connect(asked.local)
            await plain.send(get())
            assert await asyncio.wait_for(plain.rest(), 5) == b""


async def test_grpc_between_sidecars(tmp_path: Path, start_model, dial, authority: Authority) -> None:
    model = await start_model()
    async with pair(tmp_path, model, authority.issue(NAME)) as (asks, _):
        assert await unary(dial(asks.ingress))(b"hello") == b"hello"


async def test_rotation_under_load_fails_no_request(tmp_path: Path, model: Upstream, authority: Authority) -> None:
    files = authority.issue(NAME)
    async with pair(tmp_path, model, files) as (asks, asked):
        load = Load(asks.ingress, 4)
        await eventually(lambda: load.total > 50)
        for _ in range(3):
            before = load.total
            authority.issue(NAME)
            # New connections all the while, to both.
            for _ in range(12):
                await asyncio.sleep(0.1)
                client = await Client.connect(asks.ingress)
                assert (await client.ask(post())).status == 200
                await client.close()
            await eventually(lambda before=before: load.total > before)
        files.cert.write_bytes(b"garbage")
        await asyncio.sleep(2.5)
        shown = await Client.connect(
            asked.local, asking(Files(files.ca, *authority.issue(NAME, stem="mine")[1:])), NAME
        )
        assert (await shown.ask(get())).status == 200
        await shown.close()
        assert (await asked.get("/readyz"))[0] == 200, "the last good ones hold"
        await load.stop()
        assert load.errors == []
        asked.terminate()
        asks.terminate()
        log = (await asked.ended())[1]
        line = f"--peer-cert {files.cert}: holds no certificate: write it as PEM; the last good ones stay in force"
        assert log.count(line) == 1
        assert log.count("peer: certificates read") >= 4


async def test_files_that_come_later(tmp_path: Path, model: Upstream, authority: Authority) -> None:
    files = Files(authority.ca, tmp_path / "own/tls.crt", tmp_path / "own/tls.key")
    file = tmp_path / "routing.json"
    replace(file, both(1))
    async with sidecar(file, model.port, *flags(files), revision="b") as running:
        line = f"--peer-cert {files.cert}: No such file or directory: put the file there"
        await until(running, line)
        assert (await running.snapshot())["notReady"] == line
        assert (await running.get("/healthz"))[0] == 200
        authority.issue(NAME)
        await until(running, "ok", 200)
        client = await Client.connect(running.local, asking(files), NAME)
        assert (await client.ask(get())).status == 200
        await client.close()


def spoiled(case: str, authority: Authority, stranger: Authority) -> Files:
    files = authority.issue(NAME)
    match case:
        case "garbage":
            files.key.write_text("-----BEGIN PRIVATE KEY-----\nnothing\n-----END PRIVATE KEY-----\n")
        case "empty":
            files.ca.write_bytes(b"")
        case "folder":
            return files._replace(cert=files.cert.parent)
        case "another's key":
            return files._replace(key=stranger.issue(NAME).key)
        case "another authority":
            return files._replace(ca=stranger.ca)
        case "expired":
            authority.issue(NAME, days=-1)
        case "expired authority":
            return Authority(authority.folder / "old", days=-1).issue(NAME)
        case "another name":
            authority.issue("other")
    return files


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("garbage", "--peer-cert {cert}, --peer-key {key}: it cannot be read: give the certificate with its own key, "),
        ("empty", "--peer-ca {ca}: holds no certificate: write it as PEM"),
        ("folder", "--peer-cert {cert}: Is a directory: put the file there"),
        (
            "another's key",
            "--peer-cert {cert}, --peer-key {key}: key values mismatch: give the certificate with its own",
        ),
        ("another authority", "--peer-cert {cert}: the certificate is refused: "),
        ("expired", "--peer-cert {cert}: the certificate is refused: certificate has expired: it has to be valid, of "),
        ("expired authority", "--peer-ca {ca}: has expired: put a new one there"),
        (
            "another name",
            "--peer-cert {cert}: the certificate is refused: Hostname mismatch, certificate is not valid for",
        ),
    ],
)
def test_what_is_wrong_is_one_line(authority: Authority, stranger: Authority, case: str, line: str) -> None:
    files = spoiled(case, authority, stranger)
    tls = Tls(TlsFiles(flag="peer", ca=files.ca, cert=files.cert, key=files.key, server_name=NAME, serves=True))
    tls.poll()
    assert tls.problem.startswith(line.format(**files._asdict()))
    assert "\n" not in tls.problem
    assert (tls.client(), tls.server, tls.generation) == (None, None, 0)
    good = authority.issue(NAME)
    tls.files = TlsFiles(flag="peer", ca=good.ca, cert=good.cert, key=good.key, server_name=NAME, serves=True)
    if case not in ("empty", "folder", "another authority"):
        time.sleep(0.01)
        tls.poll()
        assert (tls.problem, tls.generation) == ("", 1)


def test_one_that_is_not_valid_yet_is_taken_when_it_is(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """Clocks differ: the authority's may be ahead of ours."""
    files = authority.issue(NAME)
    tls = Tls(TlsFiles(flag="peer", ca=files.ca, cert=files.cert, key=files.key, server_name=NAME, serves=True))
    tls.poll()
    before = tls.server
    authority.issue(NAME, after=2.0)
    for _ in range(3):
        tls.poll()
    assert (tls.server, tls.generation) == (before, 1)
    assert caplog.text.count("certificate is not yet valid") == 1
    time.sleep(3)
    tls.poll()
    assert (tls.problem, tls.generation) == ("", 2)
    assert tls.server is not before


@pytest.mark.looks_inside
async def test_a_handshake_that_hangs_has_an_end(
    authority: Authority, start_pod, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE", 0.3)
    files = authority.issue(NAME)
    tls = Tls(TlsFiles(flag="peer", ca=files.ca, cert=files.cert, key=files.key, server_name=NAME, serves=True))
    tls.poll()
    pod = await start_pod(free_port(), both(1))
    opened = socket.socket()
    opened.bind(("127.0.0.1", 0))
    opened.listen()
    opened.setblocking(False)
    server = Listener(opened, pod.relay.local.accept, tls)
    port = opened.getsockname()[1]
    mute, halting = await Client.connect(port), await Client.connect(port)
    await halting.send(b"\x16\x03\x01")
    for client in (mute, halting):
        assert await asyncio.wait_for(client.rest(), 5) == b""
    assert "no handshake in time" in caplog.text
    server.close()
    assert pod.relay.local.connections == set()


async def test_the_ingress(tmp_path: Path, model: Upstream, authority: Authority, start_model) -> None:
    files = authority.issue("models.example.org")
    file = tmp_path / "routing.json"
    replace(file, routing(revision("a", 100)))
    speaks = await start_model()
    own = [f"--ingress-cert={files.cert}", f"--ingress-key={files.key}", f"--model-grpc=127.0.0.1:{speaks.port}"]
    async with sidecar(file, model.port, *own) as running:
        client = await Client.connect(running.ingress, asking(files, shows=False), "models.example.org")
        for _ in range(2):
            assert (await client.ask(post())).status == 200
        bad = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
        reply = await client.ask(bad)
        assert (reply.status, await client.rest()) == (400, b""), "the last answer is whole"
        options = (("grpc.ssl_target_name_override", "models.example.org"),)
        credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
        async with grpc.aio.secure_channel(f"127.0.0.1:{running.ingress}", credentials, options=options) as channel:
            assert await unary(channel)(b"hello") == b"hello"
        running.terminate()
        assert (await running.ended())[0] == 0
