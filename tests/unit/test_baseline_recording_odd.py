"""A few exchanges unlike the others: they are left out and told, and never decide what a baseline is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.local.running import said
from tests.unit.recordings import IDENTITY, built, lines, recorded

from coalmine_operator.cli.baseline_columns import usual

SCORED = ("--score", "score")
UNNAMED = {"customers": [{"age": 40}]}
NAMED = {"instances": [{"age": 40}]}
LISTED = {"instances": [[1, 2]]}


def log(path: Path, usual: Any, odd: Any, at: set[int], count: int = 50) -> Path:
    pairs = (lines(i, odd if i in at else usual, {"score": i / 100}, path="/score") for i in range(count))
    return recorded(path / "log.jsonl", pairs)


@pytest.mark.parametrize("at", [0, 25, 49])
@pytest.mark.parametrize(
    ("usual", "odd", "features"),
    [(UNNAMED, [1, 2], []), (NAMED, [1, 2], ["age"]), (LISTED, NAMED, ["[0]", "[1]"]), (NAMED, b"none", ["age"])],
)
def test_one_odd_request_turns_no_other_away(
    usual: Any, odd: Any, features: list[str], at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = log(tmp_path, usual, odd, {at})
    options = [word for name in features for word in ("--feature", f"{name}:categorical")]
    made, told = built(capsys, tmp_path / "made.json", path, *SCORED, *options)
    assert (made.rows, list(made.features), list(made.outputs)) == (49, features, ["score"])
    about = "1 requests not read: not json" if odd == b"none" else "1 requests unlike most others, with columns such as"
    assert any(line.startswith(f"{path}: {about}") for line in told)


def test_one_odd_answer_turns_no_other_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = (lines(i, NAMED, {"predictions": [1]} if i == 7 else {"said": {"x": "y"}}) for i in range(50))
    made, told = built(
        capsys, tmp_path / "made.json", recorded(tmp_path / "log.jsonl", pairs), "--feature", "age:categorical"
    )
    assert (made.rows, list(made.outputs)) == (49, [])
    assert f"{tmp_path / 'log.jsonl'}: 1 answers unlike most others" in told


def test_of_a_few_exchanges_no_baseline_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = log(tmp_path, UNNAMED, [1, 2], set(range(0, 50, 5)))
    target = tmp_path / "never.json"
    code, out, err = said(capsys, "baseline", "build", str(path), "-o", str(target), *IDENTITY, *SCORED)
    assert (code, out, target.exists()) == (2, "", False)
    assert err == (
        f"{path}: 40 of 50 exchanges are left out, so no baseline is made of the rest: "
        "40 requests not read: no columns\n"
    )


def test_who_wants_no_feature_does_not_mind_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = log(tmp_path, UNNAMED, [1, 2], set(range(0, 50, 5)))
    made, _ = built(capsys, tmp_path / "made.json", path, *SCORED, "--features", "none")
    assert made.rows == 50


def test_what_asks_for_no_prediction_is_no_majority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def pairs() -> Iterator[tuple[bytes, bytes]]:
        yield from (lines(i, b"", {"ready": True}, path="/v2/health/ready") for i in range(90))
        yield from (lines(i, NAMED, {"predictions": [i / 100]}) for i in range(90, 95))

    made, told = built(
        capsys, tmp_path / "made.json", recorded(tmp_path / "log.jsonl", pairs()), "--feature", "age:categorical"
    )
    assert (made.rows, list(made.features), list(made.outputs)) == (5, ["age"], ["predictions"])
    assert f"{tmp_path / 'log.jsonl'}: 90 exchanges without a prediction" in told


@pytest.mark.parametrize(
    ("forms", "asked", "columns", "odd"),
    [
        ({("a",): 10, ("b",): 1}, (), ["a"], ["b"]),
        ({("a",): 9, ("b",): 1}, (), ["a", "b"], []),
        ({("a",): 10, ("b",): 1}, ("b",), ["a", "b"], []),
        ({("a",): 100, ("a", "rare"): 1}, (), ["a", "rare"], []),
        ({(): 20, ("b",): 1}, (), [], ["b"]),
        ({(f"{i}",): 1 for i in range(20)}, (), [f"{i}" for i in range(20)], []),
        ({}, (), [], []),
    ],
)
def test_columns_of_most(
    forms: dict[tuple[str, ...], int], asked: tuple[str, ...], columns: list[str], odd: list[str]
) -> None:
    assert usual(Counter(forms), asked) == (columns, odd)


@given(st.dictionaries(st.lists(st.sampled_from("abcde"), unique=True).map(tuple), st.integers(1, 50)))
def test_the_odd_are_the_minority_and_have_no_usual_column(forms: dict[tuple[str, ...], int]) -> None:
    columns, odd = usual(Counter(forms), ())
    assert not {*columns} & {*odd}
    assert {*columns, *odd} == {name for form in forms for name in form}
    left = sum(count for form, count in forms.items() if {*form} & {*odd})
    assert not odd or 2 * left < sum(forms.values())
