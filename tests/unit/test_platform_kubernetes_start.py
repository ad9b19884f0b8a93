"""How the operator is started: flags, environment, what it watches, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web

from coalmine_operator.__main__ import read_settings
from coalmine_operator.handlers import make_registry, make_settings, watching
from coalmine_operator.operating import OperatorError, OperatorSettings, operate
from coalmine_operator.platforms.kubernetes import Settings
from coalmine_operator.platforms.kubernetes.access import Access
from coalmine_operator.platforms.kubernetes.kinds import MODEL_DEPLOYMENT, WATCHED, Kind
from coalmine_operator.render.injection import InjectionSettings

PLATFORM = Settings(injection=InjectionSettings(image="sidecar:1"))


def test_flags_win_over_the_environment() -> None:
    environ = {
        "COALMINE_SIDECAR_IMAGE": "sidecar:env",
        "COALMINE_NAMESPACES": "one, two",
        "COALMINE_LOG_LEVEL": "debug",
        "POD_NAME": "coalmine-0",
    }
    settings, level = read_settings(["operator", "--sidecar-image=sidecar:flag", "--listen=[::]:9"], environ)
    assert settings.platform.injection.image == "sidecar:flag"
    assert settings.platform.namespaces == ("one", "two")
    assert settings.platform.instance == "coalmine-0"
    assert (settings.host, settings.port) == ("::", 9)
    assert settings.kubeconfig is None
    assert level == 10


def test_by_default_it_serves_all_namespaces_as_its_pod() -> None:
    settings, _ = read_settings(["operator", "--sidecar-image=s"], {})
    assert settings.platform == Settings(injection=InjectionSettings(image="s"), instance="coalmine-operator")
    assert (settings.host, settings.port, settings.alerts_token_file) == ("0.0.0.0", 8080, None)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["operator"], "--sidecar-image: missing"),
        (["operator", "--sidecar-image=s", "--listen=8080"], "--listen: '8080' is no HOST:PORT"),
        (["operator", "--sidecar-image=s", "--listen=h:99999"], "--listen: 'h:99999' is no HOST:PORT"),
        (["operator", "--sidecar-image=s", "--log-level=loud"], "--log-level: invalid choice"),
        (["sidecar"], "invalid choice: 'sidecar'"),
    ],
)
def test_wrong_flags_are_told(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(arguments, {})
    assert ended.value.code == 2
    assert line in capsys.readouterr().err


def test_without_a_cluster_it_says_so_in_one_line() -> None:
    command = [sys.executable, "-m", "coalmine_operator", "operator", "--sidecar-image=s", "--listen=127.0.0.1:0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PATH": ""})
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "coalmine-operator: no access to a cluster: this is no pod: KUBERNETES_SERVICE_HOST and "
        "KUBERNETES_SERVICE_PORT are not set: "
        "give --kubeconfig, or run in a pod with a service account"
    ]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), ("", "empty: write a token into it"), ("\n", "empty")]
)
async def test_tokens_have_to_be_there(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(OperatorError, match=message):
        await operate(OperatorSettings(platform=PLATFORM, alerts_token_file=file))


async def test_a_broken_kubeconfig_is_told(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    with pytest.raises(OperatorError, match="no access to a cluster"):
        await operate(OperatorSettings(platform=PLATFORM, kubeconfig=file))


async def test_kopf_watches_what_is_ours_and_writes_nothing() -> None:
    seen = []
    registry = make_registry(
        lambda kind, change, obj: seen.append((kind.plural, change, obj)), Access("http://[::1]:1")
    )
    settings = make_settings()
    assert not settings.posting.enabled
    handlers = registry._watching.get_all_handlers()
    assert {handler.id for handler in handlers} == {kind.plural for kind in WATCHED}
    # Any of these would put annotations or finalizers on objects of others.
    for others in (registry._changing, registry._spawning, registry._indexing):
        assert not others.get_all_handlers()
    selected = {str(selector.any_name or selector.plural) for selector in settings.watching.label_selectors}
    assert selected == {kind.plural for kind in WATCHED if kind is not MODEL_DEPLOYMENT}
    await asyncio.gather(*(handler.fn(event={"type": None, "object": {}}) for handler in handlers))
    assert len(seen) == len(WATCHED)


async def test_watches_never_give_up_and_say_once_that_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries, enough = 0, asyncio.Event()

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        if tries > 40:  # kopf's own list has eight for each request
            enough.set()
        writer.close()

    monkeypatch.setattr("coalmine_operator.handlers.AGAIN", (0.01,))
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with watching(lambda *_: None, Access(f"http://127.0.0.1:{port}"), namespaces=["one"]) as watches:
            await asyncio.wait_for(enough.wait(), 60)
            assert not watches.done()
    told = [record.getMessage() for record in caplog.records if "will retry" in record.getMessage()]
    assert told
    assert all("#1 failed" in line for line in told)


class ApiServer:
    """Of a cluster with nothing in it: discovery, empty lists, watches that stay open until their kind is gone."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        #: While it is cleared nobody gets a list.
        self.lists = asyncio.Event()
        self.lists.set()
        self.watched: set[str] = set()
        self.all_watched = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api":
            return web.json_response({"versions": ["v1"]})
        if request.path == "/apis":
            names = sorted({(kind.group, kind.version) for kind in WATCHED if kind.group})
            groups = [
                {"name": group, "versions": [{"groupVersion": f"{group}/{version}", "version": version}]}
                for group, version in names
            ]
            for group, (_, version) in zip(groups, names, strict=True):
                group["preferredVersion"] = {"version": version}
            return web.json_response({"groups": groups})
        mine = [kind for kind in WATCHED if kind.path() == request.path]
        if not mine:
            return web.json_response({"resources": self._resources(request.path)})
        if self.gone.is_set() and mine[0] is MODEL_DEPLOYMENT:
            return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound"}, status=404)
        if "watch" not in request.query:
            await self.lists.wait()
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})
        response = web.StreamResponse()
        await response.prepare(request)
        self.watched.add(mine[0].plural)
        if len(self.watched) == len(WATCHED):
            self.all_watched.set()
        await self.gone.wait()
        if mine[0] is not MODEL_DEPLOYMENT:
            await asyncio.Event().wait()
        return response

    def _resources(self, path: str) -> list[dict[str, object]]:
        return [
            {"name": kind.plural, "singularName": "", "kind": kind.name, "namespaced": True, "verbs": ["list", "watch"]}
            for kind in (*WATCHED, Kind("v1", "Namespace", "namespaces"))  # kopf waits for these before it watches
            if kind.path().rpartition("/")[0] == path
        ]


