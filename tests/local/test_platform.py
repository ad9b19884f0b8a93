"""The local platform with real models and real sidecars: pods come, crash, come back, drain and go."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from coalmine_operator.platforms.local import LocalPlatform, Refused, kept
from coalmine_operator.platforms.local import manifest as manifest_file

from .platform_world import KEY, World, kill, manifest


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Client:
    """Sends a request after the other over connections of its own and keeps what came back."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.versions: list[str] = []
        self.errors: list[str] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(10):
                    self.versions.append((await self.world.infer())["model_version"])
            except (aiohttp.ClientError, AssertionError, TimeoutError) as error:
                self.errors.append(repr(error))
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def clients(world: World) -> AsyncIterator[list[Client]]:
    made: list[Client] = []
    yield made
    for client in made:
        await client.stop()


# Starting


async def test_from_manifest_to_answers(world: World) -> None:
    env = [{"name": "COLOUR", "value": "red"}]
    world.write(manifest(replicas=2, container={"env": env}))
    async with world.running():
        await world.healthy(ready=2)
        answer = await world.infer()
        assert answer["model_version"] == "v1"
        assert answer["parameters"]["colour"] == "red"
        assert Path(answer["parameters"]["cwd"]) == world.folder
        pids = {(await world.infer())["parameters"]["pid"] for _ in range(30)}
        assert pids == {pod.pid for pod in world.pods()}
        for pod in world.pods():
            assert pod.pid is not None
            assert os.getsid(pod.pid) == pod.pid  # Ctrl-C in our terminal is not for the model
        assert all(20000 <= record["port"] < 32768 for record in world.pod_records())
        assert stat.S_IMODE(world.state.stat().st_mode) == 0o700
        with pytest.raises(Refused, match=f"in use .*pid {os.getpid()}"):
            await LocalPlatform(world.file, world.state, port=World(world.folder).port).start()
    assert world.pod_records() == []
    with pytest.raises(aiohttp.ClientConnectorError):
        await world.infer()


async def test_replicas_follow_the_manifest(world: World) -> None:
    world.write(manifest(replicas=1))
    async with world.running():
        await world.healthy()
        (first,) = [pod.name for pod in world.pods()]
        world.write(manifest(replicas=3))
        await world.healthy(ready=3)
        world.write(manifest(replicas=1))
        await world.healthy(ready=1)
        assert [pod.name for pod in world.pods()] == [first]  # the oldest one stays
        assert world.view().desired.metadata.generation == 3


# Failing


async def test_a_killed_model_comes_back(world: World) -> None:
    world.write(manifest(replicas=2))
    async with world.running():
        await world.healthy(ready=2)
        before = {pod.name: pod.pid for pod in world.pods()}
        victim = world.pods()[0]
        kill(victim.pid)
        await world.until(lambda: len(world.endpoints()) == 1, "off the routing file")
        assert "killed by SIGKILL" in next(pod.failure for pod in world.pods() if pod.name == victim.name)
        await world.healthy(ready=2)
        after = {pod.name: pod.pid for pod in world.pods()}
        assert after.keys() == before.keys()
        assert [name for name in before if before[name] != after[name]] == [victim.name]
        assert next(pod.restarts for pod in world.pods() if pod.name == victim.name) == 1


async def test_a_killed_sidecar_comes_back_beside_the_same_model(world: World) -> None:
    world.write(manifest())
    async with world.running():
        await world.healthy()
        (before,) = world.pod_records()
        kill(before["sidecar"]["pid"])
        await world.until(lambda: world.pod_records()[0]["sidecar"] != before["sidecar"], "a new sidecar")
        # The queue of connections outlived the sidecar: nobody is refused while it starts.
        assert (await world.infer())["model_version"] == "v1"
        await world.healthy()
        (after,) = world.pod_records()
        assert after["model"] == before["model"]
        assert world.endpoints() == [f"127.0.0.1:{after['localPort']}"]


