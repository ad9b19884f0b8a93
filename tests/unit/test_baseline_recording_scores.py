"""One odd answer blocks no baseline of live traffic: it is counted and told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.local.running import said
from tests.unit.recordings import IDENTITY, built, lines, recorded

from coalmine_operator.api.baseline import Numeric

SCORED = ("--score", "score", "--label", "truth", "--features", "none")


def log(path: Path, wrong: Any, at: set[int]) -> Path:
    """Of 500 scored rows, with what is true in the request."""
    return recorded(
        path / "log.jsonl",
        (
            lines(
                i,
                {"instances": [{"truth": i % 2}]},
                {"score": wrong if i in at else 0.25 + i % 2 / 2},
                path="/score",
            )
            for i in range(500)
        ),
    )


@pytest.mark.parametrize(
    ("wrong", "missing", "unseen", "why"),
    [
        ("n/a", 0, 1, "'n/a' is no number"),
        (1.5, 1, 0, "1.5 is no probability: a binary task has scores from 0 to 1, --task ranking takes any"),
        (None, 1, 0, ""),
    ],
)
def test_one_wrong_score_is_counted_and_told(
    wrong: Any, missing: int, unseen: int, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text is unseen and no number missing, as the sidecar counts them."""
    path = log(tmp_path, wrong, {250})
    made, told = built(capsys, tmp_path / "made.json", path, *SCORED)
    score = made.outputs["score"]
    assert isinstance(score, Numeric)
    assert (made.rows, sum(score.counts), score.missing, score.unseen, score.max) == (500, 499, missing, unseen, 0.75)
    assert made.score
    assert sum(made.score.counts) == 499
    assert made.performance
    assert made.performance.metrics["auc"].value == 1
    line = f"{path}: column 'score': 1 of {500 if wrong else 499} values are wrong, first row 251: {why}"
    assert (line in told) == (wrong is not None)


@pytest.mark.parametrize("wrong", ["n/a", 1.5])
def test_of_mostly_wrong_scores_no_baseline_is_made(
    wrong: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = log(tmp_path, wrong, set(range(100, 400)))
    target = tmp_path / "never.json"
    code, out, err = said(capsys, "baseline", "build", str(path), "-o", str(target), *IDENTITY, *SCORED)
    assert (code, out, target.exists()) == (2, "", False)
    assert err.startswith(f"{path}: column 'score': 300 of 500 values are wrong, first row 101: ")
    assert len(err.splitlines()) == 1
