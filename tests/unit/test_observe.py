"""The observer: what it counts, and what it leaves out rather than hold up a request."""

from collections.abc import Callable

import pytest

from coalmine_sidecar.contract import Observe, RevisionRoute, Routing
from coalmine_sidecar.observe.budget import BURST, CpuBudget
from coalmine_sidecar.observe.observer import MAX_QUEUED, MAX_QUEUED_BYTES, SLICE, Observer
from coalmine_sidecar.observe.stream import MAX_PENDING
from coalmine_sidecar.telemetry import EpochCell, Series, Telemetry

PATH = b"/v1/models/fraud:predict"
JSON = b"application/json"
BODY = b'{"predictions":[0.15,0.25,0.35,0.45]}'


class Loop:
    """The event loop's part: runs what was scheduled, on a clock that each look moves on by `tick` seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tick = 0.0
        self.turns = 0
        self._scheduled: list[Callable[[], None]] = []

    def clock(self) -> float:
        self.now += self.tick
        return self.now

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._scheduled.append(callback)

    def run(self) -> None:
        while self._scheduled:
            self.turns += 1
            ready, self._scheduled = self._scheduled, []
            for callback in ready:
                callback()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def telemetry() -> Telemetry:
    made = Telemetry(pod="pod-1", revision="a")
    made.configure(
        Routing(
            deployment="fraud",
            model="fraud",
            generation=1,
            epoch="1",
            revisions=(RevisionRoute(name="a", version="v1", track="stable", weight=100),),
            observe=Observe(outputs={"predictions": (0.2, 0.4)}),
        )
    )
    return made


@pytest.fixture
def series(telemetry: Telemetry) -> Series:
    return telemetry.series("a", "ingress")


@pytest.fixture
def cell(telemetry: Telemetry) -> EpochCell:
    return telemetry.epoch("a")


@pytest.fixture
def observer(telemetry: Telemetry, loop: Loop) -> Observer:
    return Observer(telemetry, schedule=loop.call_soon, clock=loop.clock, share=0.2, draw=lambda: 0.5)


def test_all_rows_for_prometheus_one_row_for_the_analysis(
    observer: Observer, loop: Loop, series: Series, cell: EpochCell
) -> None:
    observer.offer(series, cell, PATH, JSON, None, BODY)
    assert series.predictions == 0  # not before the loop's next turn
    loop.run()
    assert series.predictions == 4
    assert series.outputs.by_name["predictions"].bins == [1, 2, 1]
    assert cell.outputs.by_name["predictions"].bins == [0, 1, 0]  # 0.35
    assert list(series.values["predictions"]) == [0.35]


def test_an_answer_of_a_fallback_has_no_cell(observer: Observer, loop: Loop, series: Series, cell: EpochCell) -> None:
    observer.offer(series, None, PATH, JSON, None, BODY)
    loop.run()
    assert sum(series.outputs.by_name["predictions"].bins) == 4
    assert not any(cell.outputs.by_name["predictions"].bins)


def test_labels_and_huge_numbers_are_no_raw_values(observer: Observer, loop: Loop, series: Series) -> None:
    for prediction in (b'"fraud"', b"true", b"null", b"1e301", b"7"):
        observer.offer(series, None, PATH, JSON, None, b'{"predictions":[%s]}' % prediction)
    loop.run()
    assert list(series.values["predictions"]) == [7.0]
    assert series.outputs.by_name["predictions"].missing == 1


def test_what_cannot_be_read_is_counted(observer: Observer, loop: Loop, series: Series) -> None:
    observer.offer(series, None, PATH, JSON, None, b"<html>")
    observer.offer(series, None, PATH, JSON, None, b'{"predictions":[%s]}' % b",".join([b"[1,2,3,4,5,6,7,8]"]))
    loop.run()
    assert series.extract_failures["not_json"] == 1
    assert series.extract_failures["too_many_outputs"] == 1  # one place is the configured output's
    assert len(series.outputs.by_name) == 8


def test_compressed_answers_are_skipped(observer: Observer, loop: Loop, series: Series) -> None:
    observer.offer(series, None, PATH, JSON, None, b"\x1f\x8b\x08\x00")
    observer.skip(series, "encoding")
    observer.skip(series, "size")
    loop.run()
    assert (series.skipped["encoding"], series.skipped["size"]) == (2, 1)


def test_the_queue_is_bounded_in_answers(observer: Observer, loop: Loop, series: Series) -> None:
    for _ in range(MAX_QUEUED + 3):
        observer.offer(series, None, PATH, JSON, None, BODY)
    assert series.skipped["queue"] == 3
    loop.run()
    assert series.predictions == 4 * MAX_QUEUED


def test_the_queue_is_bounded_in_bytes(observer: Observer, loop: Loop, series: Series) -> None:
    half = bytes(MAX_QUEUED_BYTES // 2)
    for _ in range(3):
        observer.offer(series, None, PATH, JSON, None, half)
    assert series.skipped["queue"] == 1
    loop.run()
    observer.offer(series, None, PATH, JSON, None, half)
    assert series.skipped["queue"] == 1


def test_the_loop_has_its_turn_after_a_slice(observer: Observer, loop: Loop, series: Series) -> None:
    for _ in range(10):
        observer.offer(series, None, PATH, JSON, None, BODY)
    loop.tick = SLICE / 2  # an answer takes half a slice
    loop.run()
    assert series.predictions == 40
    assert loop.turns == 5


def test_beyond_the_budget_answers_are_skipped_and_later_read_again(
    observer: Observer, loop: Loop, series: Series
) -> None:
    loop.tick = 2 * BURST  # one answer takes more than was saved up
    for _ in range(3):
        observer.offer(series, None, PATH, JSON, None, BODY)
    loop.run()
    assert (series.predictions, series.skipped["budget"]) == (4, 2)
    loop.tick = 0.0
    observer.offer(series, None, PATH, JSON, None, BODY)
    loop.run()
    assert series.skipped["budget"] == 3
    loop.now += 1.0
    observer.offer(series, None, PATH, JSON, None, BODY)
    loop.run()
    assert series.predictions == 8


def test_an_error_of_ours_stops_neither_the_loop_nor_the_next_answer(
    telemetry: Telemetry, loop: Loop, series: Series
) -> None:
    draws = iter([7.0, 0.0])  # 7.0 is no draw: beyond all rows
    observer = Observer(telemetry, schedule=loop.call_soon, clock=loop.clock, draw=lambda: next(draws))
    observer.offer(series, None, PATH, JSON, None, BODY)
    observer.offer(series, None, PATH, JSON, None, BODY)
    loop.run()
    assert series.extract_failures["internal"] == 1
    assert list(series.values["predictions"]) == [0.15]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_budget_gives_its_share_in_the_long_run(share: float) -> None:
    budget = CpuBudget(share, 0.0)
    worked = 0.0
    for tick in range(100_000):
        if budget.open(tick / 1000):
            budget.spend(0.01)
            worked += 0.01
    assert worked == pytest.approx(100 * share, abs=BURST + 0.02)


CHAT = b"/v1/chat/completions"
EVENTS = b"text/event-stream"


def event(text: str, finish: str = "null") -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":%b}]}\r\n\r\n' % (
        text.encode(),
        finish.encode(),
    )


def test_a_stream_is_read_in_later_turns_and_counted_when_it_ends(loop, telemetry, observer) -> None:
    series, cell = telemetry.series("a", "ingress"), telemetry.epoch("a")
    follower = observer.follow(series, CHAT, EVENTS, 100.0)
    assert follower is not None
    counters = series.generations["chat"]
    follower.feed([event("a")[:9]], 100.5)
    loop.run()
    assert counters.first_token.total == 0
    follower.feed([event("a")[9:], event("b")], 101.0)
    assert counters.first_token.total == 0, "not before the bytes are on their way"
    loop.run()
    assert (counters.first_token.total, sum(counters.first_token.counts)) == (1.0, 1)
    follower.feed([event("c", '"length"')], 103.0)
    assert follower.end(cell) == 0
    loop.run()
    assert counters.per_token["chunks"].total == 1.0
    assert counters.tokens["output", "chunks"].total == 3
    assert sum(counters.tokens["output", "usage"].counts) == 0
    assert counters.finish_reasons["length"] == 1
    assert cell.outputs.by_name["finish_reason"].classes == {"length": 1}
    assert series.predictions == 1
    assert not any(series.skipped.values())


def test_paths_without_anything_to_read_are_not_followed(telemetry, observer) -> None:
    assert observer.follow(telemetry.series("a", "ingress"), b"/events", EVENTS, 0.0) is None
    assert telemetry.series("a", "ingress").generations == {}


@pytest.mark.parametrize("before", [b"", event("a")])
def test_the_end_of_a_stream_tells_of_an_error_in_it(loop, telemetry, observer, before: bytes) -> None:
    series = telemetry.series("a", "ingress")
    follower = observer.follow(series, CHAT, EVENTS, 0.0)
    follower.feed([before + b'data: {"error":{"code":429}}\n\n'], 1.0)
    assert follower.end(None) == 429, "asked in the same turn"
    loop.run()
    counters = series.generations["chat"]
    assert (counters.errors, series.predictions) == (1, 0)
    assert sum(counters.first_token.counts) == (1 if before else 0)


def test_a_stream_that_breaks_counts_its_first_token_only(loop, telemetry, observer) -> None:
    series = telemetry.series("a", "ingress")
    follower = observer.follow(series, CHAT, EVENTS, 0.0)
    follower.feed([event("a") + event("b", '"stop"')], 1.0)
    loop.run()
    follower.stop()
    follower.feed([event("c")], 2.0)
    loop.run()
    counters = series.generations["chat"]
    assert (sum(counters.first_token.counts), counters.finish_reasons["stop"], series.predictions) == (1, 0, 0)


def test_what_comes_at_once_is_read_in_stretches_and_beyond_the_bound_not_at_all(loop, telemetry, observer) -> None:
    series = telemetry.series("a", "ingress")
    follower = observer.follow(series, CHAT, EVENTS, 0.0)
    follower.feed([event("x" * 100) * 600], 1.0)
    assert follower.end(None) == 0
    assert series.predictions == 0, "the rest in later turns"
    loop.run()
    assert loop.turns > 1
    assert (series.predictions, series.generations["chat"].tokens["output", "chunks"].total) == (1, 600)
    other = observer.follow(series, CHAT, EVENTS, 0.0)
    other.feed([b"x" * (MAX_PENDING + 1)], 1.0)
    assert other.end(None) == 0
    assert (series.skipped["queue"], other._pending) == (1, [])


def test_without_budget_a_stream_is_skipped_once(loop, telemetry) -> None:
    loop.tick = BURST
    observer = Observer(telemetry, schedule=loop.call_soon, clock=loop.clock, share=0.0)
    series = telemetry.series("a", "ingress")
    follower = observer.follow(series, CHAT, EVENTS, 0.0)
    for _ in range(5):
        follower.feed([event("a")], 1.0)
        loop.run()
    assert series.skipped["budget"] == 1
    assert follower.end(None) == 0


def test_too_many_streams_in_one_turn_are_skipped(loop, telemetry, observer) -> None:
    series = telemetry.series("a", "ingress")
    followers = [observer.follow(series, CHAT, EVENTS, 0.0) for _ in range(MAX_QUEUED + 3)]
    for follower in followers:
        follower.feed([event("a")], 1.0)
    loop.run()
    assert series.skipped["queue"] == 3
    assert sum(series.generations["chat"].first_token.counts) == MAX_QUEUED
