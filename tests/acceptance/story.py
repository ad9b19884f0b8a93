"""Recorded predictions through the real thing: `coalmine run`, a model that replays scores, a real Prometheus.

Prometheus scrapes once a second and its rules look at a window of WINDOW seconds. A chunk's rows and labels come
within such a window, with silence around it: then what a rule says at the window's end is about that chunk alone.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
import yaml
from tests.acceptance.nannyml_data import Scored
from tests.acceptance.prometheus import SCRAPE, TRIES, Prometheus
from tests.local.running import COALMINE, coalmine, free_port, until

MODEL: Final = Path(__file__).with_name("replay_model.py")
#: Seconds.
WINDOW: Final = 12
#: Rows of a request.
BATCH: Final = 250


class Story:
    """One model deployment of a manifest in a folder. `end`: of the last chunk's window, Unix seconds."""

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        *rules_options: str,
        more_rules: str = "groups: []",
        command: Sequence[str | Path] = (COALMINE,),
        cadvisor_port: int = 0,
    ) -> None:
        """`rules_options`: of `coalmine rules`; `more_rules`: of another file; `command`: the `coalmine` that runs.

        `cadvisor_port`: see Prometheus.
        """
        self.folder = folder
        self.end = 0.0
        (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
        self.rules = (coalmine("rules", "model.yaml", *rules_options, cwd=folder).stdout, more_rules)
        self._log = (folder / "coalmine.log").open("wb")
        info = folder / ".coalmine/run.json"
        for _ in range(TRIES):
            self.port = free_port()
            self._run = subprocess.Popen(
                [*command, "run", "model.yaml", "--port", str(self.port), "--web-port", "0"],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            )  # fmt: skip
            until(lambda: self._run.poll() is not None or info.exists(), "run.json")
            said = (folder / "coalmine.log").read_text()
            if self._run.poll() is None or "is taken" not in said:
                break
        assert self._run.poll() is None, said
        until(self._serves, "the model", 60)
        self.web_port: int = json.loads(info.read_text())["port"]
        self.prometheus = Prometheus(folder / "prometheus", self.rules, self.web_port, cadvisor_port=cadvisor_port)

    def _serves(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def play(
        self, live: Scored, rows: slice, tensors: Callable[[Scored, slice], list[dict[str, Any]]], name: str
    ) -> float:
        """Send rows and their labels, and wait for the end of the window; the Unix seconds of it.

        Once more, under another name, where Prometheus was too busy to look each second: nobody knows then which
        rows of a window it has seen.
        """
        for again in range(1, TRIES + 1):
            begins = time.time()
            time.sleep(2 * SCRAPE)
            asyncio.run(self._send(live, rows, tensors, name if again == 1 else f"{name}-{again}"))
            took = time.time() - begins
            assert took < WINDOW - 3 * SCRAPE, f"{took:.1f} s for a chunk: a window of {WINDOW} s is too short here"
            # Rules evaluated a moment before it looked back to a moment before the beginning, when nothing came.
            self.end = begins + WINDOW
            time.sleep(max(0.0, self.end + SCRAPE - time.time()))
            looks = self.one(f"min(count_over_time(coalmine_routing_generation[{WINDOW}s]))", self.end)
            if looks >= WINDOW / SCRAPE - 1:
                return self.end
            print(f"{name}: Prometheus looked {looks:g} times in {WINDOW} s: played again", flush=True)
        raise AssertionError(f"{name}: this machine is too busy for a Prometheus that looks each second")

    async def _send(
        self, live: Scored, rows: slice, tensors: Callable[[Scored, slice], list[dict[str, Any]]], name: str
    ) -> None:
        starts = range(rows.start, min(rows.stop, len(live.scores)), BATCH)
        slots = asyncio.Semaphore(4)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self.port}") as session:

            async def one(start: int) -> None:
                part = slice(start, min(start + BATCH, rows.stop, len(live.scores)))
                async with slots:
                    prediction = f"{name}-{start}"
                    async with session.post(
                        "/v2/models/replay/infer",
                        json={"id": prediction, "inputs": tensors(live, part)},
                        headers={"X-Prediction-Id": prediction},
                    ) as answer:
                        assert answer.status == 200, await answer.text()
                    labels = [int(label) for label in live.labels[part]]
                    async with session.post("/feedback", json={"predictionId": prediction, "labels": labels}) as answer:
                        assert answer.status == 202, await answer.text()

            await asyncio.gather(*map(one, starts))

    def one(self, expression: str, at: float) -> float:
        """The value of the only sample."""
        samples = self.prometheus.query(expression, at)
        assert len(samples) == 1, (expression, samples)
        return samples[0][1]

    def edit(self, manifest: dict[str, Any]) -> None:
        """Another manifest in the place of the one that runs."""
        fresh = self.folder / "model.new"
        fresh.write_text(yaml.safe_dump(manifest))
        fresh.replace(self.folder / "model.yaml")

    def stop(self) -> None:
        self.prometheus.stop()
        self._run.terminate()
        self._run.wait(60)
        self._log.close()


def manifest(name: str, score: str, monitoring: dict[str, Any], *others: str) -> dict[str, Any]:
    """A model deployment whose model gives back the tensor `score`, and those called `others`."""
    container = {
        "name": "model",
        "command": [sys.executable, str(MODEL), score, *others],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready"}},
        "resources": {"limits": {"memory": "1Gi", "cpu": "2"}},
    }
    return {
        "apiVersion": "coalmine.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"version": "v1", "protocol": "v2"},
            "template": {"spec": {"containers": [container]}},
            "monitoring": {
                "prediction": {"score": score},
                "feedback": {},
                "drift": {"window": f"{WINDOW}s"},
                **monitoring,
            },
        },
    }


def numeric(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A tensor of numbers; what is no number is null."""
    data = [None if value is None or np.isnan(float(value)) else float(value) for value in values]
    return {"name": name, "shape": [len(data), 1], "datatype": "FP64", "data": data}


def text(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """A tensor of names."""
    return {"name": name, "shape": [len(values), 1], "datatype": "BYTES", "data": [str(value) for value in values]}
