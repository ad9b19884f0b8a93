"""Baselines where they are kept: ConfigMaps of an API server, files beside a manifest."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from coalmine_operator.api.baseline import Baseline, digest_of, encode_baseline
from coalmine_operator.api.monitoring import BaselineRef
from coalmine_operator.engine.baselines import Wanted
from coalmine_operator.platforms.kubernetes import Client
from coalmine_operator.platforms.kubernetes.access import Access
from coalmine_operator.platforms.kubernetes.baselines import AGAIN, CHANGED, Baselines
from coalmine_operator.platforms.local.baselines import Baselines as Files

V3 = encode_baseline(Baseline(schema=1, model="fraud", version="v3", task="binary", rows=10))
V4 = encode_baseline(Baseline(schema=1, model="fraud", version="v4", task="binary", rows=2000))
NAME = "fraud-v3"


def wanted(version: str = "v3", **ref: Any) -> Wanted:
    return Wanted(ref=BaselineRef(**{"config_map": NAME, **ref}), model="fraud", version=version, task="binary")


def pinned(data: bytes = V3) -> Wanted:
    return wanted(digest=digest_of(data))


# ConfigMaps


class ConfigMaps:
    """An API server that holds nothing else. `status` over 0: what it answers instead."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.status = 0

    def put(self, data: bytes | str, name: str = NAME, key: str = "baseline.json") -> None:
        text = data.decode() if isinstance(data, bytes) else data
        self.data[name] = {"metadata": {"name": name, "namespace": "ml"}, "data": {key: text}}

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        found = self.data.get(request.match_info["name"])
        if self.status or found is None:
            return web.json_response({"message": "no such thing"}, status=self.status or 404)
        return web.json_response(found)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def reading(maps: ConfigMaps, clock: Clock) -> AsyncIterator[Baselines]:
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/ml/configmaps/{name}", maps.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Client(Access(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        yield Baselines(client, "ml", clock=clock)
    finally:
        await client.close()
        await runner.cleanup()


async def test_what_has_a_digest_is_read_once() -> None:
    maps, clock = ConfigMaps(), Clock()
    maps.put(V3)
    async with reading(maps, clock) as baselines:
        for _ in range(3):
            await baselines.look({"fraud-a": pinned(), "fraud-b": pinned()})
            clock.now += 1e6
        maps.data.clear()
        await baselines.look({"fraud-a": pinned()})
        assert baselines.states["fraud-a"].digest == digest_of(V3)
        assert baselines.states["fraud-a"].baseline is not None
        assert maps.asked == [f"/api/v1/namespaces/ml/configmaps/{NAME}"]
        # Nobody wants it any more, and then somebody does.
        await baselines.look({})
        await baselines.look({"fraud-a": pinned()})
    assert baselines.states["fraud-a"].problem == "missing"


async def test_what_has_none_is_read_again_when_it_may_have_changed() -> None:
    maps, clock = ConfigMaps(), Clock()
    maps.put(V3)
    async with reading(maps, clock) as baselines:
        await baselines.look({"fraud-a": wanted()})
        first = baselines.states["fraud-a"].baseline
        maps.put(V4)
        clock.now += CHANGED - 1
        await baselines.look({"fraud-a": wanted()})
        assert baselines.states["fraud-a"].baseline is first
        assert len(maps.asked) == 1
        clock.now += 1
        await baselines.look({"fraud-a": wanted()})
        assert (baselines.states["fraud-a"].problem, len(maps.asked)) == ("mismatch", 2)
        maps.put(V3)
        clock.now += CHANGED
        await baselines.look({"fraud-a": wanted()})
    assert baselines.states["fraud-a"].digest == digest_of(V3)


async def test_what_is_missing_is_asked_for_again_but_not_at_each_look() -> None:
    maps, clock = ConfigMaps(), Clock()
    async with reading(maps, clock) as baselines:
        for _ in range(5):
            await baselines.look({"fraud-a": pinned()})
            clock.now += AGAIN / 4
        assert len(maps.asked) == 2
        state = baselines.states["fraud-a"]
        assert (state.problem, state.baseline) == ("missing", None)
        assert state.message == ("ConfigMap fraud-v3: is not in namespace ml: make it with `kubectl create configmap`")
        maps.put(V3)
        clock.now += AGAIN
        await baselines.look({"fraud-a": pinned()})
    assert baselines.states["fraud-a"].problem == ""


async def test_another_file_than_the_one_that_is_meant_is_read_again() -> None:
    maps, clock = ConfigMaps(), Clock()
    maps.put(V4)
    async with reading(maps, clock) as baselines:
        await baselines.look({"fraud-a": pinned()})
        assert baselines.states["fraud-a"].problem == "mismatch"
        maps.put(V3)
        clock.now += AGAIN
        await baselines.look({"fraud-a": pinned()})
    assert baselines.states["fraud-a"].problem == ""


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_an_api_server_that_says_no(status: int) -> None:
    maps, clock = ConfigMaps(), Clock()
    maps.status = status
    async with reading(maps, clock) as baselines:
        await baselines.look({"fraud-a": wanted()})
    state = baselines.states["fraud-a"]
    assert state.problem == "unreadable"
    assert state.message == "ConfigMap fraud-v3: cannot be read: no such thing"


