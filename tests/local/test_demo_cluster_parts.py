"""The parts of the demo in a cluster that need none: its shell, its view, its refusals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from examples.show.cluster import MANIFEST, revisions
from examples.show.senders import Senders
from examples.show.shell import ROOT, Shell
from examples.show.timeline import NotTrueError, until

from coalmine_operator.api.decode import decode, read_manifests
from coalmine_operator.api.status import Status, TrackStatus
from coalmine_operator.sources.snapshots import Snapshots
from coalmine_sidecar.contract import Snapshot


@pytest.fixture
def shown() -> list[str]:
    return []


@pytest.fixture
def shell(tmp_path: Path, shown: list[str]) -> Shell:
    return Shell(os.environ, tmp_path / "log", shown.append)


async def test_a_command_is_shown_and_run_in_the_projects_folder(shell: Shell, shown: list[str]) -> None:
    assert await shell.run("ls examples/demo.py | tr a-z A-Z") == "EXAMPLES/DEMO.PY\n"
    assert shown == ["ls examples/demo.py | tr a-z A-Z"]


async def test_a_command_that_fails_says_what_it_said_on_one_line(shell: Shell) -> None:
    with pytest.raises(NotTrueError, match=r"^\(echo one; .*: exit status 3: one two$"):
        await shell.run("(echo one; echo two; exit 3) >&2")
    with pytest.raises(NotTrueError, match="exit status 1"):
        await shell.run("false | true")


async def test_a_command_that_hangs_is_ended_with_its_children(shell: Shell) -> None:
    with pytest.raises(NotTrueError, match=r"no end after 0\.5 s$"):
        await shell.run("sleep 3217 & sleep 3217", timeout=0.5)
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "3217"]]


async def test_what_should_go_on_and_does_not_is_told(shell: Shell, shown: list[str]) -> None:
    going = await shell.keep("cat")
    assert shown == ["cat &"]
    assert shell.broken() == ""
    ended = await shell.keep("echo no such pod >&2; exit 1")
    await ended.wait()
    assert shell.broken() == "echo no such pod >&2; exit 1: no such pod"
    await shell.stop()
    assert going.returncode is not None


@contextlib.asynccontextmanager
async def senders_with(tmp_path: Path, kubectl: str) -> AsyncIterator[Senders]:
    """Clients whose `kubectl` is this script."""
    program = tmp_path / "bin/kubectl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{kubectl}\n")
    program.chmod(0o755)
    shell = Shell({"PATH": f"{program.parent}:{os.environ['PATH']}"}, tmp_path / "log", lambda _: None)
    yield Senders(shell, "demo", rate=10)
    await shell.stop()


async def stopped_after_a_record(senders: Senders) -> None:
    sending = asyncio.create_task(senders.run())
    await until(lambda: senders.records, 30, "a record", str)
    senders.stop()
    await sending
    senders.stop()


RECORD = 'echo \'{"id": "r1", "sent": 1.0, "done": 2.0}\''


async def test_senders_are_told_to_end_and_say_what_was_right(tmp_path: Path) -> None:
    tally = '{"right": {"v1": 1}, "wrong": {}, "held_back": 3}'
    async with senders_with(tmp_path, f"{RECORD}; cat; echo '{tally}'") as senders:
        await stopped_after_a_record(senders)
    assert (senders.labels.accuracy(), senders.held_back, senders.errors) == ({"v1": 1.0}, 3, [])


async def test_senders_that_end_by_themselves_have_lost_requests(tmp_path: Path) -> None:
    async with senders_with(tmp_path, f"{RECORD}; echo gone >&2") as senders:
        with pytest.raises(NotTrueError, match=r"^the clients ended by themselves: gone$"):
            await senders.run()
    assert [record.id for record in senders.records] == ["r1"]


async def test_senders_that_do_not_end_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.show.senders.END", 0.5)
    async with senders_with(tmp_path, f"{RECORD}; exec sleep 60") as senders:
        with pytest.raises(NotTrueError, match=r"^the clients did not end within 0\.5 s"):
            await stopped_after_a_record(senders)


def pod(revision: str, version: str, *, ready: bool) -> dict[str, Any]:
    labels = {"coalmine.dev/revision": revision, "app.kubernetes.io/version": version}
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": f"{revision}-0", "labels": labels}, "status": {"conditions": conditions}}


def test_the_view_names_roles_first_and_counts_what_is_ready_and_in_force() -> None:
    snapshots = Snapshots(session=None)  # type: ignore[arg-type]  # it asks nobody here
    snapshots.take("a-0", Snapshot(pod="a-0", revision="a", boot="x", at=1.0, generation=1, weights={"a": 70, "b": 30}))
    status = Status(
        stable=TrackStatus(revision="a", version="v1", weight=40), canary=TrackStatus(revision="b", version="v2")
    )
    pods = [pod("old", "v0", ready=True), pod("b", "v2", ready=False), pod("a", "v1", ready=True)]
    stable, canary, retired = revisions(status, pods, snapshots)
    assert (stable.version, stable.track, stable.weight, stable.in_force, stable.ready) == ("v1", "stable", 40, 70, 1)
    assert (canary.version, canary.track, canary.in_force, canary.pods, canary.ready) == ("v2", "canary", 30, 1, 0)
    assert (retired.version, retired.track, retired.in_force) == ("v0", "", 0)


def test_the_manifest_for_a_cluster_tells_the_same_story_as_the_one_for_this_machine() -> None:
    texts = [(ROOT / name).read_text() for name in (MANIFEST, "examples/breast-cancer.yaml")]
    there, here = (decode(read_manifests(text, source="m")[0][0].raw) for text in texts)
    assert there.metadata.name == here.metadata.name
    for part in ("fallback", "strategy", "analysis", "auto_rollback", "model"):
        assert getattr(there.spec, part) == getattr(here.spec, part)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"COALMINE_CLUSTER": "mine"}, "COALMINE_CLUSTER=mine: own or kubeconfig"),
        ({"COALMINE_CLUSTER": "kubeconfig", "COALMINE_KUBECONFIG": ""}, "set COALMINE_KUBECONFIG to the file"),
    ],
)
def test_without_a_cluster_it_says_so_in_one_line(environment: dict[str, str], says: str) -> None:
    demo = [sys.executable, "-m", "examples.demo_cluster", "--plain"]
    ended = subprocess.run(demo, env=os.environ | environment, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ended.returncode == 1
    (line,) = ended.stdout.splitlines()
    assert line.endswith(says)
    assert ended.stderr == ""