@contextlib.asynccontextmanager
async def operator_of(api: ApiServer, folder: Path, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own: kopf takes the signals, and its end is one of what is tested."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    named = {"clusters": [{"name": "c", "cluster": {"server": "http://{}:{}".format(*runner.addresses[0][:2])}}]}
    context = {"contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump({**named, **context}))
    command = ("-m", "coalmine_operator", "operator", "--sidecar-image=s", f"--kubeconfig={file}", *flags)
    operator = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    try:
        yield operator
    finally:
        if operator.returncode is None:
            operator.kill()
            await operator.wait()
        await runner.cleanup()


async def test_an_alert_is_not_taken_before_the_model_deployments_are_known(tmp_path: Path) -> None:
    """Or it would be about none of them, and never be told again before Alertmanager repeats itself."""
    api = ApiServer()
    api.lists.clear()
    (tmp_path / "token").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = (f"--listen=127.0.0.1:{port}", f"--alerts-token-file={tmp_path / 'token'}")
    head = {"Authorization": "Bearer secret"}
    one = {"status": "firing", "labels": {"alertname": "Slow", "namespace": "shop", "modeldeployment": "fraud"}}
    async with operator_of(api, tmp_path, *flags), aiohttp.ClientSession(headers=head) as session:

        async def told() -> tuple[int, str]:
            webhook = {"version": "4", "alerts": [one]}
            async with session.post(f"http://127.0.0.1:{port}/alerts", json=webhook) as response:
                return response.status, await response.text()

        async with asyncio.timeout(60):
            while True:
                try:
                    said = await told()
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)
                else:
                    break
            assert said == (503, "the model deployments are not listed yet: send it again\n")
            api.lists.set()
            await api.all_watched.wait()
            status, body = await told()
    assert (status, json.loads(body)["unattributed"]) == (200, 1)


async def test_when_the_crd_goes_it_ends_with_one_line_to_be_started_anew(tmp_path: Path) -> None:
    api = ApiServer()
    async with operator_of(api, tmp_path, "--listen=127.0.0.1:0") as operator:
        await asyncio.wait_for(api.all_watched.wait(), 60)
        api.gone.set()
        _, told = await asyncio.wait_for(operator.communicate(), 60)
    lines = told.decode().splitlines()
    assert operator.returncode == 1, lines
    assert lines[-1] == (
        "coalmine-operator: watching ended: the API server knows a watched kind no more: maybe the CRD was deleted; "
        "ends, to be started anew"
    )
    assert not [line for line in lines if "Traceback" in line or "re-authenticate" in line]
