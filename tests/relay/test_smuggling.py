"""Bytes that can be read in two ways: nobody behind the relay gets to read them in another way than the relay did."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.relay.corpus import ANSWERS, REQUESTS, Seen, Sent, Told
from tests.relay.harness import Client, Pod, Request, Upstream, answer, eventually, free_port, get, revision, routing

ALONE = routing(revision("a", 100), timeouts={"idle": 5})
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; large_client_header_buffers 4 64k; client_header_timeout 2; client_body_timeout 2;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header Connection ""; proxy_set_header X-Client $remote_port;
    }}
  }}
}}
"""


def test_the_corpus_is_large_and_its_names_are_unique():
    assert len(REQUESTS) + len(ANSWERS) >= 200
    for corpus in (REQUESTS, ANSWERS):
        names = [case.name for case in corpus]
        assert len(set(names)) == len(names)


def seen(requests: list[Request]) -> tuple[Seen, ...]:
    return tuple(Seen(r.target, r.body, r.header("host") or "") for r in requests)


@pytest.mark.parametrize("case", REQUESTS, ids=[case.name for case in REQUESTS])
async def test_a_request_is_refused_or_made_unambiguous(model: Upstream, start_pod, case: Sent):
    pod: Pod = await start_pod(model.port, ALONE)
    client = await Client.connect(pod.ingress)
    await client.send(case.data)
    replies = [await client.answer() for _ in case.seen or (None,)]
    assert {reply.status for reply in replies} == {case.status}
    if case.seen:
        if replies[-1].header("connection") != "close":
            assert (await client.ask(get("/probe"))).status == 200
            assert model.requests.pop().target == "/probe", "the relay and the model disagree on what came before"
        assert pod.outcomes()["ok"] >= len(case.seen)
    else:
        reply = replies[0]
        assert (reply.header("coalmine-error"), reply.header("connection")) == ("sidecar", "close")
        assert reply.error
        assert await client.rest() == b"", "nothing is read after a refusal"
        assert pod.outcomes() == {"rejected": 1}
    assert seen(model.requests) == case.seen


@pytest.mark.parametrize("case", ANSWERS, ids=[case.name for case in ANSWERS])
async def test_an_answer_is_replaced_cut_off_or_made_unambiguous(model: Upstream, start_pod, case: Told):
    async def tell(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.target == "/probe":
            writer.write(answer(b"probe"))
            return
        writer.write(case.data)
        if case.ends:
            await writer.drain()
            writer.close()

    model.handle = tell
    document = routing(revision("a", 100), idempotent=False)
    pod: Pod = await start_pod(model.port, document)
    client = await Client.connect(pod.ingress)
    # No GET: that would be sent again after some of these.
    await client.send(b"POST / HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n")
    if case.status is None:
        # Where it came in one piece all of it could be withheld.
        with suppress(asyncio.IncompleteReadError):
            assert (await client.answer()).status == 502
        await eventually(lambda: pod.outcomes() == {"model_error": 1})
        client = await Client.connect(pod.ingress)
    else:
        reply = await client.answer()
        assert reply.status == case.status
        if case.status == 502:
            assert reply.header("coalmine-error") == "upstream"
            assert pod.outcomes() == {"model_error": 1}
        else:
            assert reply.body == case.body
        assert reply.header("set-cookie") is None
    # Whatever else the model said is nobody's answer.
    reply = await client.ask(get("/probe"))
    assert (reply.status, reply.body) == (200, b"probe")
    await client.close()


@pytest.fixture
def nginx_config(model: Upstream, tmp_path: Path) -> tuple[int, Path]:
    port = free_port()
    # Its worker may be another user.
    tmp_path.chmod(0o755)
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port, upstream=model.port))
    return port, config


@pytest.fixture
async def nginx(nginx_config: tuple[int, Path]) -> AsyncIterator[int]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("nginx is not installed (Debian: apt-get install nginx-light)")
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    port, config = nginx_config
    process = await asyncio.create_subprocess_exec(program, "-c", str(config), stderr=asyncio.subprocess.DEVNULL)
    try:
        for _ in range(500):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                break
        yield port
    finally:
        process.terminate()
        await process.wait()


async def test_the_model_sees_nothing_that_nginx_would_not_let_through(model: Upstream, nginx: int):
    """All requests of the corpus through a real nginx: a request that passes here is the same there, or argued."""

    async def send(case: Sent) -> tuple[str, int]:
        client = await Client.connect(nginx)
        port = client.writer.get_extra_info("sockname")[1]
        await client.send(case.data)
        # It ends what it refuses; a connection that it keeps says no more.
        try:
            await asyncio.wait_for(client.rest(), 3)
        except TimeoutError:
            pass
        finally:
            client.writer.transport.abort()
        return case.name, port

    ports = dict(await asyncio.gather(*map(send, REQUESTS)))
    through: dict[int, list[Request]] = {}
    for request in model.requests:
        through.setdefault(int(request.header("x-client") or 0), []).append(request)
    differences = []
    for case in REQUESTS:
        there = seen(through.get(ports[case.name], []))
        if case.seen and case.seen != there and not case.unlike_nginx:
            differences.append(f"{case.name}: passed on as {case.seen}, by nginx as {there}")
        if case.unlike_nginx and case.seen == there:
            differences.append(f"{case.name}: nginx does the same; nothing is to be argued")
    assert not differences, "\n".join(differences)
    passed = sum(bool(case.seen) for case in REQUESTS)
    assert len(through) >= passed - sum(bool(case.unlike_nginx) for case in REQUESTS)
