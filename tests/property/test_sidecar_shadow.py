"""Comparing predictions: what holds for all answers, and what a user would call the same prediction."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine_sidecar.protocols import DISAGREEMENTS, Answer, Value, comparable, disagreement

UNHURRIED = settings(deadline=None)

values = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "cat", "dog", "1"])
answers = st.dictionaries(
    st.sampled_from(["score", "label", "other"]), st.lists(values, min_size=1, max_size=4), max_size=3
).map(lambda columns: Answer(max(map(len, columns.values()), default=0), list(columns.items())))
tolerances = st.floats(0, 1)
draws = st.floats(0, 1, exclude_max=True)


def one(value: Value, other: Value, tolerance: float = 0.05) -> str:
    pair = [Answer(1, [("score", [v])]) for v in (value, other)]
    return disagreement(*pair, tolerance=tolerance, output="", draw=0.5)


@UNHURRIED
@given(answers, answers, tolerances, draws, st.sampled_from(["", "score", "none"]))
def test_any_two_answers_agree_or_disagree_in_one_of_the_ways(
    answer: Answer, copy: Answer, tolerance: float, draw: float, output: str
) -> None:
    found = disagreement(answer, copy, tolerance=tolerance, output=output, draw=draw)
    assert found in ("", *DISAGREEMENTS)
    if answer.rows == copy.rows and not comparable(answer, output):
        assert found == ""
    assert disagreement(answer, answer, tolerance=tolerance, output=output, draw=draw) == ""


@UNHURRIED
@given(values, values, tolerances)
def test_neither_version_is_the_measure_of_the_other(value: Value, other: Value, tolerance: float) -> None:
    assert one(value, other, tolerance) == one(other, value, tolerance)


@UNHURRIED
@given(values, values, tolerances, tolerances)
def test_more_tolerance_never_makes_a_disagreement(value: Value, other: Value, low: float, high: float) -> None:
    low, high = sorted((low, high))
    if not one(value, other, low):
        assert not one(value, other, high)


@UNHURRIED
@given(st.floats(-1e6, 1e6), st.floats(-0.99, 0.99), st.floats(1e-6, 1))
def test_numbers_within_the_tolerance_agree(value: float, part: float, tolerance: float) -> None:
    assert one(value, value + part * tolerance * max(1.0, abs(value)), tolerance) == ""


@UNHURRIED
@given(st.floats(-0.4, 0.4), st.floats(1.01, 10), st.floats(1e-6, 0.05))
def test_numbers_beyond_it_do_not(value: float, times: float, tolerance: float) -> None:
    assert one(value, value + times * tolerance, tolerance) == "value"


@UNHURRIED
@given(st.lists(st.floats(0, 1), min_size=2, max_size=50), st.data())
def test_a_row_is_found_as_often_as_it_is_drawn(scores: list[float], data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, len(scores) - 1))
    others = [score + (row == wrong) * 10 for row, score in enumerate(scores)]
    pair = [Answer(len(scores), [("score", column)]) for column in (scores, others)]
    found = [
        disagreement(*pair, tolerance=0.05, output="", draw=(row + 0.5) / len(scores)) for row in range(len(scores))
    ]
    assert [row for row, reason in enumerate(found) if reason] == [wrong]


@pytest.mark.parametrize(
    ("value", "other", "found"),
    [
        (0.91, 0.87, ""),
        (0.9, 0.1, "value"),
        (300.0, 310.0, ""),
        (300, 310.0, ""),
        (300.0, 350.0, "value"),
        (41, 42, "class"),
        (7, 7.0, ""),
        (True, 1, ""),
        (True, False, "class"),
        ("cat", "cat", ""),
        ("cat", "dog", "class"),
        ("1", 1, "class"),
        (None, math.nan, ""),
        (None, 0.0, "missing"),
        (math.inf, 1e300, "missing"),
        (10**400, 1.0, "value"),
        (1.7e308, -1.7e308, "value"),
    ],
)
def test_pairs(value: Value, other: Value, found: str) -> None:
    assert one(value, other) == found


def test_outputs_that_are_lost_or_new() -> None:
    both = Answer(1, [("label", ["a"]), ("score", [0.5])])
    label = Answer(1, [("label", ["a"])])
    assert disagreement(both, label, tolerance=0.05, output="", draw=0.0) == "outputs"
    assert disagreement(label, both, tolerance=0.05, output="", draw=0.0) == ""
    assert disagreement(both, label, tolerance=0.05, output="label", draw=0.0) == ""
    two_rows = Answer(2, [("label", ["a", "a"])])
    assert disagreement(label, two_rows, tolerance=0.05, output="", draw=0.0) == "outputs"
    assert disagreement(label, Answer(), tolerance=0.05, output="", draw=0.0) == "outputs"
