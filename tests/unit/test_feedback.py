"""Labels and outcomes join their predictions; whatever else comes is counted, and told in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_sidecar.feedback.counts import FeedbackCounts, feedback_metrics
from coalmine_sidecar.feedback.joiner import HOLD, MAX_HELD, Joiner
from coalmine_sidecar.feedback.labels import class_text, plain_class
from coalmine_sidecar.feedback.memory import MAX_OUTCOMES, MemoryStore
from coalmine_sidecar.feedback.predicted import Predicted
from coalmine_sidecar.feedback.reading import MAX_BODY, MAX_LABELS
from coalmine_sidecar.feedback.result import Result
from coalmine_sidecar.monitoring import Feedback, Monitoring, Prediction, ScoreBins, Task, category
from coalmine_sidecar.telemetry.performance import PerformanceCounters


class World:
    """A joiner whose clock is turned by hand; revision `a` is counted."""

    def __init__(
        self, *, task: Task = "binary", positive: str = "1", max_pending: int = 1000, ttl: float = 3600.0
    ) -> None:
        self.now = 1000.0
        self.counts = FeedbackCounts()
        monitoring = Monitoring(task=task, feedback=Feedback(), prediction=Prediction(positive=positive))
        self.performance = PerformanceCounters(monitoring, ScoreBins(), 0.0)
        self.store = MemoryStore(self.counts, max_pending=max_pending, ttl=ttl)
        self.joiner = Joiner(
            self.store,
            lambda revision: self.performance if revision == "a" else None,
            task=task,
            positive=positive,
            counts=self.counts,
            clock=lambda: self.now,
            share=1.0,
        )

    def predict(self, name: str, *scores: float, other: str = "", revision: str = "a") -> None:
        columns: list[float | None] = list(scores) or [0.9]
        self.joiner.remember(Predicted(name, revision, self.now, columns, [None] * len(columns)), other)

    async def post(self, document: Any) -> Result:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return await self.joiner.feedback(body)

    async def label(self, name: str, *labels: Any) -> dict[str, int]:
        return (await self.post({"predictionId": name, "labels": labels})).outcomes

    @property
    def outcomes(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.counts.outcomes.items() if count}

    @property
    def lost(self) -> dict[str, int]:
        return {reason: count for reason, count in self.counts.lost.items() if count}


@pytest.fixture
def world() -> World:
    return World()


async def test_a_label_joins_its_prediction_once(world: World) -> None:
    world.predict("one", 0.9)
    world.now += 60
    first = await world.post({"predictionId": "one", "label": 1})
    assert (first.status, json.loads(first.body())) == (202, {"accepted": 1, "joined": 1})
    assert world.performance.confusion["1", "1"] == 1
    assert world.performance.delay.total == 60
    assert await world.label("one", "1") == {"duplicate": 1}
    assert await world.label("one", True) == {"duplicate": 1}, "true and 1 are one class of two"
    assert await world.label("one", 0) == {"contradictory": 1}
    assert world.performance.labels == 1
    assert world.store.pending == 0


@pytest.mark.parametrize(
    "wrap", [lambda entries: entries, lambda entries: {"feedback": entries}], ids=["list", "feedback"]
)
async def test_batches(world: World, wrap: Any) -> None:
    world.predict("one", 0.9, 0.1)
    world.predict("two", 0.3)
    result = await world.post(
        wrap(
            [
                {"predictionId": "one", "labels": [1, 0]},
                {"predictionId": "two", "label": 1, "outcome": "sale", "value": 3},
                {"predictionId": "none", "label": 1},
                {"predictionId": "two"},
            ]
        )
    )
    assert (result.status, result.outcomes) == (202, {"malformed": 1, "joined": 4, "held": 1})
    assert result.accepted == 5
    assert len(result.reasons) == 1
    assert world.performance.outcomes["sale"].gained == 3


async def test_labels_of_some_rows_now_and_of_others_later(world: World) -> None:
    world.predict("one", 0.9, 0.1, 0.8)
    assert await world.label("one", None, 0, None) == {"joined": 1}
    assert world.store.pending == 3
    assert await world.label("one", 1, 0, None) == {"joined": 1, "duplicate": 1}
    assert await world.label("one", 0, None, 1) == {"contradictory": 1, "joined": 1}
    assert world.performance.labels == 3
    assert world.store.pending == 0


async def test_other_labels_than_rows_are_no_labels_of_it(world: World) -> None:
    world.predict("one", 0.9, 0.1)
    assert await world.label("one", 1) == {"mismatch": 1}
    assert await world.label("one", 1, 1, 1) == {"mismatch": 3}
    assert await world.label("one", 1, 0) == {"joined": 2}


async def test_labels_after_the_time_is_up_are_late(world: World) -> None:
    world.predict("swept", 0.9)
    world.predict("labelled", 0.9)
    await world.label("labelled", 1)
    world.now += 3600
    world.predict("new", 0.9)
    assert await world.label("swept", 1) == {"late": 1}
    await world.joiner.tick()
    assert world.lost == {"expired": 1}
    assert await world.label("swept", 1) == {"late": 1}
    assert await world.label("labelled", 1) == {"late": 1}
    assert await world.label("new", 1) == {"joined": 1}


async def test_the_oldest_give_way(world: World) -> None:
    small = World(max_pending=4)
    for name in "abc":
        small.predict(name, 0.1, 0.2)
    assert (small.lost, small.store.pending) == ({"evicted": 2}, 4)
    assert await small.label("a", 1, 1) == {"held": 2}
    assert await small.label("b", 1, 1) == {"joined": 2}
    small.predict("wide", *[0.5] * 5)
    assert small.lost == {"evicted": 7}
    assert await small.label("c", 1, 1) == {"joined": 2}


async def test_the_newest_stays_however_long_it_is() -> None:
    world = World(max_pending=600)
    for i in range(100):
        world.predict(f"p{i}", *[0.5] * 6)
    world.predict("wide", *[0.5] * 600)
    assert (world.store.pending, world.lost) == (600, {"evicted": 600})


async def test_other_limits_lose_no_more_than_they_must(world: World) -> None:
    for i in range(20):
        world.predict(f"p{i}", 0.9)
    for i in range(10):
        await world.label(f"p{i}", 1)
    world.store.limit(max_pending=5, ttl=100.0)
    assert (world.store.pending, world.lost) == (5, {"evicted": 5})
    assert await world.label("p19", 1) == {"joined": 1}
    assert await world.label("p9", 1) == {"duplicate": 1}
    assert await world.label("p0", 1) == {"held": 1}
    world.now += 100
    assert await world.label("p18", 1) == {"late": 1}


async def test_what_tells_duplicates_is_bounded(world: World) -> None:
    small = World(max_pending=4)
    for i in range(50):
        small.predict(f"p{i}")
        assert await small.label(f"p{i}", 1) == {"joined": 1}
    assert await small.label("p49", 1) == {"duplicate": 1}
    assert await small.label("p0", 1) == {"held": 1}


async def test_an_early_label_waits_for_its_prediction(world: World) -> None:
    assert await world.label("one", 1) == {"held": 1}
    await world.joiner.tick()
    assert world.joiner.held == 1
    world.now += 0.2
    world.predict("one", 0.9)
    world.now += 0.1
    await world.joiner.tick()
    assert (world.outcomes, world.joiner.held) == ({"joined": 1}, 0)
    assert world.performance.delay.total == 0, "it came before its prediction"


async def test_a_label_for_nothing_is_unknown_after_a_while(world: World) -> None:
    assert await world.label("none", 1, 0) == {"held": 2}
    for _ in range(int(HOLD) - 1):
        world.now += 1
        await world.joiner.tick()
    assert world.outcomes == {}
    world.now += 1
    await world.joiner.tick()
    assert (world.outcomes, world.joiner.held) == ({"unknown": 2}, 0)


async def test_labels_that_wait_are_bounded(world: World) -> None:
    for at in range(0, MAX_HELD + 2000, 4000):
        await world.post([{"predictionId": f"p{at + i}", "label": 1} for i in range(4000)])
    assert (world.joiner.held, world.outcomes) == (MAX_HELD, {"unknown": 2000})


async def test_labels_that_wait_in_vain_are_unknown_when_it_ends(world: World) -> None:
    await world.label("none", 1, 0)
    world.joiner.close()
    assert (world.outcomes, world.joiner.held) == ({"unknown": 2}, 0)
    assert await world.label("none", 1) == {"unknown": 1}


async def test_a_prediction_under_an_id_that_was_there_before_is_another_one(world: World) -> None:
    world.predict("one", 0.9)
    world.predict("one", 0.1)
    assert world.lost == {"repeated": 1}
    assert await world.label("one", 0) == {"joined": 1}
    assert world.performance.confusion["0", "0"] == 1
    world.predict("one", 0.2)
    assert await world.label("one", 1) == {"joined": 1}
    assert world.performance.confusion["1", "0"] == 1


async def test_another_id_leads_to_the_same_prediction(world: World) -> None:
    world.predict("generated", 0.9, other="the model's")
    world.predict("", 0.9, other="the model's alone")
    assert await world.label("the model's", 1) == {"joined": 1}
    assert await world.label("generated", 1) == {"duplicate": 1}
    assert await world.label("the model's alone", 1) == {"joined": 1}


@pytest.mark.parametrize("name", ["", "a" * 257, "x\n", "\ud800"])
async def test_ids_that_cannot_be_kept(world: World, name: str) -> None:
    world.predict(name, 0.9, 0.8)
    assert (world.lost, world.store.pending) == ({"id": 2}, 0)
    result = await world.post({"predictionId": name, "label": 1})
    assert (result.status, result.outcomes) == (400, {"malformed": 1})


async def test_business_outcomes_count_once_each(world: World) -> None:
    world.predict("one", 0.9)
    for value, outcome in ((10, "joined"), (10, "duplicate"), (11, "contradictory")):
        assert (await world.post({"predictionId": "one", "outcome": "sale", "value": value})).outcomes == {outcome: 1}
    await world.label("one", 1)
    assert (await world.post({"predictionId": "one", "outcome": "click"})).outcomes == {"joined": 1}, "after its label"
    assert world.performance.outcomes["sale"].gained == 10
    for i in range(40):
        await world.post({"predictionId": "one", "outcome": f"o{i}"})
    assert world.outcomes["joined"] == MAX_OUTCOMES + 1
    assert world.outcomes["too_many"] == 40 - MAX_OUTCOMES + 2


async def test_a_revision_that_is_not_counted_any_more(world: World) -> None:
    world.predict("one", 0.9, revision="gone")
    assert await world.label("one", 1) == {"retired": 1}


@pytest.mark.parametrize(
    ("timestamp", "delay"),
    [("1970-01-01T00:16:50Z", 10.0), (1030.5, 30.5), (1010, 10.0), ("1970-01-01T01:16:41+01:00", 1.0), (5, 0.0)],
)
async def test_labels_say_when_they_came_to_be(world: World, timestamp: object, delay: float) -> None:
    world.predict("one", 0.9)
    world.now += 500
    await world.post({"predictionId": "one", "label": 1, "timestamp": timestamp})
    assert world.performance.delay.total == delay


SELDON = {
    "request": {"data": {"ndarray": [[1.0, 2.0]]}},
    "response": {"meta": {"puid": "one"}, "data": {"ndarray": [[0.9]]}},
}


@pytest.mark.parametrize(
    ("more", "labels", "rewards"),
    [
        ({"truth": {"data": {"ndarray": [1]}}, "reward": 0}, 1, 0),
        ({"truth": {"data": {"ndarray": [["1"]]}}}, 1, 0),
        ({"truth": {"data": {"tensor": {"shape": [1, 1], "values": [1.0]}}}, "reward": 0.5}, 1, 1),
        ({"truth": {"strData": "1"}}, 1, 0),
        ({"truth": {"jsonData": 1}}, 1, 0),
        ({"reward": 1}, 0, 1),
        ({"reward": 0}, 0, 1),
    ],
)
async def test_seldons_feedback(world: World, more: dict[str, Any], labels: int, rewards: int) -> None:
    world.predict("one", 0.9)
    result = await world.post(SELDON | more)
    assert (result.status, result.outcomes) == (202, {"joined": labels + rewards})
    assert world.performance.labels == world.performance.confusion["1", "1"] == labels
    assert sum(counts.count for counts in world.performance.outcomes.values()) == rewards


NO_LABEL = "no label of a binary model: send 1 or 0, or name another prediction.positive"
NO_TIME = "no time: write it like 2026-11-22T16:00:00Z, or as Unix seconds"
NO_ENTRY = 'send {"predictionId": ID, "label": LABEL}'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", f"not JSON: {NO_ENTRY}, or a list of these"),
        (b"\xff\xfe", f"not JSON: {NO_ENTRY}, or a list of these"),
        (b'{"predictionId":"one","label":1', f"not JSON: {NO_ENTRY}, or a list of these"),
        (b"[" * 100_000, f"not JSON: {NO_ENTRY}, or a list of these"),
        (b"NaN" + b"[" * 100_000, f"not JSON: {NO_ENTRY}, or a list of these"),
        (b"{}", f"no feedback in it: {NO_ENTRY}, or a list of these"),
        (b"[]", f"no feedback in it: {NO_ENTRY}, or a list of these"),
        (b"null", f"no feedback in it: {NO_ENTRY}, or a list of these"),
        (b"[1]", f"[0]: 1 is no feedback: {NO_ENTRY}"),
        (b'{"label":1}', "feedback.predictionId: null is no id: send a text of 1 to 256 printable characters"),
        (
            b'{"predictionId":7,"label":1}',
            "feedback.predictionId: 7 is no id: send a text of 1 to 256 printable characters",
        ),
        (
            b'[{"predictionId":"%b","label":1}]' % (b"x" * 1_000_000),
            '[0].predictionId: "' + "x" * 40 + '" is no id: send a text of 1 to 256 printable characters',
        ),
        (b'{"predictionId":"one"}', f"feedback: neither label, labels nor outcome: {NO_ENTRY}"),
        (b'{"predictionId":"one","label":1,"labels":[]}', "feedback: both label and labels: send one of them"),
        (b'{"predictionId":"one","labels":[]}', f"feedback: neither label, labels nor outcome: {NO_ENTRY}"),
        (b'{"predictionId":"one","label":null}', f"feedback: neither label, labels nor outcome: {NO_ENTRY}"),
        (
            b'{"predictionId":"one","label":NaN}',
            f"feedback.label: NaN is {NO_LABEL}",
        ),
        (
            b'{"feedback":[{"predictionId":"one","labels":[{"a":[]},null]}]}',
            f"feedback[0].labels[0]: an object is {NO_LABEL}",
        ),
        (
            b'{"predictionId":"one","label":0.7}',
            f"feedback.label: 0.7 is {NO_LABEL}",
        ),
        (
            b'{"predictionId":"one","label":1,"timestamp":"yesterday"}',
            f'feedback.timestamp: "yesterday" is {NO_TIME}',
        ),
        (
            b'{"predictionId":"one","label":1,"timestamp":"2026-11-22T16:00:00"}',
            f'feedback.timestamp: "2026-11-22T16:00:00" is {NO_TIME}',
        ),
        (
            b'{"predictionId":"one","outcome":[],"value":1}',
            "feedback.outcome: a list is no name: send a text of 1 to 64 printable characters",
        ),
        (b'{"predictionId":"one","outcome":"sale","value":"much"}', 'feedback.value: "much" is no number within 1e+15'),
        (
            b'{"predictionId":"one","outcome":"sale","value":Infinity}',
            "feedback.value: Infinity is no number within 1e+15",
        ),
        (
            b'{"response":{"meta":{}},"truth":{"data":{"ndarray":[1]}}}',
            "feedback.response.meta.puid: null is no id: send a text of 1 to 256 printable characters",
        ),
    ],
)
async def test_what_is_no_feedback_is_told_in_one_line(world: World, body: bytes, reason: str) -> None:
    world.predict("one", 0.9)
    result = await world.post(body)
    assert (result.status, result.outcomes, world.outcomes) == (400, {"malformed": 1}, {"malformed": 1})
    assert json.loads(result.body()) == {"error": reason, "accepted": 0, "malformed": 1}


async def test_questions_of_others_are_bounded(world: World) -> None:
    world.predict("one", 0.9)
    many = json.dumps({"ask": ["one", *map(str, range(50_000))]}).encode()
    answer = await world.joiner.feedback(many, hop=True)
    assert answer.unknown == [str(i) for i in range(999)]
    for junk in (b'{"x":' + b"[" * 100_000, b'{"ask":' + b"[" * 100_000):
        assert (await world.joiner.feedback(junk, hop=True)).status == 400


async def test_one_bad_label_spoils_no_other(world: World) -> None:
    world.predict("one", 0.9, 0.8, 0.7)
    assert await world.label("one", 1, [], 0) == {"malformed": 1, "joined": 2}


async def test_posts_that_are_too_long(world: World) -> None:
    over = await world.post(b" " * (MAX_BODY + 1))
    assert (over.status, over.outcomes) == (413, {"too_many": 1})
    assert over.reasons == ["1048577 bytes are over 1048576: send several posts"]
    many = await world.post([{"predictionId": "one", "labels": [1] * (MAX_LABELS // 2 + 1)}] * 2)
    assert (many.status, many.outcomes) == (413, {"too_many": MAX_LABELS + 2})
    assert many.reasons == ["10002 labels are over 10000: send several posts"]
    assert (await world.post([{"predictionId": "one", "label": 1}] * MAX_LABELS)).status == 202


@pytest.mark.parametrize(
    ("task", "label", "fits"),
    [
        ("regression", 3.7, True),
        ("regression", "3.7", True),
        ("regression", -2, True),
        ("regression", "many", False),
        ("regression", True, False),
        ("regression", "nan", False),
        ("regression", 10**400, False),
        ("multiclass", "cat", True),
        ("multiclass", "猫", True),
        ("multiclass", 3, True),
        ("multiclass", "c" * 129, False),
        ("multiclass", "a\nb", False),
        ("text", "good", True),
        ("ranking", 1, True),
    ],
)
async def test_what_a_label_is_depends_on_the_task(task: Task, label: object, fits: bool) -> None:
    world = World(task=task)
    world.predict("one", 0.9)
    assert await world.label("one", label) == {"joined" if fits else "malformed": 1}
    assert world.performance.labels == fits


ONE = (1, 1.0, "1", "1.0", "+1", True, "true", "True", "TRUE")
ZERO = (0, 0.0, -0.0, "0", "0.0", False, "false", "False")


@pytest.mark.parametrize("task", ["binary", "ranking"])
@pytest.mark.parametrize(
    ("positive", "ones", "zeros", "neither"),
    [
        ("1", ONE, ZERO, ("yes", "banana", 2, -1, "-1", "01", "1e0", "١", "")),
        ("true", ONE, ZERO, ("yes", 2)),
        ("1.0", ONE, ZERO, (2,)),
        ("0", ZERO, ONE, (2,)),
        ("Yes", ("yes", "Yes", "YES"), ("no", "No"), (1, 0, True, "maybe")),
        ("positive", ("positive", "Positive"), ("negative",), (1, "neutral")),
        ("2", (2, 2.0, "2", "2.0"), (1, "1", 3, "banana", True), ()),
        ("fraud", ("fraud",), ("Fraud", "legal", 1, True), ()),
    ],
)
async def test_a_third_class_is_neither_of_two(
    task: Task, positive: str, ones: tuple[Any, ...], zeros: tuple[Any, ...], neither: tuple[Any, ...]
) -> None:
    world = World(task=task, positive=positive)
    for actual, labels in ((1, ones), (0, zeros)):
        for i, label in enumerate(labels):
            world.predict(f"{actual}-{i}", 0.9)
            assert await world.label(f"{actual}-{i}", label) == {"joined": 1}, label
        assert sum(world.performance.truths[actual]) == len(labels)
    for label in neither:
        world.predict("odd", 0.9)
        assert await world.label("odd", label) == {"malformed": 1}, label
    assert world.performance.labels == sum(map(sum, world.performance.truths)) == len(ones) + len(zeros)


async def test_a_third_class_is_told(world: World) -> None:
    world.predict("one", 0.9)
    result = await world.post({"predictionId": "one", "label": "banana"})
    line = 'feedback.label: "banana" is no label of a binary model: send 1 or 0, or name another prediction.positive'
    assert (result.status, json.loads(result.body())["error"]) == (400, line)
    assert await world.label("one", 0) == {"joined": 1}, "the prediction still waits for its label"


@given(st.text(max_size=8) | st.sampled_from(ONE).map(str))
def test_a_class_has_one_plain_name(text: str) -> None:
    """So a label that is handed on to another pod stays what it is."""
    assert plain_class(plain_class(text)) == plain_class(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (0.25, "0.25"),
        ("1", "1"),
        ("", None),
        (None, None),
        (float("nan"), None),
        (2**53 - 1, "9007199254740991"),
        (2.0**53 - 1, "9007199254740991"),
        (2**53, None),
        (10**20, None),
        (1e20, "1e+20"),
        ([1], None),
    ],
)
def test_one_form_for_one_class(value: object, text: str | None) -> None:
    assert class_text(value) == text


@given(st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_label_is_called_as_the_category_is(value: float | bool) -> None:
    """Whoever groups by it finds the class that he has in mind."""
    assert (class_text(value) or "_other") == category(value)


async def test_metrics(world: World) -> None:
    world.predict("one", 0.9, 0.8)
    await world.label("one", 1, None)
    await world.label("none", 1)
    families = feedback_metrics("m", world.counts, pending=world.store.pending, held=world.joiner.held)
    samples = {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}
    assert samples["coalmine_feedback_total", "m", "joined"] == 1
    assert samples["coalmine_feedback_total", "m", "contradictory"] == 0
    assert samples["coalmine_feedback_lost_total", "m", "evicted"] == 0
    assert samples["coalmine_feedback_pending", "m"] == 2
    assert samples["coalmine_feedback_held", "m"] == 1
