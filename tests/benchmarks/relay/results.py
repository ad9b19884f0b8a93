"""Figures of all cases, their ratios under the names of `BENCH_JSON`, and the goals."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from statistics import median
from typing import Any, TypeVar

from .budget import Observed
from .cases import HALF
from .machine import PYTHON, cores
from .memory import Soaked
from .monitored import Monitored
from .peers import COALMINE, DIRECT
from .streams import Streamed
from .wrk import Figures

#: A ratio that has to be this large at least, or this small at most.
AT_LEAST = {"rps_vs_nginx_c32": 0.6, "rps_vs_queue_proxy_c32": 3.0, "rps_tiny_budget_vs_usual_c32": 0.97,
            "rps_monitored_vs_not": 0.5}  # fmt: skip
AT_MOST = {
    "added_p50_vs_nginx_c1": 1.3,
    "p999_vs_nginx_half_load": 2.0,
    "rss_idle_mb": 45.0,
    "rss_c256_mb": 80.0,
    "idle_connection_kb": 20.0,
    "soak_growth_mb": 0.5,
    "stream_delay_p50_us": 1000.0,
    "tokens_coalesced": 0.0,
    "unread_share_c32": 0.0,
    "metrics_500_series_ms": 5.0,
}

_Measured = TypeVar("_Measured", Figures, Streamed)


def median_of(rounds: Sequence[_Measured]) -> _Measured:
    """Field by field."""
    one = rounds[0]
    return type(one)(**{f.name: median(getattr(seen, f.name) for seen in rounds) for f in fields(one)})


@dataclass
class Memory:
    idle_mb: float
    idle_connection_kb: float


@dataclass
class Results:
    """By case and peer, every round. `unread`: share of the answers that the sidecar did not read, by case."""

    loads: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    streams: dict[str, list[Streamed]] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    budget: dict[str, tuple[Observed, Observed]] = field(default_factory=dict)
    unread: dict[str, float] = field(default_factory=dict)
    monitored: Monitored | None = None
    soaked: Soaked | None = None

    def add(self, case: str, peer: str, figures: Figures) -> None:
        self.loads.setdefault(case, {}).setdefault(peer, []).append(figures)

    def load(self, case: str) -> dict[str, Figures]:
        return {peer: median_of(rounds) for peer, rounds in self.loads.get(case, {}).items()}

    def streamed(self) -> dict[str, Streamed]:
        return {peer: median_of(rounds) for peer, rounds in self.streams.items()}

    def ratios(self) -> dict[str, float]:
        """Of the sidecar to each other peer, and its own figures that have a goal; of what was measured."""
        ratios: dict[str, float] = {}
        for case in self.loads:
            ratios |= _ratios_of(case, self.load(case))
        streamed = self.streamed()
        if ours := streamed.get(COALMINE):
            ratios["stream_delay_p50_us"] = ours.delay_p50_us
            ratios["tokens_coalesced"] = ours.coalesced
            for other, theirs in streamed.items():
                if other not in (COALMINE, DIRECT):
                    ratios[f"token_cpu_vs_{_key(other)}"] = ours.cpu_us / theirs.cpu_us
            if direct := streamed.get(DIRECT):
                ratios["stream_added_p50_us"] = ours.delay_p50_us - direct.delay_p50_us
        if held := self.memory.get(COALMINE):
            ratios["rss_idle_mb"] = held.idle_mb
            ratios["idle_connection_kb"] = held.idle_connection_kb
        for case, (usual, tiny) in self.budget.items():
            ratios[f"rps_tiny_budget_vs_usual_{case}"] = tiny.rps / usual.rps
            ratios[f"cpu_tiny_budget_vs_usual_{case}"] = tiny.cpu_us / usual.cpu_us
            ratios[f"tiny_budget_unread_share_{case}"] = tiny.skipped
        ratios |= {f"unread_share_{case}": share for case, share in self.unread.items()}
        if seen := self.monitored:
            ratios["rps_monitored_vs_not"] = seen.monitored.rps / seen.plain.rps
            ratios["monitored_unread_share"] = seen.monitored.skipped
            ratios["metrics_500_series_ms"] = seen.scrape_ms / seen.series * 500
        if self.soaked:
            ratios["soak_growth_mb"] = self.soaked.growth_mb
        return {name: round(value, 4) for name, value in ratios.items()}

    def document(self) -> dict[str, Any]:
        """For BENCH_JSON."""
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"kernel": platform.release(), "sidecar's python": PYTHON, "cores": len(cores())},
            "ratios": self.ratios(),
            "missed": missed(self.ratios()),
            "cases": {
                case: {peer: asdict(figures) for peer, figures in self.load(case).items()} for case in self.loads
            },
            "streams": {peer: asdict(streamed) for peer, streamed in self.streamed().items()},
            "memory": {peer: asdict(held) for peer, held in self.memory.items()},
            "budget": {case: [asdict(observed) for observed in pair] for case, pair in self.budget.items()},
            "monitored": asdict(self.monitored) if self.monitored else None,
            "soak": asdict(self.soaked) if self.soaked else None,
        }


def _ratios_of(case: str, by_peer: dict[str, Figures]) -> dict[str, float]:
    ours = by_peer.get(COALMINE)
    if ours is None:
        return {}
    ratios: dict[str, float] = {}
    direct = by_peer.get(DIRECT)
    for other, theirs in by_peer.items():
        if other in (COALMINE, DIRECT):
            continue
        name = f"{_key(other)}_{case}"
        if case == HALF:
            ratios |= {f"p999_vs_{name}": ours.p999_us / theirs.p999_us, f"p50_vs_{name}": ours.p50_us / theirs.p50_us}
            continue
        ratios |= {f"rps_vs_{name}": ours.rps / theirs.rps, f"cpu_vs_{name}": ours.cpu_us / theirs.cpu_us}
        if direct is not None and case == "c1":
            ratios[f"added_p50_vs_{name}"] = (ours.p50_us - direct.p50_us) / max(theirs.p50_us - direct.p50_us, 1.0)
    if case == "c256":
        ratios["rss_c256_mb"] = ours.rss_mb
    return ratios


def missed(ratios: dict[str, float]) -> list[str]:
    """The goals that were not reached, of those measured."""
    low = [(name, "at least", goal) for name, goal in AT_LEAST.items() if ratios.get(name, goal) < goal]
    high = [(name, "at most", goal) for name, goal in AT_MOST.items() if ratios.get(name, goal) > goal]
    return [f"{name} {ratios[name]:.3g}, wanted {bound} {goal:g}" for name, bound, goal in low + high]


def _key(peer: str) -> str:
    return peer.replace("-", "_")
