"""Counters: bounded and consistent whatever models answer and however the routing file changes."""

import math
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import json
from prometheus_client.parser import text_string_to_metric_families

from coalmine_sidecar.contract import (
    DEFAULT_EDGES,
    KEPT_EPOCHS,
    MAX_CLASSES,
    MAX_OUTPUTS,
    Observe,
    RevisionRoute,
    Routing,
    decode_snapshot,
)
from coalmine_sidecar.observe.record import record
from coalmine_sidecar.protocols import Answer, Value
from coalmine_sidecar.telemetry import EpochCell, Series, Telemetry
from coalmine_sidecar.telemetry.exposition import expose
from coalmine_sidecar.telemetry.outputs import OutputCounter
from coalmine_sidecar.telemetry.snapshot import take_snapshot
from coalmine_sidecar.telemetry.store import MAX_REVISIONS

values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70)
edges = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6, unique=True).map(
    lambda cuts: tuple(sorted(cuts))
)
names = st.sampled_from(["score", "label", *(f"output {i}" for i in range(12))]) | st.text(max_size=10)
revisions = st.sampled_from([f"rev-{i}" for i in range(30)])


@settings(max_examples=100, deadline=None)
@given(edges, st.lists(values, max_size=40))
def test_every_value_counts_once_where_it_belongs(cuts: tuple[float, ...], given_values: list[Value]) -> None:
    counter = OutputCounter("score", cuts)
    for value in given_values:
        counter.add(value)
    numbers = [v for v in given_values if isinstance(v, int | float) and not isinstance(v, bool)]
    finite = [v for v in numbers if isinstance(v, int) or math.isfinite(v)]
    labelled = [v for v in given_values if isinstance(v, bool | int | str)]
    assert sum(counter.bins) == len(finite)
    assert sum(counter.classes.values()) == len(labelled)
    assert counter.missing == len(given_values) - len(finite) - sum(isinstance(v, bool | str) for v in given_values)
    assert len(counter.classes) <= MAX_CLASSES + 1
    bounds = (-math.inf, *cuts, math.inf)
    for i, count in enumerate(counter.bins):
        assert count == sum(bounds[i] <= v < bounds[i + 1] for v in finite)


class Sidecar(RuleBasedStateMachine):
    """Reloads, requests that outlive them, answers of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.telemetry = Telemetry(pod="pod", revision="rev-0")
        self.generation = 0
        self.held: list[tuple[Series, EpochCell]] = []

    @rule(
        present=st.lists(revisions, min_size=1, max_size=16, unique=True),
        version=st.sampled_from(["v1", "v2", "", "rev-3", 'v"\n']),
        same_version=st.booleans(),
        epoch=st.integers(0, 8),
        outputs=st.dictionaries(names, edges, max_size=10),
        thresholds=st.lists(st.floats(0.001, 10), max_size=3),
    )
    def reload(
        self,
        present: list[str],
        version: str,
        same_version: bool,
        epoch: int,
        outputs: dict[str, tuple[float, ...]],
        thresholds: list[float],
    ) -> None:
        self.generation += 1
        self.telemetry.configure(
            Routing(
                deployment="d",
                model="m",
                generation=self.generation,
                epoch=str(epoch),
                revisions=tuple(
                    RevisionRoute(
                        name=name,
                        version=version if same_version else f"{version}{i}",
                        track="canary" if i else "stable",
                        weight=0 if i else 100,
                    )
                    for i, name in enumerate(present)
                ),
                observe=Observe(outputs=outputs, thresholds=tuple(thresholds)),
            )
        )
        self.telemetry.series(present[0], "ingress")

    @rule(revision=revisions)
    def route(self, revision: str) -> None:
        self.telemetry.decisions(revision)[0] += 1
        self.held.append((self.telemetry.series(revision, "ingress"), self.telemetry.epoch(revision)))

    @rule(
        columns=st.lists(st.tuples(names, st.lists(values, min_size=1, max_size=4)), max_size=10),
        draw=st.floats(0, 1, exclude_max=True),
        code=st.integers(0, 700),
    )
    def answer(self, columns: list[tuple[str, list[Value]]], draw: float, code: int) -> None:
        if self.held:
            series, cell = self.held.pop(0)
            series.done(0, code, 0.1, 0.05, 1, 1)
            cell.answered(code, 0.1)
            record(series, cell, Answer(1, list(columns), []), draw)

    @rule(chosen=revisions, answered=revisions, reason=st.sampled_from(["reset", "status", "whatever"]))
    def fall_back(self, chosen: str, answered: str, reason: str) -> None:
        self.telemetry.fallback(chosen, answered, reason)

    @invariant()
    def bounded(self) -> None:
        assert len(self.telemetry.revisions) <= MAX_REVISIONS + 1
        assert len(self.telemetry.epochs) <= KEPT_EPOCHS
        for outputs in self._outputs():
            assert len(outputs) <= MAX_OUTPUTS

    @invariant()
    def nothing_is_lost(self) -> None:
        """What is configured has a place, what is kept of an epoch belongs to a revision that is kept."""
        for cells in self.telemetry.epochs.values():
            assert cells.keys() <= self.telemetry.revisions.keys()
        if self.telemetry.routing:
            assert {r.name for r in self.telemetry.routing.revisions} <= self.telemetry.revisions.keys()

    def teardown(self) -> None:
        decode_snapshot(json.encode(take_snapshot(self.telemetry, at=0.0, values=True)))
        _, pieces = expose(self.telemetry, "")
        families = text_string_to_metric_families(b"".join(pieces).decode())
        keys = [(s.name, *sorted(s.labels.items())) for family in families for s in family.samples]
        assert len(set(keys)) == len(keys)

    def _outputs(self) -> Iterator[dict[str, OutputCounter]]:
        for counters in self.telemetry.revisions.values():
            for series in counters.series.values():
                yield series.outputs.by_name
                assert series.values.keys() <= series.outputs.by_name.keys()
        for cells in self.telemetry.epochs.values():
            for cell in cells.values():
                yield cell.outputs.by_name


TestSidecar = Sidecar.TestCase
TestSidecar.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


@given(
    st.lists(st.one_of(st.floats(), st.none(), st.integers(), st.sampled_from(DEFAULT_EDGES)), max_size=40),
    st.booleans(),
)
def test_many_values_count_as_each_of_them_would(values: list[float | None], finite: bool) -> None:
    """`finite`: of those alone, which are counted together."""
    if finite:
        values = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    one, all_at_once = OutputCounter("p", DEFAULT_EDGES), OutputCounter("p", DEFAULT_EDGES)
    for value in values:
        one.add(value)
    all_at_once.add_all(values)
    assert all_at_once.counts() == one.counts()
