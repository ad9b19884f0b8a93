"""What a budget for observation that is far too small does: to the relay's speed nothing, and the counters say so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .cases import Case
from .peers import COALMINE, Peer, lab
from .wrk import drive

#: Of the process's time; reading takes a quarter of it under a full load of small answers.
TINY = 0.001


@dataclass
class Observed:
    """`skipped`: share of the answers that were not read."""

    rps: float
    cpu_us: float
    skipped: float


def skipped(peer: Peer) -> float:
    """Answers that the sidecar did not read, since its start."""
    lines = re.findall(rb"^coalmine_observations_skipped_total\{.*\} (\S+)$", peer.get("/metrics"), re.MULTILINE)
    return sum(map(float, lines))


def answered(peer: Peer) -> int:
    """Requests since its start."""
    totals = peer.snapshot()["totals"].values()
    return sum(sum(revision.get("outcomes", {}).values()) for revision in totals)


def compare(case: Case, folder: Path, seconds: float, rounds: int) -> tuple[Observed, Observed]:
    """With the usual budget, and with a tiny one: two sidecars in turns."""
    usual, tiny = folder / "usual", folder / "tiny"
    usual.mkdir(parents=True)
    tiny.mkdir()
    with (
        lab(usual, [COALMINE], model=case.model) as one,
        lab(tiny, [COALMINE], model=case.model, sidecar_flags=[f"--observe-share={TINY}"]) as other,
    ):
        peers = [one.peer(COALMINE), other.peer(COALMINE)]
        seen = [[drive(peer, case.load, case.connections, seconds, folder) for peer in peers] for _ in range(rounds)]
        usual_one, tiny_one = (
            Observed(
                median(figures[at].rps for figures in seen),
                median(figures[at].cpu_us for figures in seen),
                skipped(peer) / answered(peer),
            )
            for at, peer in enumerate(peers)
        )
    return usual_one, tiny_one
