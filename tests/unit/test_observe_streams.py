"""Monitored streams: kept for feedback and logged when they are whole, with what was asked; in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import convert
from tests.unit.test_observe import CHAT, EVENTS, Loop, event

from coalmine_sidecar.contract import RevisionRoute, Routing
from coalmine_sidecar.feedback.predicted import Predicted
from coalmine_sidecar.monitoring import Monitoring
from coalmine_sidecar.observe.beginning import Beginning, Room
from coalmine_sidecar.observe.budget import BURST
from coalmine_sidecar.observe.observer import MAX_QUEUED, MAX_QUEUED_BYTES, Observer
from coalmine_sidecar.relay.question import Question
from coalmine_sidecar.telemetry import Series, Telemetry

MONITORING: dict[str, Any] = {
    "task": "text",
    "feedback": {},
    "features": [
        {"name": "model", "path": "$.model", "type": "categorical"},
        {"name": "temperature", "path": "$.temperature"},
        {"name": "prompt_chars"},
    ],
    "outputs": [{"name": "length", "path": "completion_chars"}],
}
ASKED = b'{"model":"canary-7b","temperature":0.5,"stream":true,"messages":[{"role":"user","content":"What?"}]}'
CHUNK = b'data: {"id":"chatcmpl-7","choices":[{"delta":{"content":"Coal"},"finish_reason":%b}]}\n\n'
STREAM = CHUNK % b"null" + CHUNK % b'"stop"' + b"data: [DONE]\n\n"


class Beside:
    """What came of the streams. `most`: bytes of each that are to be logged."""

    def __init__(self, most: int = -1) -> None:
        self.most = most
        self.remembered: list[tuple[Predicted, str]] = []
        self.logged: list[tuple[bytes, bytes, int]] = []

    def remember(self, predicted: Predicted, other: str) -> None:
        self.remembered.append((predicted, other))

    def wants(self) -> int:
        return self.most

    def log(
        self,
        series: Series,
        path: bytes,
        question: Question,
        content_type: bytes,
        json_length: int | None,
        body: bytes,
        size: int = -1,
    ) -> None:
        self.logged.append((content_type, body, size))


class World:
    def __init__(self, *, most: int = -1, share: float = 1.0) -> None:
        self.loop = Loop()
        self.beside = Beside(most)
        self.telemetry = Telemetry(pod="p", revision="a")
        self.telemetry.configure(
            Routing(
                deployment="chat",
                model="chat",
                generation=1,
                epoch="1",
                revisions=(RevisionRoute(name="a", version="v1", track="stable", weight=100),),
                monitoring=convert(MONITORING, Monitoring),
            )
        )
        self.series = self.telemetry.series("a", "ingress")
        self.observer = Observer(
            self.telemetry, schedule=self.loop.call_soon, clock=self.loop.clock, share=share, beside=self.beside
        )

    def stream(self, *pieces: bytes) -> Any:
        follower = self.observer.follow(self.series, CHAT, EVENTS, 0.0)
        assert follower is not None
        for piece in pieces:
            follower.feed([piece], 1.0)
        return follower

    @property
    def skipped(self) -> dict[str, int]:
        return {reason: count for reason, count in self.series.skipped.items() if count}


def question(body: bytes | None = ASKED, *, size: int = -1, id: bytes = b"r-1", given: bool = False) -> Question:
    kept, size = (None, size) if body is None else ([body], len(body))
    return Question(kept, size, 0.0, id=id, given=given, content_type=b"application/json", json_length=None, groups=())


def test_a_whole_stream_is_counted_and_kept_with_what_was_asked() -> None:
    world = World()
    assert world.stream(STREAM).end(None, question()) == 0
    assert world.series.predictions == 0, "the request is read in a later turn, within the budget"
    world.loop.run()
    assert world.series.predictions == 1
    ((predicted, other),) = world.beside.remembered
    assert (predicted.id, other, predicted.rows) == ("r-1", "chatcmpl-7", 1)
    watched = world.series.watched
    assert watched is not None
    assert watched.features["model"].categories == ["canary-7b"]
    assert [watched.features[name].values for name in ("temperature", "prompt_chars")] == [1, 1]
    assert [watched.features[name].missing for name in ("temperature", "prompt_chars")] == [0, 0]
    assert sum(world.series.outputs.by_name["length"].bins) == 1, "an output by its other name"


def test_the_clients_own_id_is_the_only_one() -> None:
    world = World()
    world.stream(STREAM).end(None, question(id=b"mine", given=True))
    world.loop.run()
    ((predicted, other),) = world.beside.remembered
    assert (predicted.id, other) == ("mine", "")


def test_a_request_that_was_not_kept_is_counted_as_such_and_its_answer_all_the_same() -> None:
    """However long it was: what is not there takes no room."""
    world = World()
    asked = question(None, size=MAX_QUEUED_BYTES + 1)
    world.stream(STREAM).end(None, asked)
    world.observer.offer(world.series, None, CHAT, b"application/json", None, b'{"choices":[{"text":"x"}]}', asked)
    world.loop.run()
    assert world.series.watched is not None
    assert world.series.watched.read_failures["size"] == 2
    assert (len(world.beside.remembered), world.skipped) == (2, {})


def test_what_breaks_or_fails_is_not_kept() -> None:
    world = World(most=1000)
    broken = world.stream(STREAM)
    world.loop.run()
    broken.stop()
    assert world.stream(CHUNK % b"null" + b'data: {"error":{"code":500}}\n\n').end(None, question()) == 500
    world.loop.run()
    assert world.beside.remembered == []
    assert len(world.beside.logged) == 1, "only the second one is whole"


def test_what_was_asked_has_to_have_room_in_the_queue() -> None:
    world = World()
    half = question(b" " * (MAX_QUEUED_BYTES // 2))
    for _ in range(3):
        world.stream(STREAM).end(None, half)
    assert world.skipped == {"queue": 1}
    world.loop.run()
    world.stream(STREAM).end(None, half)
    world.loop.run()
    assert (world.series.predictions, world.skipped) == (3, {"queue": 1})


def test_and_so_while_the_end_of_its_answer_waits_to_be_read() -> None:
    world = World()
    half = question(b" " * (MAX_QUEUED_BYTES // 2))
    for _ in range(3):
        assert world.stream(event("x" * 100) * 600).end(None, half) == 0
    assert world.skipped == {"queue": 1}
    world.loop.run()
    assert (world.series.predictions, len(world.beside.remembered)) == (2, 2)


def test_too_many_whole_streams_in_one_turn_are_skipped() -> None:
    world = World()
    for _ in range(MAX_QUEUED + 3):
        world.stream().end(None, question())
    assert world.skipped == {"queue": 3}


def test_without_budget_a_stream_is_skipped_and_logged_all_the_same() -> None:
    world = World(most=1000, share=0.0)
    world.loop.tick = BURST
    first = world.stream(STREAM)
    world.loop.run()
    second = world.stream(STREAM)
    world.loop.run()
    for one in (first, second):
        one.end(None, question())
    world.loop.run()
    assert (world.skipped, world.series.predictions) == ({"budget": 2}, 0)
    assert [body for _, body, _ in world.beside.logged] == [STREAM, STREAM]


@pytest.mark.parametrize(("most", "data"), [(1000, STREAM), (len(STREAM), STREAM), (10, STREAM[:10]), (0, b"")])
def test_a_stream_is_logged_from_its_beginning(most: int, data: bytes) -> None:
    world = World(most=most)
    pieces = [STREAM[at : at + 7] for at in range(0, len(STREAM), 7)]
    world.stream(*pieces).end(None, question())
    assert world.beside.logged == [(EVENTS, data, len(STREAM))]


def test_a_stream_that_is_not_of_the_sample_is_not_logged() -> None:
    world = World()
    world.stream(STREAM).end(None, question())
    assert world.beside.logged == []


@given(st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=9)), max_size=40), st.integers(0, 30))
def test_what_is_kept_of_streams_is_their_beginning_and_within_bounds(
    pieces: list[tuple[int, bytes]], most: int
) -> None:
    """Five streams at a time, with room for less than they may have together."""
    room = Room(12)
    copies = [Beginning(EVENTS, most, room) for _ in range(5)]
    whole = [b""] * 5
    for at, piece in pieces:
        copies[at].add([piece])
        whole[at] += piece
        assert room.used == sum(len(copy.data) for copy in copies) <= room.limit
    for copy, stream in zip(copies, whole, strict=True):
        assert stream.startswith(copy.data)
        assert (copy.size, len(copy.data) <= most) == (len(stream), True)
        copy.drop()
    assert room.used == 0


_steps = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["feed", "much", "end", "stop", "turn"])), max_size=40)


@settings(deadline=None)
@given(_steps, st.sampled_from([0.0, BURST / 40, BURST]))
def test_each_whole_stream_is_read_or_skipped_once_and_nothing_stays_counted(
    steps: list[tuple[int, str]], tick: float
) -> None:
    world = World(most=200_000)
    world.loop.tick = tick
    asked = question(ASKED.ljust(MAX_QUEUED_BYTES // 3))
    streams = [world.stream() for _ in range(5)]
    ended: set[int] = set()
    broken: set[int] = set()
    for at, step in steps:
        if step == "turn":
            world.loop.run()
        elif at in ended | broken:
            continue
        elif step == "end":
            ended.add(at)
            streams[at].end(None, asked)
        elif step == "stop":
            broken.add(at)
            streams[at].stop()
        else:
            streams[at].feed([event("x") if step == "feed" else event("x" * 100) * 300], 1.0)
    world.loop.run()
    for at in {*range(5)} - ended:
        streams[at].stop()
    told = world.series.predictions + sum(world.skipped.values())
    assert len(ended) <= told <= len(ended) + 5, "one that was skipped may have broken later"
    assert world.series.predictions == len(world.beside.remembered) <= len(ended) == len(world.beside.logged)
    assert world.observer._room.used == world.observer._copies.used == 0
