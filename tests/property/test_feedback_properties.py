"""Whatever is posted as feedback: nothing raises, nothing grows, and each label counts exactly once."""

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coalmine_sidecar.feedback.counts import OUTCOMES, FeedbackCounts
from coalmine_sidecar.feedback.joiner import Joiner
from coalmine_sidecar.feedback.memory import MemoryStore
from coalmine_sidecar.feedback.predicted import Predicted
from coalmine_sidecar.monitoring import Feedback, Monitoring, ScoreBins, Slice, Task
from coalmine_sidecar.telemetry.performance import PerformanceCounters
from coalmine_sidecar.telemetry.performancemetrics import performance_metrics
from coalmine_sidecar.telemetry.slices import slice_metrics

MAX_PENDING = 12
TTL = 60.0
TASKS: st.SearchStrategy[Task] = st.sampled_from(["binary", "multiclass", "regression", "ranking", "text"])

ids = st.sampled_from([f"id{i}" for i in range(9)])
labels = st.sampled_from([0, 1, "1", 2.0, "0"])
scores = st.none() | st.floats()
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = (
    "predictionId",
    "label",
    "labels",
    "outcome",
    "value",
    "timestamp",
    "feedback",
    "response",
    "truth",
    "reward",
    "ask",
)
entries_of_junk = st.dictionaries(st.sampled_from(KEYS), junk | ids | labels, max_size=6)


def monitoring(task: Task) -> Monitoring:
    return Monitoring(task=task, feedback=Feedback(), slices=(Slice(attribute="s", header="x-s"),))


class Feedbacks(RuleBasedStateMachine):
    """Predictions and feedback in any order, while time goes by and places are few."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.counts = FeedbackCounts()
        self.performance = PerformanceCounters(monitoring("binary"), ScoreBins(), 0.0)
        self.store = MemoryStore(self.counts, max_pending=MAX_PENDING, ttl=TTL)
        self.joiner = Joiner(
            self.store,
            lambda revision: self.performance if revision == "a" else None,
            task="binary",
            counts=self.counts,
            clock=lambda: self.now,
            share=1.0,
        )
        self.runner = asyncio.Runner()
        self.given = 0
        self.predicted = 0

    def teardown(self) -> None:
        # The last labels that wait are told as well.
        for _ in range(3):
            self.now += 20
            self.runner.run(self.joiner.tick())
        assert self.joiner.held == 0
        assert sum(self.counts.outcomes.values()) == self.given
        self.runner.close()

    def post(self, document: Any) -> int:
        """How many labels the answer speaks of."""
        result = self.runner.run(self.joiner.feedback(json.dumps(document).encode()))
        assert set(result.outcomes) <= {*OUTCOMES, "held"}
        told = json.loads(result.body())
        assert told["accepted"] == result.accepted
        return sum(result.outcomes.values())

    @rule(
        name=ids,
        other=ids | st.just(""),
        rows=st.lists(scores, max_size=5) | st.just([0.5] * (MAX_PENDING + 1)),
        revision=st.sampled_from("ab"),
        group=st.text(max_size=3),
    )
    def predict(self, name: str, other: str, rows: list[float | None], revision: str, group: str) -> None:
        self.predicted += len(rows)
        predicted = Predicted(name, revision, self.now, rows, [None] * len(rows), [[group]])
        self.joiner.remember(predicted, other)

    @rule(batch=st.lists(st.tuples(ids, st.lists(st.none() | labels, max_size=4)), max_size=6))
    def label(self, batch: list[tuple[str, list[Any]]]) -> None:
        told = self.post([{"predictionId": name, "labels": column} for name, column in batch])
        # An entry without a label in it counts as one that is none, and so does a post without entries.
        given = max(1, sum(max(1, sum(label is not None for label in column)) for _, column in batch))
        assert told == given
        self.given += given

    @rule(name=ids, outcome=st.sampled_from("xy"), value=st.integers(0, 2))
    def outcome(self, name: str, outcome: str, value: int) -> None:
        assert self.post({"predictionId": name, "outcome": outcome, "value": value}) == 1
        self.given += 1

    @rule(document=junk | entries_of_junk | st.lists(entries_of_junk, max_size=3))
    def post_junk(self, document: Any) -> None:
        self.given += self.post(document)

    @rule(seconds=st.floats(0, TTL))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.runner.run(self.joiner.tick())

    @invariant()
    def each_label_counts_exactly_once(self) -> None:
        assert sum(self.counts.outcomes.values()) + self.joiner.held == self.given

    @invariant()
    def what_joined_was_judged(self) -> None:
        outcomes = sum(outcome.count for outcome in self.performance.outcomes.values())
        assert self.counts.outcomes["joined"] == self.performance.labels + outcomes

    @invariant()
    def places_are_bounded(self) -> None:
        assert 0 <= self.store.pending <= MAX_PENDING
        lost = sum(self.counts.lost.values())
        judged = self.counts.outcomes["joined"] + self.counts.outcomes["retired"]
        assert self.store.pending + lost <= self.predicted <= self.store.pending + lost + judged


TestFeedbacks = Feedbacks.TestCase
TestFeedbacks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | junk.map(lambda it: json.dumps(it).encode()),
    TASKS,
)
def test_no_body_raises_and_each_is_answered(body: bytes, task: Task) -> None:
    counts = FeedbackCounts()
    store = MemoryStore(counts, max_pending=10, ttl=10)
    joiner = Joiner(store, lambda _: None, task=task, counts=counts, clock=lambda: 0.0)
    for hop in (False, True):
        result = asyncio.run(joiner.feedback(body, hop=hop))
        assert result.status in (200, 202, 400)
        answer = result.body()
        assert isinstance(json.loads(answer), dict)
        assert b"\n" not in answer
        assert sum(result.outcomes.values()) >= (0 if hop else 1)


rows_of_one = st.tuples(
    scores, st.none() | st.text(max_size=5), st.none() | st.sampled_from(["1", "0", "2.5", "-3", "1e200"])
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(rows_of_one, max_size=5), max_size=6), TASKS, st.floats(-5, 1e12))
def test_counters_add_up_over_pods(
    batches: list[list[tuple[float | None, str | None, str | None]]], task: Task, delay: float
) -> None:
    """What two pods count is what one would have counted of all."""
    bins = ScoreBins((-1.0, 0.5, 3.0), (0.1, 0.2, 0.6, 1.0))
    pods = [PerformanceCounters(monitoring(task), bins, 1.5) for _ in range(3)]
    for at, batch in enumerate(batches):
        part = Predicted("p", "a", 0.0, [row[0] for row in batch], [row[1] for row in batch], [["g"]])
        for pod in (pods[0], pods[1 + at % 2]):
            pod.predicted(part)
            pod.labelled(part, [row[2] for row in batch], delay)
    whole, *halves = (samples(pod) for pod in pods)
    both = {key: halves[0].get(key, 0.0) + halves[1].get(key, 0.0) for key in {*halves[0], *halves[1]}}
    assert set(whole) == {key for key in both if key in whole}
    for key, value in both.items():
        assert abs(value - whole.get(key, 0.0)) <= 1e-9 * max(1.0, abs(value)), key
    assert all(value >= 0 for value in both.values()), "counters never fall"


def samples(pod: PerformanceCounters) -> dict[tuple[Any, ...], float]:
    families = [*performance_metrics(("v",), [(("1",), pod)]), *slice_metrics(("v",), [(("1",), pod.slices)])]
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}
