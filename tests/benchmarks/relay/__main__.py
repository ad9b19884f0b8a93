"""The relay beside other proxies, in turns, in one run on one machine: `python -m tests.benchmarks.relay`.

One core for the proxy under test, the other one for its model and the load. The proxies take turns in short rounds, in
another order each round; each figure is the median of its rounds. What a noisy machine does to the figures it does to
all: ratios count, and the CPU time of a request counts most.

`BENCH_JSON=FILE` writes all figures and ratios to a file. `BENCH_PYTHON=PROGRAM` runs the sidecar with another build of
this Python. `BENCH_INTERPRETED=1` runs it as on a laptop; without, it is compiled, as in its image.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from . import budget, memory, monitored, queue_proxy, streams
from .cases import CASES, HALF, Case, half_of
from .machine import BenchError, awake, missing
from .peers import COALMINE, DIRECT, PEERS, QUEUE_PROXY, Peer, lab, sidecar
from .results import Memory, Results, median_of
from .show import Show
from .wrk import drive

STREAMS, MEMORY, BUDGET, MONITORED, SOAK = OTHERS = ("streams", "memory", "budget", "monitored", "soak")
NAMES = (*(case.name for case in CASES), HALF, *OTHERS)
#: The cases that show what little and what much reading costs.
BUDGET_CASES = ("c32", "tensor")


class Bench:
    def __init__(self, wanted: argparse.Namespace, folder: Path, show: Show) -> None:
        self.wanted = wanted
        self.folder = folder
        self.show = show
        self.results = Results()

    def run(self) -> None:
        wanted: Sequence[str] = self.wanted.case
        for model in ("nginx", "python"):
            cases = [case for case in CASES if case.model == model and case.name in wanted]
            if model == "nginx" and HALF in wanted and not any(case.name == "c32" for case in cases):
                cases += [case for case in CASES if case.name == "c32"]
            if cases:
                self._loads(model, cases)
        parts: dict[str, Callable[[], None]] = {
            STREAMS: self._streams, MEMORY: self._memory, BUDGET: self._budget, MONITORED: self._monitored,
            SOAK: self._soak,
        }  # fmt: skip
        for name, measure in parts.items():
            if name in wanted:
                measure()

    def _loads(self, model: str, cases: Sequence[Case]) -> None:
        with lab(self._new_folder(model), self.wanted.peer, model=model) as ours:
            read = {case.name: (0.0, 0) for case in cases}
            for number in range(self.wanted.rounds):
                half = model == "nginx" and HALF in self.wanted.case
                for case in [*cases, None] if half else cases:
                    for peer in _turned(ours.peers, number):
                        now = case or half_of(median_of(self.results.loads["c32"][peer.name]))
                        self.show.tell(f"round {number + 1} of {self.wanted.rounds}: {now.name}, {peer.name}")
                        before = _counts(peer)
                        figures = drive(peer, now.load, now.connections, self.wanted.seconds, ours.folder)
                        self.results.add(now.name, peer.name, figures)
                        if peer.name == COALMINE and case is not None:
                            skipped, answered = (b - a for a, b in zip(before, _counts(peer), strict=True))
                            sums = read[case.name]
                            read[case.name] = (sums[0] + skipped, sums[1] + int(answered))
            if any(peer.name == COALMINE for peer in ours.peers):
                self.results.unread |= {name: skipped / max(1, count) for name, (skipped, count) in read.items()}

    def _streams(self) -> None:
        with lab(self._new_folder(STREAMS), self.wanted.peer, model="python") as ours:
            for number in range(min(2, self.wanted.rounds)):
                for peer in _turned(ours.peers, number):
                    self.show.tell(f"streams, round {number + 1}: {peer.name}")
                    self.results.streams.setdefault(peer.name, []).append(streams.drive(peer))

    def _memory(self) -> None:
        with lab(self._new_folder(MEMORY), self.wanted.peer, model="nginx") as ours:
            for peer in ours.peers:
                if peer.name != DIRECT:
                    self.show.tell(f"memory: {peer.name}")
                    self.results.memory[peer.name] = Memory(peer.rss_idle_mb, memory.idle_connection_kb(peer))

    def _budget(self) -> None:
        for case in CASES:
            if case.name in BUDGET_CASES:
                self.show.tell(f"budget for observation: {case.name}")
                folder = self._new_folder(f"{BUDGET}-{case.name}")
                self.results.budget[case.name] = budget.compare(case, folder, self.wanted.seconds, self.wanted.rounds)

    def _monitored(self) -> None:
        self.show.tell("monitoring of 20 features and 2 outputs")
        folder = self._new_folder(MONITORED)
        self.results.monitored = monitored.compare(folder, self.wanted.seconds, self.wanted.rounds)

    def _soak(self) -> None:
        self.results.soaked = memory.soak(self.wanted.soak, self._new_folder(SOAK), self.show.tell)

    def _new_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder


def _counts(peer: Peer) -> tuple[float, int]:
    """Answers not read, and requests, since the sidecar's start."""
    return (budget.skipped(peer), budget.answered(peer)) if peer.name == COALMINE else (0.0, 0)


def _turned(peers: list[Peer], by: int) -> list[Peer]:
    """Another order each round: who comes after whom must not matter."""
    at = by % len(peers)
    return peers[at:] + peers[:at]


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.relay", description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=NAMES, help="only this one; may stand more than once")
    parser.add_argument("--peer", action="append", choices=PEERS, help="only this one beside coalmine and direct")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case (%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of load in a round (%(default)s)")
    parser.add_argument("--soak", type=int, default=20, metavar="SECONDS", help="how long to soak (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of a second: to see whether it works")
    wanted = parser.parse_args(arguments)
    if wanted.quick:
        wanted.rounds = wanted.seconds = 1
        wanted.soak = min(wanted.soak, 5)
    wanted.case = wanted.case or list(NAMES)
    wanted.peer = list(dict.fromkeys([DIRECT, *(wanted.peer or PEERS), COALMINE]))
    return wanted


def main(arguments: Sequence[str]) -> int:
    wanted = read_arguments(arguments)
    if reason := missing():
        print(f"benchmark skipped: {reason}")
        return 0
    show = Show()
    try:
        if QUEUE_PROXY in wanted.peer:
            queue_proxy.build()
        if COALMINE in wanted.peer:
            sidecar()
        with tempfile.TemporaryDirectory(prefix="coalmine-bench-") as folder, awake(), show.progress():
            bench = Bench(wanted, Path(folder), show)
            bench.run()
    except BenchError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    show.results(bench.results)
    if target := os.environ.get("BENCH_JSON"):
        Path(target).write_text(json.dumps(bench.results.document(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
