"""A routing table as calls see it: the same revisions, counters and deck of cards, with channels for endpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from ..endpoints import Endpoint
from ..table import Table, Target
from .model import Channel


class View:
    """Made once for each table in force."""

    __slots__ = ("source", "table")

    def __init__(self, source: Table) -> None:
        self.source = source
        own = _seen(source.own)
        self.table = source.with_targets(
            own, {name: own if target is source.own else _seen(target) for name, target in source.targets.items()}
        )


class _Channels(Sequence[Endpoint]):
    """The channels of a list of endpoints that changes while its table stands."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints

    def __len__(self) -> int:
        return len(self._endpoints)

    def __iter__(self) -> Iterator[Endpoint]:
        return map(channel_of, self._endpoints)

    @overload
    def __getitem__(self, at: int) -> Endpoint: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Endpoint]: ...
    def __getitem__(self, at: int | slice) -> Endpoint | Sequence[Endpoint]:
        return [*self][at]


def channel_of(endpoint: Endpoint) -> Endpoint:
    """An endpoint's twin for gRPC, which lives as long as it does."""
    if endpoint.twin is None:
        endpoint.twin = Channel(endpoint.host, endpoint.port, endpoint.sweeper, endpoint.tls)
        endpoint.twin.retired = endpoint.retired
    return endpoint.twin


def _seen(target: Target) -> Target:
    model = None if target.model is None else channel_of(target.model)
    return Target(
        target.name,
        target.series,
        target.cell,
        model=model,
        endpoints=_Channels(target.endpoints),
        met=target.met,
        budget=target.budget,
        breaker=target.breaker,
        decisions=target.decisions,
    )
