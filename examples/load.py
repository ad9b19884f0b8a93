"""A load generator: held-out rows as v2 requests at a steady rate, one record a request, labels joined later.

The rate does not wait for answers (an open loop), so a slow version is felt; requests in flight are bounded, and what
the bound kept back is counted. Nothing is tried again: what goes wrong is a client error.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

MAX_RECORDS = 1_000_000


@dataclass(slots=True)
class Record:
    """One request. Times are Unix seconds. `error` is empty where a whole 200 came back."""

    id: str
    sent: float
    done: float = 0.0
    status: int = 0
    revision: str = ""
    version: str = ""
    label: int = -1
    error: str = ""

    @property
    def seconds(self) -> float:
        return self.done - self.sent


@dataclass
class DelayedLabels:
    """The truth about each request, known only `delay` seconds after it was sent, joined to its answer by id."""

    delay: float
    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    _due: list[tuple[float, str, int]] = field(default_factory=list)
    _truth: dict[str, int] = field(default_factory=dict)
    _said: dict[str, tuple[str, int]] = field(default_factory=dict)

    def sent(self, request: str, truth: int, now: float) -> None:
        heapq.heappush(self._due, (now + self.delay, request, truth))

    def answered(self, request: str, version: str, label: int) -> None:
        self._said[request] = (version, label)
        self._join(request)

    def arrive(self, now: float) -> None:
        """Take in the labels that are due."""
        while self._due and self._due[0][0] <= now:
            _, request, truth = heapq.heappop(self._due)
            self._truth[request] = truth
            self._join(request)

    @property
    def unmatched(self) -> int:
        """Labels whose request has no answer, or none yet."""
        return len(self._truth)

    def _join(self, request: str) -> None:
        # Either may come first: an answer can be slower than the truth.
        if request in self._said and request in self._truth:
            version, label = self._said.pop(request)
            (self.right if label == self._truth.pop(request) else self.wrong)[version] += 1

    def accuracy(self) -> dict[str, float]:
        """Share of right answers by version, of those whose label arrived."""
        versions = sorted({*self.right, *self.wrong})
        return {v: self.right[v] / (self.right[v] + self.wrong[v]) for v in versions}


class Load:
    """Sends until `stop()`.

    `url`: the infer endpoint. `rows` [n, features] and their `labels` [n] are sent over and over, each time reordered.
    `fresh`: a new connection for each request.
    """

    def __init__(
        self,
        url: str,
        rows: np.ndarray,
        labels: np.ndarray,
        *,
        rate: float,
        seed: int = 0,
        timeout: float = 5.0,
        in_flight: int = 256,
        label_delay: float = 2.0,
        fresh: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = url
        self.rate = rate
        self.records: list[Record] = []
        self.held_back = 0
        self.labels = DelayedLabels(label_delay)
        self._tensors = [row.tolist() for row in rows]
        self._truth = labels.tolist()
        self._random = random.Random(seed)
        self._order: list[int] = []
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._bound = in_flight
        self._fresh = fresh
        self._clock = clock
        self._stop = asyncio.Event()

    @property
    def errors(self) -> list[Record]:
        return [r for r in self.records if r.error]

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Send until stopped; then wait for the answers still on their way."""
        start, sent = time.monotonic(), 0
        running: set[asyncio.Task[None]] = set()
        connector = aiohttp.TCPConnector(limit=0, force_close=self._fresh)
        async with aiohttp.ClientSession(connector=connector, timeout=self._timeout) as session:
            while not self._stop.is_set() and len(self.records) < MAX_RECORDS:
                await asyncio.sleep(max(0.0, start + sent / self.rate - time.monotonic()))
                sent += 1
                self.labels.arrive(self._clock())
                if len(running) >= self._bound:
                    self.held_back += 1
                    continue
                task = asyncio.create_task(self._one(session, f"r{sent}"))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.gather(*running)
        self.labels.arrive(float("inf"))

    def _next_row(self) -> int:
        if not self._order:
            self._order = self._random.sample(range(len(self._tensors)), len(self._tensors))
        return self._order.pop()

    async def _one(self, session: aiohttp.ClientSession, request: str) -> None:
        row = self._next_row()
        record = Record(request, self._clock())
        self.records.append(record)
        self.labels.sent(request, self._truth[row], record.sent)
        tensor = {"name": "features", "datatype": "FP64", "shape": [1, len(self._tensors[row])]}
        body = {"id": request, "inputs": [{**tensor, "data": self._tensors[row]}]}
        try:
            async with session.post(self.url, json=body) as answer:
                text = await answer.read()
                record.status = answer.status
                record.revision = answer.headers.get("coalmine-revision", "")
                if answer.status != 200:
                    record.error = f"HTTP {answer.status}: {text[:200].decode(errors='replace')}"
                else:
                    _read(record, text)
        except TimeoutError:
            record.error = "no whole answer in time"
        except (aiohttp.ClientError, OSError) as error:
            record.error = f"{type(error).__name__}: {error}"
        record.done = self._clock()
        if not record.error:
            self.labels.answered(request, record.version, record.label)


def _read(record: Record, text: bytes) -> None:
    """Check a 200 as a client would: JSON, our id, one label."""
    try:
        answer: dict[str, Any] = json.loads(text)
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        (record.label,) = outputs["label"]
        record.version = answer["model_version"]
        if answer["id"] != record.id:
            record.error = f"the answer to {answer['id']} came to {record.id}"
    except (ValueError, KeyError, TypeError) as error:
        record.error = f"no answer of the protocol: {type(error).__name__}: {error}"


async def _main(arguments: argparse.Namespace) -> int:
    from examples.train import held_out

    rows, labels = held_out()
    load = Load(f"{arguments.url}/v2/models/{arguments.model}/infer", rows, labels, rate=arguments.rate)
    asyncio.get_running_loop().call_later(arguments.seconds, load.stop)
    await load.run()
    for version, accuracy in load.labels.accuracy().items():
        answers = [r.seconds * 1000 for r in load.records if r.version == version and not r.error]
        p50, p99 = np.quantile(answers, (0.5, 0.99))
        print(f"{version}: {len(answers)} answers, p50 {p50:.1f} ms, p99 {p99:.1f} ms, accuracy {accuracy:.3f}")
    for error, times in Counter(r.error for r in load.errors).most_common(5):
        print(f"client error, {times} times: {error}")
    print(f"{len(load.records)} requests sent, {len(load.errors)} client errors, {load.held_back} held back")
    return 1 if load.errors else 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Send held-out rows to a model at a steady rate.")
    parser.add_argument("--url", default="http://127.0.0.1:8008", help="scheme, host and port (default: %(default)s)")
    parser.add_argument("--model", default="breast-cancer", help="the model's name (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long (default: %(default)s)")
    raise SystemExit(asyncio.run(_main(parser.parse_args())))


if __name__ == "__main__":
    import sys
    from pathlib import Path

    # Run as a script, Python looks for modules beside it, not in the project's folder.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
