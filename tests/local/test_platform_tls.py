"""A model behind TLS on the local platform: its probe, its warm-up and its requests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.relay.authority import Authority

from .platform_world import World, manifest

MODEL = Path(__file__).with_name("tls_model.py")
INFER = "/v2/models/m/infer"


@pytest.mark.parametrize("guarded", [False, True])
async def test_a_model_behind_tls(tmp_path: Path, guarded: bool) -> None:
    files = Authority(tmp_path / "tls").issue("localhost")
    command = [sys.executable, "-S", str(MODEL), str(files.cert), str(files.key), *([str(files.ca)] if guarded else [])]
    tls = {"caFile": "tls/ca.crt"} | ({"certFile": "tls/tls.crt", "keyFile": "tls/tls.key"} if guarded else {})
    model = {"name": "m", "version": "v1", "protocol": "v2", "tls": tls, "warmup": [{"path": INFER, "body": "{}"}]}
    world = World(tmp_path)
    world.write(manifest(container={"command": command}, model=model))
    async with world.running():
        await world.healthy()
        assert (await world.infer())["model_version"] == "v1"


async def test_a_certificate_of_somebody_else_is_told(tmp_path: Path) -> None:
    files, other = Authority(tmp_path / "tls").issue("localhost"), Authority(tmp_path / "other")
    command = [sys.executable, "-S", str(MODEL), str(files.cert), str(files.key)]
    tls, warmup = {"caFile": str(other.ca)}, [{"path": INFER, "body": "{}"}]
    model = {"name": "m", "version": "v1", "protocol": "v2", "tls": tls, "warmup": warmup}
    world = World(tmp_path)
    world.write(manifest(container={"command": command}, model=model, analysis={"metrics": [], "interval": "1s"}))
    async with world.running():
        await world.until(lambda: "warm-up: POST" in world.view().status.message, "a reason")
        assert "certificate verify failed" in world.view().status.message
        assert world.endpoints() == []
