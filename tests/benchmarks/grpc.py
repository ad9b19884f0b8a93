"""gRPC through the sidecar, beside a proxy on the `h2` library and one on grpcio's generic handlers.

    python -m tests.benchmarks.grpc [CALLS]

CPU time of the proxy for a unary call is what is compared: it holds on a machine that is busy with other things too.
The figures kept are in grpc.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

import grpc
import grpc.aio
import psutil
from tests.relay.grpc_model import INFER, SCORE
from tests.relay.harness import revision, routing

from coalmine_sidecar.contract import encode_routing

ROOT = Path(__file__).resolve().parents[2]
CONCURRENT = (1, 32)
REQUEST = b"x" * 95


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start(*command: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
    )


async def listening(port: int) -> None:
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        await asyncio.sleep(0.1)


async def drive(port: int, calls: int, concurrent: int) -> None:
    """`calls` unary calls on one connection."""
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        infer = channel.unary_unary(INFER)
        left = iter(range(calls))

        async def client() -> None:
            for _ in left:
                assert await infer(REQUEST, wait_for_ready=True) == SCORE

        await asyncio.gather(*(client() for _ in range(concurrent)))


async def measure(name: str, port: int, process: asyncio.subprocess.Process, calls: int) -> dict[str, float]:
    watched = psutil.Process(process.pid)
    await listening(port)
    figures: dict[str, float] = {"rss_idle_mb": watched.memory_info().rss / 2**20}
    for concurrent in CONCURRENT:
        await drive(port, 200, concurrent)
        before, began = watched.cpu_times(), time.perf_counter()
        await drive(port, calls, concurrent)
        seconds, after = time.perf_counter() - began, watched.cpu_times()
        figures[f"cpu_us_c{concurrent}"] = (after.user + after.system - before.user - before.system) / calls * 1e6
        figures[f"rps_c{concurrent}"] = calls / seconds
    figures["rss_mb"] = watched.memory_info().rss / 2**20
    print(f"{name:10}", *(f"{key} {value:.0f}" for key, value in figures.items()), sep="  ", flush=True)
    return figures


async def main(calls: int) -> dict[str, dict[str, float]]:
    model = free_port()
    processes = [await start("tests.relay.grpc_model", "m", str(model))]
    results: dict[str, dict[str, float]] = {}
    try:
        await listening(model)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "routing.json"
            routed = routing(
                revision("a", 60), revision("b", 30, model), revision("c", 10, model), fallback={"chain": ["a"]}
            )
            file.write_bytes(encode_routing(routed))
            for name in ("coalmine", "h2", "grpcio"):
                port = free_port()
                if name == "coalmine":
                    spare = (f"--{role}=127.0.0.1:0" for role in ("local", "admin"))
                    flags = (f"--routing={file}", "--revision=a", "--pod=p", f"--model=127.0.0.1:{model}", *spare)
                    process = await start("coalmine_sidecar", *flags, f"--ingress=127.0.0.1:{port}")
                else:
                    process = await start("tests.benchmarks.grpc_others", name, str(port), str(model))
                processes.append(process)
                results[name] = await measure(name, port, process, calls)
                process.kill()
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
    return results


if __name__ == "__main__":
    figures = asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000))
    if path := os.environ.get("BENCH_JSON"):
        Path(path).write_text(json.dumps({"grpc": figures}, indent=1))
