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
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
import yaml
from tests.acceptance.nannyml_data import Scored
from tests.local.running import COALMINE, coalmine, free_port, until

MODEL: Final = Path(__file__).with_name("replay_model.py")
#: Seconds.
WINDOW: Final = 12
SCRAPE: Final = 1
#: A port that was free may be taken by the time it is used.
TRIES: Final = 5
#: Rows of a request.
BATCH: Final = 250


class Prometheus:
    """Debian's, with the rules that `coalmine rules` printed, and the targets that `coalmine run` names."""

    def __init__(self, folder: Path, rules: str, web_port: int) -> None:
        (folder / "rules.yml").write_text(_at_every_scrape(rules))
        config = {
            "global": dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{SCRAPE}s"),
            "rule_files": ["rules.yml", "more.yml"],
            "scrape_configs": [
                {
                    "job_name": "coalmine",
                    "honor_labels": True,
                    "http_sd_configs": [{"url": f"http://127.0.0.1:{web_port}/targets", "refresh_interval": "1s"}],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = (folder / "prometheus.log").open("wb")
        for _ in range(TRIES):
            self.port = free_port()
            self._process = subprocess.Popen(
                [
                    "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                cwd=folder, stdout=self._log, stderr=self._log,
            )  # fmt: skip
            until(lambda: self._process.poll() is not None or self._is_ready(), f"Prometheus: {folder}/prometheus.log")
            if self._process.poll() is None:
                break
        assert self._process.poll() is None, (folder / "prometheus.log").read_text()[-2000:]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Samples of an instant query: labels and value."""
        found = self.get("query", query=expression, time=f"{time.time() if at is None else at:.3f}")
        return [(sample["metric"], float(sample["value"][1])) for sample in found["result"]]

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        return {a["labels"]["alertname"] for a in self.get("alerts")["alerts"] if a["state"] == "firing"}

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


def _at_every_scrape(rules: str) -> str:
    """An hour's window is looked at once a minute; this one's is some seconds."""
    document = yaml.safe_load(rules)
    for group in document["groups"]:
        group.pop("interval", None)
    return yaml.safe_dump(document, sort_keys=False)


class Story:
    """One model deployment of a manifest in a folder."""

    def __init__(self, folder: Path, manifest: dict[str, Any], *rules_options: str, more_rules: str = "") -> None:
        """`rules_options`: of `coalmine rules`; `more_rules`: of another file."""
        self.folder = folder
        (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
        rules = coalmine("rules", "model.yaml", *rules_options, cwd=folder).stdout
        self._log = (folder / "coalmine.log").open("wb")
        info = folder / ".coalmine/run.json"
        for _ in range(TRIES):
            self.port = free_port()
            self._run = subprocess.Popen(
                [COALMINE, "run", "model.yaml", "--port", str(self.port), "--web-port", "0"],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            )  # fmt: skip
            until(lambda: self._run.poll() is not None or info.exists(), "run.json")
            said = (folder / "coalmine.log").read_text()
            if self._run.poll() is None or "is taken" not in said:
                break
        assert self._run.poll() is None, said
        until(self._serves, "the model", 60)
        (folder / "more.yml").write_text(_at_every_scrape(more_rules or "groups: []"))
        self.prometheus = Prometheus(folder, rules, json.loads(info.read_text())["port"])
        until(lambda: len(self.prometheus.query("up == 1")) == 2, "both targets to be scraped")

    def _serves(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def play(
        self, live: Scored, rows: slice, tensors: Callable[[Scored, slice], list[dict[str, Any]]], name: str
    ) -> float:
        """Send rows and their labels, and wait for the end of the window; the Unix seconds of it."""
        begins = time.time()
        time.sleep(2 * SCRAPE)
        asyncio.run(self._send(live, rows, tensors, name))
        took = time.time() - begins
        assert took < WINDOW - 3 * SCRAPE, f"{took:.1f} s for a chunk: a window of {WINDOW} s is too short here"
        # Rules evaluated a moment before it looked back to a moment before the beginning, when nothing came.
        end = begins + WINDOW
        time.sleep(max(0.0, end + SCRAPE - time.time()))
        return end

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
