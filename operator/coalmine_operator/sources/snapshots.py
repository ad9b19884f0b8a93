"""Evidence from the sidecars: `GET /snapshot` on every admin port, kept and added up over pods."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import aiohttp
import msgspec
from msgspec import Struct

from coalmine_sidecar.contract import OUTCOMES, EpochCounts, Resources, Snapshot, decode_snapshot
from coalmine_sidecar.monitoring import Monitored

from ..analysis import merge
from .monitored import Past, total

logger = logging.getLogger("coalmine")

#: Seconds one sidecar may take to answer.
TIMEOUT: Final = 1.0
#: A sidecar silent for longer is out of sight: its weights no longer count.
SIGHT: Final = 2.0
#: The longest answer that is read, in bytes: eight outputs of a thousand values by sixteen revisions are a third of it.
MAX_BYTES: Final = 16 << 20
#: Last words kept of sidecars that are gone: their counts stay evidence.
KEPT: Final = 64
#: Seconds over which requests per second are taken.
RATE_WINDOW: Final = 2.0


class Traffic(Struct, frozen=True, kw_only=True):
    """What one revision answered to clients, over all sidecars known, gone ones included.

    `outcomes`: requests by outcome since the sidecars' start; `rps`: answers per second lately; `last_routed`: Unix
    seconds at which a request last went towards it.
    """

    outcomes: Mapping[str, int] = {}
    in_flight: int = 0
    rps: float = 0.0
    last_routed: float = 0.0

    @property
    def requests(self) -> int:
        return sum(self.outcomes.values())


class _Seen(Struct):
    """The newest snapshot of one life of a sidecar, and an older one to take rates from."""

    snapshot: Snapshot
    at: float
    base: Snapshot
    rates: dict[str, float] = {}
    raw: dict[str, dict[str, list[float]]] = {}  # outputs by revision, when they were last asked for


class Snapshots:
    """The sidecars of one model deployment. Bounded: one snapshot of each present one, KEPT of gone ones."""

    def __init__(self, session: aiohttp.ClientSession, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._clock = clock
        self._lives: dict[tuple[str, str], _Seen] = {}  # by pod and boot; the newest last
        self._past = Past()

    async def gather(self, admins: Mapping[str, str], *, values: bool = False) -> None:
        """Ask the sidecars of all pods (`admins`: pod -> `host:port`) at once; a silent one is left as it was."""
        await asyncio.gather(*(self._ask(pod, address, values) for pod, address in admins.items()))
        self._forget(admins)

    async def _ask(self, pod: str, address: str, values: bool) -> None:
        try:
            async with self._session.get(
                f"http://{address}/snapshot",
                params={"values": "1"} if values else {},
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            ) as answer:
                if answer.status != 200:
                    raise aiohttp.ClientPayloadError(f"status {answer.status}")
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise aiohttp.ClientPayloadError(f"more than {MAX_BYTES} bytes")
            self.take(pod, decode_snapshot(bytes(body)), values=values)
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
            logger.debug("%s: no snapshot: %s", pod, error or type(error).__name__)

    def take(self, pod: str, snapshot: Snapshot, *, values: bool = False) -> None:
        """Keep a snapshot as the newest of its sidecar's life; `values`: raw outputs were asked for."""
        life = (pod, snapshot.boot)
        before = self._lives.get(life)
        if before and before.snapshot.at > snapshot.at:
            return  # overtaken by a later question's answer
        if before:
            self._past.overtaken(before.snapshot, snapshot)
        self._lives.pop(life, None)
        base, rates = (before.base, before.rates) if before else (snapshot, {})
        raw = {name: totals.values for name, totals in snapshot.totals.items()} if values or not before else before.raw
        passed = snapshot.at - base.at
        if passed >= RATE_WINDOW:
            rates = {name: max(0, _answers(snapshot, name) - _answers(base, name)) / passed for name in snapshot.totals}
            base = snapshot
        self._lives[life] = _Seen(snapshot=snapshot, at=self._clock(), base=base, rates=rates, raw=raw)

    def _forget(self, present: Mapping[str, str]) -> None:
        """Lives that are over are out of sight; of their counts the newest KEPT stay."""
        newest = dict(self._lives.keys())
        over = [life for life in self._lives if life[0] not in present or newest[life[0]] != life[1]]
        for life in over:
            self._lives[life].at = -math.inf  # its weights are in force nowhere
        for life in over[: max(0, len(over) - KEPT)]:
            self._past.keep(self._lives.pop(life).snapshot)

    def in_sight(self) -> list[Snapshot]:
        """Of sidecars that answered within SIGHT."""
        return [seen.snapshot for seen in self._seen_lately()]

    def _seen_lately(self) -> list[_Seen]:
        now = self._clock()
        return [seen for seen in self._lives.values() if now - seen.at <= SIGHT]

    def weights(self) -> dict[str, int]:
        """The largest weight in force at any sidecar in sight, by revision."""
        return _largest(snapshot.weights for snapshot in self.in_sight())

    def mirrors(self) -> dict[str, int]:
        """The largest share of requests that any sidecar in sight copies, by the revision that gets the copies."""
        return _largest(snapshot.mirrors for snapshot in self.in_sight())

    def generation(self) -> int | None:
        """The oldest routing in force at any sidecar in sight; None where there is none."""
        return min((snapshot.generation for snapshot in self.in_sight()), default=None)

    def values(self, revision: str) -> dict[str, tuple[float, ...]]:
        """Raw outputs of a revision over the sidecars in sight, by output, as when they were last asked for."""
        found: dict[str, list[float]] = {}
        for seen in self._seen_lately():
            for output, values in seen.raw.get(revision, {}).items():
                found.setdefault(output, []).extend(values)
        return {output: tuple(values) for output, values in found.items()}

    def not_ready(self, pod: str) -> str:
        """What keeps a pod from being ready that only its sidecar knows, as it last said; mostly empty."""
        return next((seen.snapshot.not_ready for (name, _), seen in reversed(self._lives.items()) if name == pod), "")

    def epochs(self) -> dict[str, dict[str, EpochCounts]]:
        """Counts by epoch and revision over every life kept: a sidecar that is gone counted truly while it lived."""
        parts: dict[str, dict[str, list[EpochCounts]]] = {}
        for seen in self._lives.values():
            for epoch, counts in seen.snapshot.epochs.items():
                for revision, count in counts.items():
                    parts.setdefault(epoch, {}).setdefault(revision, []).append(count)
        return {epoch: {name: merge(many) for name, many in counts.items()} for epoch, counts in parts.items()}

    def monitored(self) -> dict[str, Monitored]:
        """Counts of predictions by revision over every life there was, in the bins of its newest baseline."""
        return self._past.add_to(total(seen.snapshot for seen in self._lives.values()))

    def traffic(self) -> dict[str, Traffic]:
        now = self._clock()
        found: dict[str, Traffic] = {}
        for seen in self._lives.values():
            fresh = now - seen.at <= SIGHT + RATE_WINDOW
            for name, totals in seen.snapshot.totals.items():
                so_far = found.get(name, Traffic())
                found[name] = Traffic(
                    outcomes={o: n for o in OUTCOMES if (n := so_far.outcomes.get(o, 0) + totals.outcomes.get(o, 0))},
                    in_flight=so_far.in_flight + (totals.in_flight if fresh else 0),
                    rps=so_far.rps + (seen.rates.get(name, 0.0) if fresh else 0.0),
                    last_routed=max(so_far.last_routed, totals.last_routed),
                )
        return found

    def resources(self) -> dict[str, Resources]:
        """Memory and CPU of the models in sight, by pod."""
        return {snapshot.pod: snapshot.model for snapshot in self.in_sight() if snapshot.model}


def _largest(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Of each name; names with nothing are left out."""
    largest: dict[str, int] = {}
    for part in parts:
        for name, value in part.items():
            if value:
                largest[name] = max(value, largest.get(name, 0))
    return largest


def _answers(snapshot: Snapshot, revision: str) -> int:
    totals = snapshot.totals.get(revision)
    return sum(totals.outcomes.values()) if totals else 0
