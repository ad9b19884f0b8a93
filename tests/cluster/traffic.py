"""Clients of a model deployment among the pods: a steady load that writes down each request as it ends.

`python -m tests.cluster.traffic URL FILE` sends until SIGTERM, most of it on connections that stay, the rest each on a
new one. A test uses `traffic`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import uvloop
from examples.load import Load, Record
from examples.train import held_out
from tests.cluster.lab.cluster import Cluster

#: Requests a second in all, and those of them that come on a new connection each.
RATE = 210.0
FRESH_RATE = 20.0
#: What it must have been over all, unless it lasted for less than SHORT seconds: then its ends count for too much.
LEAST_RATE = 200.0
SHORT = 30.0
#: Seconds until a request without a whole answer is an error, and between two writes.
TIMEOUT = 10.0
FLUSH = 0.1
MAX_SECONDS = 1200.0
#: Enough for every request to take the whole of its time: a load that holds back hides what clients would see.
IN_FLIGHT = int(2 * RATE * TIMEOUT)


class Traffic:
    """What the clients saw so far. Times are Unix seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: list[Record] = []
        self._read = 0

    def records(self, since: float = 0.0, until: float = float("inf")) -> list[Record]:
        """Requests that ended, in the order of their ends; those sent in [since, until)."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._records.append(Record(**json.loads(line)))
        return [record for record in self._records if since <= record.sent < until]

    def errors(self, since: float = 0.0, until: float = float("inf")) -> list[Record]:
        return [record for record in self.records(since, until) if record.error]

    def share(self, revision: str, since: float, until: float = float("inf")) -> float:
        """Percentage of the answers that came from `revision`."""
        records = self.records(since, until)
        return 100 * sum(record.revision == revision for record in records) / max(1, len(records))

    def last(self, revision: str) -> float:
        """When the last request was sent that `revision` answered; 0 without one."""
        return max((record.sent for record in self.records() if record.revision == revision), default=0.0)

    def rate(self) -> float:
        """Requests a second over the whole time."""
        return len(self.records()) / self.seconds()

    def seconds(self) -> float:
        """From the first request to the last answer."""
        records = self.records()
        return max(record.done for record in records) - min(record.sent for record in records)

    def summary(self) -> str:
        """For the message of a test that fails."""
        errors = Counter(f"{record.error} (from {record.version or '?'})" for record in self.errors())
        return f"{len(self.records())} requests, {errors.total()} errors: {errors.most_common(5)}"


@contextlib.contextmanager
def traffic(cluster: Cluster, url: str, folder: Path, model: str = "fraud") -> Iterator[Traffic]:
    """Clients that send to `url` (`http://NAME.NAMESPACE`) until the block is left, and then await their answers.

    Begins once a request was answered.
    """
    path = folder / f"traffic-{time.monotonic_ns()}.jsonl"
    path.touch()
    seen = Traffic(path)
    argv: list[str | Path] = [sys.executable, "-m", "tests.cluster.traffic", f"{url}/v2/models/{model}/infer", path]
    with cluster.process_in_net(argv) as process:
        cluster.wait(lambda: any(not record.error for record in seen.records()), "the first answer", 120)
        yield seen
        assert process.poll() is None, "the load ended by itself"
        process.terminate()
        assert process.wait(TIMEOUT + 10) == 0, "too much was in flight: requests were held back"
        assert seen.seconds() < SHORT or seen.rate() >= LEAST_RATE, "the clients did not get round to sending"


async def _main(url: str, path: Path) -> int:
    rows, labels = held_out()
    steady = Load(url, rows, labels, rate=RATE - FRESH_RATE, timeout=TIMEOUT, in_flight=IN_FLIGHT)
    fresh = Load(url, rows, labels, rate=FRESH_RATE, seed=1, timeout=TIMEOUT, in_flight=IN_FLIGHT, fresh=True)
    loop = asyncio.get_running_loop()
    for load in (steady, fresh):
        loop.call_later(MAX_SECONDS, load.stop)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with path.open("ab") as file:
        running = [asyncio.create_task(load.run()) for load in (steady, fresh)]
        while not stop.is_set() and not all(task.done() for task in running):
            _write(file, steady, fresh)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), FLUSH)
        for load in (steady, fresh):
            load.stop()
        await asyncio.gather(*running)
        _write(file, steady, fresh)
    return 1 if steady.held_back or fresh.held_back else 0


def _write(file: BinaryIO, *loads: Load) -> None:
    """Move what ended from the loads to the file."""
    for load in loads:
        ended = [record for record in load.records if record.done]
        load.records[:] = [record for record in load.records if not record.done]
        for record in sorted(ended, key=lambda record: record.done):
            file.write(json.dumps(asdict(record)).encode() + b"\n")
    file.flush()


if __name__ == "__main__":
    sys.exit(uvloop.run(_main(sys.argv[1], Path(sys.argv[2]))))