async def test_an_api_server_that_is_away_takes_nothing_back() -> None:
    maps, clock = ConfigMaps(), Clock()
    maps.put(V3)
    async with reading(maps, clock) as baselines:
        await baselines.look({"fraud-a": wanted()})
        maps.status = 503
        clock.now += CHANGED
        await baselines.look({"fraud-a": wanted()})
        assert (baselines.states["fraud-a"].problem, len(maps.asked)) == ("", 2)
        maps.status = 403  # a word, and not silence
        clock.now += CHANGED
        await baselines.look({"fraud-a": wanted()})
    assert baselines.states["fraud-a"].problem == "unreadable"


async def test_other_keys_and_other_forms() -> None:
    maps, clock = ConfigMaps(), Clock()
    maps.data[NAME] = {
        "data": {"v3.json": V3.decode()},
        "binaryData": {"v4.json": base64.b64encode(V4).decode(), "bad": "%"},
    }
    maps.data["empty"] = {"metadata": {}}
    asked = {
        "text": wanted(key="v3.json"),
        "binary": wanted("v4", key="v4.json"),
        "bad": wanted(key="bad"),
        "other": wanted(key="other"),
        "empty": wanted(config_map="empty"),
        "file": wanted(config_map="", file="baseline.json"),
    }
    async with reading(maps, clock) as baselines:
        await baselines.look(asked)
    found = {name: (state.problem, state.message) for name, state in baselines.states.items()}
    there = "is not there: it has bad, v3.json, v4.json"
    assert found == {
        "text": ("", ""),
        "binary": ("", ""),
        "bad": ("missing", f"ConfigMap fraud-v3, key bad: {there}"),
        "other": ("missing", f"ConfigMap fraud-v3, key other: {there}"),
        "empty": ("missing", "ConfigMap empty, key baseline.json: is not there: it is empty"),
        "file": ("missing", "spec.monitoring.baseline: names no ConfigMap: give one in configMap"),
    }


async def test_what_is_no_baseline() -> None:
    maps, clock = ConfigMaps(), Clock()
    maps.put('{"schema": 1}')
    async with reading(maps, clock) as baselines:
        await baselines.look({"fraud-a": wanted()})
    state = baselines.states["fraud-a"]
    assert state.problem == "unreadable"
    assert state.message.startswith("ConfigMap fraud-v3, key baseline.json: ")


# Files


def test_a_file_is_read_when_it_changes(tmp_path: Path) -> None:
    file, files = tmp_path / "v3.json", Files(tmp_path)
    asked = {"fraud-a": wanted(config_map="", file="v3.json")}
    files.look(asked)
    assert (files.states["fraud-a"].problem, files.touched) == ("missing", False)
    assert files.states["fraud-a"].message == "v3.json: is not there: write it with `coalmine baseline build`"
    file.write_bytes(V3)
    assert files.touched
    files.look(asked)
    first = files.states["fraud-a"].baseline
    assert first is not None
    assert not files.touched
    files.look(asked)
    assert files.states["fraud-a"].baseline is first
    file.write_bytes(V4)
    assert files.touched
    files.look(asked)
    assert files.states["fraud-a"].problem == "mismatch"
    file.unlink()
    files.look(asked)
    assert files.states["fraud-a"].problem == "missing"
    files.look({})
    assert (files.states, files.touched) == ({}, False)


def test_a_file_with_a_digest_is_read_once_it_is_the_right_one(tmp_path: Path) -> None:
    file, files = tmp_path / "baseline.json", Files(tmp_path)
    asked = {"fraud-a": replace(pinned(), ref=BaselineRef(file="baseline.json", digest=digest_of(V3)))}
    file.write_bytes(V4)
    files.look(asked)
    assert files.states["fraud-a"].problem == "mismatch"
    file.write_bytes(V3)
    files.look(asked)
    assert files.states["fraud-a"].problem == ""
    file.unlink()
    assert not files.touched
    files.look(asked)
    assert files.states["fraud-a"].digest == digest_of(V3)


def test_on_this_machine_a_config_map_is_a_file_beside_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "v3.json").write_bytes(V3)
    files = Files(tmp_path)
    files.look({"fraud-a": wanted(key="v3.json")})
    assert files.states["fraud-a"].problem == ""


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    files = Files(tmp_path / "folder")
    files.look({"a": wanted(file=str(tmp_path)), "b": wanted(file="../folder/x/y")})
    assert files.states["a"].problem == "unreadable"
    assert files.states["a"].message == f"{tmp_path}: cannot be read: Is a directory"
    assert files.states["b"].problem == "missing"
