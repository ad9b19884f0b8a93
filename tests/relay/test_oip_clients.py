"""tritonclient over HTTP and gRPC, through the relay, to MLServer: clients and a server that others wrote.

They need some 60 packages in an environment of their own, whose making takes minutes. So this runs where it is asked
for:

    COALMINE_OIP=1 make test        makes the environment once, under ~/.cache/coalmine/oip

"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from tests.relay.grpc_client import one
from tests.relay.harness import eventually, free_port

PACKAGES = ("mlserver==1.7.1", "tritonclient[grpc,http]")
ENVIRONMENT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coalmine/oip"
PYTHON = ENVIRONMENT / "bin/python3"
RUNTIME = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Sum(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        values = NumpyCodec.decode_input(payload.inputs[0])
        total = NumpyCodec.encode_output("total", values.sum(axis=1, keepdims=True).astype("float64"))
        return InferenceResponse(model_name=self.name, outputs=[total])
"""

pytestmark = [
    pytest.mark.skipif(os.environ.get("COALMINE_OIP") != "1", reason="takes minutes: COALMINE_OIP=1"),
    pytest.mark.timeout(1800),
]


async def run(*command: object, seconds: float = 120, **options: object) -> str:
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=subprocess.PIPE, **options)
    out, _ = await asyncio.wait_for(process.communicate(), seconds)
    assert process.returncode == 0, command
    return out.decode()


async def environment() -> None:
    done = ENVIRONMENT / ".done"
    if not done.exists():
        await run(sys.executable, "-m", "venv", ENVIRONMENT)
        await run(PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES, seconds=1700)
        done.touch()


async def test_tritonclient_against_mlserver(start_pod, tmp_path):
    await environment()
    http, grpc, metrics = free_port(), free_port(), free_port()
    ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics, "host": "127.0.0.1", "parallel_workers": 0}
    (tmp_path / "settings.json").write_text(json.dumps(ports))
    (tmp_path / "model-settings.json").write_text(json.dumps({"name": "sum", "implementation": "runtime.Sum"}))
    (tmp_path / "runtime.py").write_text(RUNTIME)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = await asyncio.create_subprocess_exec(
        PYTHON,
        "-m",
        "mlserver.cli.main",
        "start",
        tmp_path,
        cwd=tmp_path,
        **quiet,
        env=os.environ | {"PYTHONPATH": "."},
    )
    try:
        pod = await start_pod(http, one(observe={"outputs": {"total": [2.0, 4.0]}}), model_grpc=("127.0.0.1", grpc))
        await answers(grpc)
        client = Path(__file__).with_name("oip_client.py")
        got = json.loads(await run(PYTHON, client, f"127.0.0.1:{pod.ingress}", 5))
        assert got == {"http": [3.0] * 5, "grpc": [3.0] * 5}
        await eventually(lambda: pod.series().predictions == 10)
        assert pod.series().outputs.by_name["total"].bins == [0, 10, 0], "HTTP's and gRPC's are read alike"
    finally:
        with suppress(ProcessLookupError):
            server.kill()
        await server.wait()


async def answers(port: int) -> None:
    for _ in range(1200):
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.1)
    raise AssertionError("MLServer did not begin to listen")