async def test_a_hanging_model_is_not_ready_by_the_manifests_probe(world: World) -> None:
    probe = {"httpGet": {"path": "/custom-ready", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    world.write(manifest(container={"readinessProbe": probe}))
    async with world.running():
        await world.healthy()
        (pod,) = world.pods()
        async with aiohttp.ClientSession() as session:
            await session.post(f"http://127.0.0.1:{world.pod_records()[0]['port']}/hang")
        await world.until(lambda: not world.endpoints(), "off the routing file")
        assert world.pods()[0].pid == pod.pid


async def test_a_model_that_never_gets_ready_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "SLOW_START", 0.5)
    world.write(
        manifest("v1", "--never-ready", "--say", "loading"),
    )
    async with world.running():
        await world.until(lambda: world.pods()[0].failure.endswith(": loading"), "a reason")
        assert world.pods()[0].failure.startswith("model not ready for ")
        assert world.endpoints() == []


async def test_a_canary_that_cannot_start_is_rolled_back_with_its_last_words(world: World) -> None:
    world.write(manifest())
    async with world.running():
        await world.healthy()
        (stable,) = world.pods()
        flags = ("--say", "no weights found", "--exit-after", "0", "--exit-code", "4")
        world.write(manifest("v2", *flags, progressDeadlineSeconds=1))
        await world.until(lambda: world.view().status.last_rollback, "rolled back")
        rollback = world.view().status.last_rollback
        assert rollback is not None
        assert rollback.reason == "ProgressDeadlineExceeded"
        assert "model exit code 4: no weights found" in rollback.message
        await world.until(lambda: [pod.pid for pod in world.pods()] == [stable.pid], "only stable is left")


async def test_a_command_that_is_not_there(world: World) -> None:
    world.write(manifest(container={"command": ["/nowhere/serve"]}))
    async with world.running():
        await world.until(lambda: world.pods()[0].failure, "a reason")
        assert world.pods()[0].failure == "model cannot be started: /nowhere/serve: No such file or directory"


# Changing


async def test_a_new_version_replaces_the_old_one_without_an_error(world: World, clients: list[Client]) -> None:
    world.write(manifest(replicas=2))
    async with world.running():
        await world.healthy(ready=2)
        clients += [Client(world) for _ in range(4)]
        await asyncio.sleep(0.3)
        world.write(manifest("v2", replicas=2))
        await world.healthy("v2", ready=2)
        await asyncio.sleep(0.3)
        for client in clients:
            await client.stop()
        assert [error for client in clients for error in client.errors] == []
        assert {client.versions[0] for client in clients} == {"v1"}
        assert {client.versions[-1] for client in clients} == {"v2"}
        ended = [d for d in (world.state / "fraud" / "pods").iterdir() if not (d / "pod.json").exists()]
        assert len(ended) == 2
        assert all((d / "model.log").exists() for d in ended)


async def test_a_bad_edit_changes_nothing_but_the_phase(world: World) -> None:
    world.write(manifest())
    async with world.running():
        await world.healthy()
        (pod,) = world.pods()
        world.write(manifest("v2", replicas=-1))
        await world.until(lambda: world.view().status.phase == "InvalidSpec", "InvalidSpec")
        (problem,) = world.view().observed.problems
        assert problem.startswith("fraud.yaml: spec.replicas: -1")
        world.file.write_text("a: [")
        await world.until(lambda: world.view().observed.problems[0].startswith("fraud.yaml:"), "a broken file")
        world.file.unlink()
        await world.until(lambda: "fraud.yaml: is gone" in world.view().status.message, "the file's end is told")
        assert world.view().status.phase == "InvalidSpec"
        assert [p.pid for p in world.pods()] == [pod.pid]
        world.write(manifest())
        await world.until(lambda: world.view().status.phase == "Healthy", "Healthy")
        assert [p.pid for p in world.pods()] == [pod.pid]
        assert world.view().desired.metadata.generation == 1


@pytest.mark.parametrize(
    "metadata",
    [{"name": "Fraud_1"}, {"name": 7}, {"name": "fraud", "namespace": "NO!"}, {"name": "fraude", "labels": 3}],
)
async def test_a_bad_name_ends_nothing(world: World, metadata: dict[str, object]) -> None:
    spam = manifest("s1", name="spam")
    world.write(manifest(), spam)
    async with world.running():
        await world.healthy()
        (pod,) = world.pods()
        bad = manifest("v2")
        bad["metadata"] = metadata
        world.write(bad, manifest("s1", name="spam", replicas=2))
        await world.until(lambda: world.view().status.phase == "InvalidSpec", "InvalidSpec")
        assert world.view().status.message.startswith("fraud.yaml:1: metadata.")
        await world.until(lambda: len(world.pods("default/spam")) == 2, "the good one is taken")
        assert world.view("default/spam").observed.problems == ()
        assert [(p.pid, p.ending) for p in world.pods()] == [(pod.pid, False)]
        assert (await world.infer())["model_version"] == "v1"
        world.write(manifest(), spam)
        await world.until(lambda: world.view().status.phase == "Healthy", "Healthy")
        assert [p.pid for p in world.pods()] == [pod.pid]


async def test_nothing_goes_while_another_manifest_is_bad(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.write(manifest(), manifest("s1", name="spam"))
    async with world.running():
        await world.healthy()
        world.write(manifest(replicas=-1))
        await world.until(lambda: world.view("default/spam").status.phase == "InvalidSpec", "spam stays")
        assert "default/spam is not in it" in world.view("default/spam").status.message
        assert "spec.replicas: -1" in world.view().status.message
        world.write(manifest())
        await world.until(lambda: world.platform.keys() == [KEY], "spam goes")
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert "default/spam: taken out of the manifest: its pods end" in warnings


async def test_a_renamed_one_stays_while_the_new_one_has_no_port(world: World) -> None:
    world.write(manifest())
    async with world.running():
        await world.healthy()
        with socket.create_server(("127.0.0.1", world.port + 10)):
            world.write(manifest(name="fraude"))
            await world.until(lambda: world.view().status.phase == "InvalidSpec", "InvalidSpec")
            assert world.view().status.message.startswith(f"default/fraude: not started: port {world.port + 10} on ")
        world.write(manifest(name="fraude"), manifest("s1", name="spam"))
        await world.until(lambda: world.platform.keys() == ["default/fraude", "default/spam"], "the new ones")


async def test_a_spec_that_cannot_be_kept_is_told_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_file, "RETRY", 0.2)
    world.write(manifest())
    async with world.running():
        await world.healthy()
        in_the_way = world.state / "fraud" / ".manifest.json.new"
        in_the_way.mkdir()
        world.write(manifest(replicas=2))
        await world.until(lambda: world.view().status.phase == "InvalidSpec", "it shows")
        (problem,) = world.view().observed.problems
        assert problem == f"{KEY}: its new manifest cannot be kept: {world.state}/fraud/manifest.json: Is a directory"
        in_the_way.rmdir()
        await world.healthy(ready=2)


async def test_a_routing_file_that_somebody_spoils_is_mended(world: World) -> None:
    world.write(manifest())
    async with world.running():
        await world.healthy()
        before = world.routing()
        file = world.state / "fraud" / "routing.json"
        for harm in (lambda: file.write_text("{"), file.unlink):
            harm()
            async with asyncio.timeout(10):
                await world.until(lambda: world.routing()["revisions"] == before["revisions"], "mended")
        assert world.routing()["generation"] == before["generation"] + 2


async def test_two_deployments_in_one_file(world: World) -> None:
    fraud, spam = manifest(), manifest("s1", name="spam")
    world.write(fraud, spam)
    async with world.running():
        await world.healthy()
        await world.until(lambda: world.view("default/spam").status.phase == "Healthy", "spam")
        assert world.platform.ingress("default/spam") == f"127.0.0.1:{world.port + 10}"
        assert (await world.infer())["model_version"] == "v1"
        assert (await world.infer(world.port + 10))["model_version"] == "s1"
        world.write(fraud)
        await world.until(lambda: world.platform.pods("default/spam") == [], "spam's pods end")
        assert [view.key for view in world.runtime.views()] == [KEY]
        assert (await world.infer())["model_version"] == "v1"
        world.write(fraud, spam)
        await world.until(lambda: world.platform.pods("default/spam")[0].ready, "spam is back")
        await world.until(lambda: world.routing("spam")["revisions"][0]["endpoints"], "spam routes")
        assert (await world.infer(world.port + 10))["model_version"] == "s1"


async def test_stopping_finishes_requests_and_then_insists(world: World) -> None:
    wanted = manifest("v1", "--deaf", "--slow", "1")
    wanted["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    world.write(wanted)
    async with world.running():
        await world.healthy()
        (record,) = world.pod_records()
        under_way = asyncio.create_task(world.infer())
        await asyncio.sleep(0.3)
    assert (await under_way)["model_version"] == "v1"
    assert not psutil.pid_exists(record["model"]["pid"])  # it had ignored SIGTERM


# Refusing


async def refused(world: World) -> str:
    with pytest.raises(Refused) as caught:
        await LocalPlatform(world.file, world.state, port=world.port).start()
    assert world.processes() == []
    return str(caught.value)


async def test_a_bad_manifest_starts_nothing(world: World) -> None:
    world.write(manifest(replicas=-1), manifest(container={"command": []}, name="spam"))
    lines = (await refused(world)).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["spec.replicas", "spec.template.spec.containers[0].command"]
    assert all(line.startswith("fraud.yaml:") for line in lines)
    assert not world.state.exists()


async def test_no_manifest(world: World) -> None:
    assert await refused(world) == f"{world.file}: No such file or directory"


async def test_a_port_that_is_taken(world: World) -> None:
    world.write(manifest())
    with socket.create_server(("127.0.0.1", world.port)):
        assert f"port {world.port} on 127.0.0.1 is taken" in await refused(world)
        assert not world.state.exists()
        (world.state / "other").mkdir(parents=True)
        (world.state / "other").rmdir()
        await refused(world)
        assert world.state.exists()  # it was there before
