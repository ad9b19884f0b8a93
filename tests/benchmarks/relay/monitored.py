"""What monitoring costs: two sidecars in turns, one of which monitors 20 features and 2 outputs of every request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .budget import Observed, answered, skipped
from .messages import FEATURES, MONITORED_PATH, monitored_request
from .peers import COALMINE, Peer, lab
from .wrk import Load, drive

CONNECTIONS = 32
#: Times that /metrics is asked for.
SCRAPES = 30


@dataclass
class Monitored:
    """`plain`, `monitored`: of the same requests. Of `/metrics`: milliseconds, series, kilobytes."""

    plain: Observed
    monitored: Observed
    scrape_ms: float
    series: int
    scrape_kb: float


def compare(folder: Path, seconds: float, rounds: int) -> Monitored:
    load = Load(MONITORED_PATH, monitored_request())
    with _both(folder) as peers:
        seen = [[drive(peer, load, CONNECTIONS, seconds, folder) for peer in peers] for _ in range(rounds)]
        plain, monitored = (
            Observed(
                median(figures[at].rps for figures in seen),
                median(figures[at].cpu_us for figures in seen),
                skipped(peer) / answered(peer),
            )
            for at, peer in enumerate(peers)
        )
        took, text = _scraped(peers[1])
    series = sum(1 for line in text.splitlines() if not line.startswith(b"#"))
    return Monitored(plain, monitored, took * 1e3, series, len(text) / 1024)


@contextmanager
def _both(folder: Path) -> Iterator[list[Peer]]:
    folders = [folder / name for name in ("plain", "monitored")]
    for one in folders:
        one.mkdir(parents=True)
    with (
        lab(folders[0], [COALMINE], model="nginx") as plain,
        lab(folders[1], [COALMINE], model="nginx", monitoring=_monitoring()) as monitored,
    ):
        yield [plain.peer(COALMINE), monitored.peer(COALMINE)]


def _monitoring() -> dict[str, object]:
    edges = [i / 10 for i in range(1, 10)]
    baseline = {
        "digest": "sha256:benchmark",
        "features": {name: {"edges": edges, "center": 0.5} for name in FEATURES},
        "outputs": {name: {"edges": edges, "center": 0.5} for name in ("p", "q")},
        "score": {"calibration": [i / 99 for i in range(100)]},
    }
    return {
        "prediction": {"score": "p"},
        "features": [{"name": name} for name in FEATURES],
        "baselines": dict.fromkeys("abc", baseline),
    }


def _scraped(peer: Peer) -> tuple[float, bytes]:
    """Median of the seconds that /metrics takes of the sidecar's CPU, and what it says."""
    took = []
    for _ in range(SCRAPES):
        before = peer.cpu_seconds()
        text = peer.get("/metrics")
        took.append(peer.cpu_seconds() - before)
        time.sleep(0.01)
    # The kernel counts CPU time in hundredths of a second: no single scrape says anything.
    return sum(took) / len(took), text
