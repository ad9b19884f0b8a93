"""`coalmine baseline build`: from each kind of file to the same baseline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from tests.local.running import said
from tests.unit.baseline_rows import IDENTITY, ROWS, SCORED, Columns, as_csv, as_parquet, drawn, text

from coalmine_operator.analysis.reference_build import Counting, Identity
from coalmine_operator.analysis.reference_plan import Asked, Planner
from coalmine_operator.api.baseline import Baseline, Categorical, Numeric, decode_baseline, digest_of

Build = Callable[..., tuple[Baseline, str]]


@pytest.fixture(scope="module")
def columns() -> Columns:
    return drawn()


@pytest.fixture
def build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Build:
    def run(data: Path, *options: str) -> tuple[Baseline, str]:
        target = tmp_path / "made.json"
        code, out, err = said(capsys, "baseline", "build", str(data), "-o", str(target), *IDENTITY, *options)
        assert (code, err) == (0, "")
        return decode_baseline(target.read_bytes(), digest=digest_of(target.read_bytes())), out

    return run


def test_csv(tmp_path: Path, columns: Columns, build: Build) -> None:
    made, out = build(as_csv(tmp_path / "rows.csv", columns), *SCORED, "--chunk", "500")
    assert (made.model, made.version, made.task, made.rows) == ("fraud", "v3", "binary", ROWS)
    assert made.source == "rows.csv"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made.created_at)
    assert list(made.features) == ["amount", "age", "kind", "code", "member"]
    assert "feature id: left out: rises with every row: an id, or a row's number" in out
    assert f"feature note: left out: {ROWS} different texts in {ROWS} rows: an id, or free text" in out
    assert "feature nothing: left out: never a value" in out
    amount = made.features["amount"]
    known = [value for value in columns["amount"] if value is not None]
    assert isinstance(amount, Numeric)
    assert (amount.missing, amount.unseen, sum(amount.counts)) == (100, 0, ROWS - 100)
    assert amount.mean == pytest.approx(np.mean(known))
    assert amount.stddev == pytest.approx(np.std(known, ddof=1))
    assert (amount.min, amount.max) == (min(known), max(known))
    assert len(amount.counts) == 10
    assert max(amount.counts) - min(amount.counts) < 10
    kind = made.features["kind"]
    assert isinstance(kind, Categorical)
    assert dict(zip(kind.categories, kind.counts, strict=True)) == {
        name: columns["kind"].count(name) for name in ("phone", "shop", "web")
    }
    member = made.features["member"]
    assert isinstance(member, Categorical)
    assert member.categories == ("false", "true")
    assert list(made.outputs) == ["score"]
    digest = digest_of((tmp_path / "made.json").read_bytes())
    assert out.splitlines()[-1] == f"{tmp_path / 'made.json'}: {digest}"


def test_performance(tmp_path: Path, columns: Columns, build: Build) -> None:
    made, out = build(as_csv(tmp_path / "rows.csv", columns), *SCORED, "--chunk", "1000")
    scores, labels = np.array(columns["score"]), np.array(columns["label"])
    assert made.performance
    assert made.performance.chunk_rows == 1000
    accuracy = [accuracy_score(labels[i : i + 1000], scores[i : i + 1000] >= 0.5) for i in range(0, ROWS, 1000)]
    found = made.performance.metrics["accuracy"]
    assert found.value == pytest.approx(np.mean(accuracy))
    assert found.mean == pytest.approx(np.mean(accuracy))
    assert found.stddev == pytest.approx(np.std(accuracy, ddof=1))
    assert made.performance.metrics["auc"].value == pytest.approx(roc_auc_score(labels, scores), abs=0.001)
    # It is calibrated by these rows, so over all of them it estimates what they show.
    assert made.performance.metrics["accuracy_estimated"].value == pytest.approx(found.value, abs=0.01)
    assert made.performance.metrics["auc_estimated"].stddev
    assert f"accuracy {found.value:.4f} (chunks of 1000: mean {found.mean:.4f}" in out
    assert made.score
    assert (made.score.threshold, made.score.positive) == (0.5, "1")
    assert 0.5 in made.score.edges
    assert len(made.score.counts) == 100
    assert (sum(made.score.counts), sum(made.score.positives)) == (ROWS, labels.sum())


def test_few_rows_have_no_spread(tmp_path: Path, columns: Columns, build: Build) -> None:
    made, out = build(as_csv(tmp_path / "rows.csv", columns), *SCORED)
    assert made.performance
    assert {(one.mean, one.stddev) for one in made.performance.metrics.values()} == {(None, None)}
    assert "fewer than two chunks of 5000 labelled rows: no deviation over chunks" in out


def test_all_kinds_of_files_make_the_same(tmp_path: Path, columns: Columns, build: Build) -> None:
    found = []
    for path in (
        as_csv(tmp_path / "rows.csv", columns),
        as_csv(tmp_path / "rows.tsv", columns, delimiter="\t"),
        as_parquet(tmp_path / "rows.anything", columns),
    ):
        made, _ = build(path, *SCORED, "--chunk", "500")
        found.append((made.features, made.outputs, made.score, made.performance))
    assert found[0] == found[1] == found[2]


def test_parquet_of_other_types(tmp_path: Path, build: Build) -> None:
    table = arrow.table(
        {
            "when": arrow.array([1, 2, 2, 1] * 50, type=arrow.date32()),
            "price": arrow.array([1, 2, 3, 4] * 50, type=arrow.decimal128(10, 2)),
            "kind": arrow.array(["a", "b", None, "a"] * 50).dictionary_encode(),
            "vector": arrow.array([[1.0, 2.0]] * 200),
        }
    )
    parquet.write_table(table, tmp_path / "rows.pq")
    made, out = build(tmp_path / "rows.pq", "--feature", "when", "--feature", "price:numeric", "--feature", "kind")
    when, price, kind = (made.features[name] for name in ("when", "price", "kind"))
    assert isinstance(when, Categorical)
    assert when.categories == ("1970-01-02", "1970-01-03")
    assert isinstance(price, Numeric)
    assert price.mean == 2.5
    assert (kind.counts, kind.missing) == ((100, 50), 50)
    assert f"{tmp_path / 'rows.pq'}: column 'vector' is nested: left out" in out.splitlines()


def test_features_are_those_that_are_named(tmp_path: Path, columns: Columns, build: Build) -> None:
    path = as_csv(tmp_path / "rows.csv", columns)
    made, _ = build(path, "--feature", "age:categorical", "--feature", "code:numeric", "--bins", "4")
    assert list(made.features) == ["age", "code"]
    age, code = made.features["age"], made.features["code"]
    assert isinstance(age, Categorical)
    assert len(age.categories) == 64
    assert age.unseen == ROWS - sum(age.counts) > 0
    assert isinstance(code, Numeric)
    assert code.edges == (0.5, 1.5, 2.5)
    none, _ = build(path, *SCORED, "--features", "none")
    assert none.features == {}
    assert list(none.outputs) == ["score"]


def test_an_output_has_the_name_of_live_answers(tmp_path: Path, columns: Columns, build: Build) -> None:
    made, _ = build(as_csv(tmp_path / "rows.csv", columns), *SCORED, "--as", "predictions=score")
    assert list(made.outputs) == ["predictions"]
    assert "score" not in made.features


def test_another_positive_class_and_a_predicted_one(tmp_path: Path, build: Build) -> None:
    rows = {"p": [0.9, 0.2, 0.6, 0.1, None, 0.7], "said": ["yes", "no", "no", "no", "yes", "yes"]}
    rows["is"] = ["yes", "no", "yes", "no", "yes", None]
    options = ("--score", "p", "--label", "is", "--prediction", "said", "--positive", "yes")
    made, _ = build(as_csv(tmp_path / "rows.csv", rows), *options)
    assert made.score
    assert made.performance
    assert sum(made.score.counts) == 4  # one has no score, one no label
    assert made.performance.metrics["recall"].value == 0.5
    assert made.performance.metrics["precision"].value == 1
    assert made.performance.metrics["auc"].value == 1


def test_predicted_classes_without_a_score(tmp_path: Path, build: Build) -> None:
    rows = {"said": [1, 0, 0, 1] * 10, "is": [1, 0, 1, 1] * 10}
    made, _ = build(as_csv(tmp_path / "rows.csv", rows), "--prediction", "said", "--label", "is")
    assert made.score is None
    assert made.performance
    assert set(made.performance.metrics) == {"accuracy", "precision", "recall", "f1"}
    assert made.performance.metrics["recall"].value == pytest.approx(2 / 3)


def test_regression(tmp_path: Path, build: Build) -> None:
    data = load_breast_cancer().data
    rows = {"said": (data[:, 0] * 2).tolist(), "is": data[:, 0].tolist()}
    made, _ = build(as_csv(tmp_path / "r.csv", rows), "--task", "regression", "--score", "said", "--label", "is")
    assert made.performance
    assert made.performance.metrics["r2"].value == pytest.approx(r2_score(rows["is"], rows["said"]))
    assert made.performance.metrics["mae"].value == pytest.approx(data[:, 0].mean())
    assert made.score is None
    assert list(made.outputs) == ["said"]


def test_many_classes(tmp_path: Path, build: Build) -> None:
    rows = {"said": ["a", "b", "c", "a"] * 30, "is": ["a", "b", "a", None] * 30}
    made, _ = build(as_csv(tmp_path / "r.csv", rows), "--task", "multiclass", "--prediction", "said", "--label", "is")
    assert made.performance
    assert made.performance.metrics["accuracy"].value == pytest.approx(2 / 3)
    assert isinstance(made.outputs["said"], Categorical)


def test_a_ranking_takes_any_score(tmp_path: Path, build: Build) -> None:
    rows = {"s": [-3.0, 2.5, 7.0, 1.0] * 25, "is": [0, 1, 1, 0] * 25}
    made, _ = build(as_csv(tmp_path / "r.csv", rows), "--task", "ranking", "--score", "s", "--label", "is")
    assert made.performance
    assert set(made.performance.metrics) == {"auc", "pr_auc", "auc_estimated", "pr_auc_estimated"}
    assert made.performance.metrics["auc"].value == 1


def test_more_rows_than_the_sample(tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bins are cut from a part of the rows, and all rows are counted; the same file makes the same bins."""
    monkeypatch.setattr("coalmine_operator.analysis.reference_plan.SAMPLE_ROWS", 2000)
    path = as_csv(tmp_path / "rows.csv", {"x": np.random.default_rng(5).normal(size=30_000).tolist()})
    made, _ = build(path)
    again, _ = build(path)
    x = made.features["x"]
    assert again.features == made.features
    assert sum(x.counts) == 30_000
    assert min(x.counts) > 2400
    assert max(x.counts) < 3600


def test_a_recording_that_grows_meanwhile() -> None:
    """The second look sees more rows than the first: all counts are of the second."""
    asked = Asked(task="text")
    planner = Planner(asked, ["x"])
    planner.add({"x": [1.0, 2.5, 3.0]})
    counting = Counting(asked, planner.plan())
    counting.add({"x": [1.0, 2.5, 3.0]})
    counting.add({"x": [9.5, None]})
    made = counting.baseline(Identity(model="m", version="v"))
    x = made.features["x"]
    assert made.rows == sum(x.counts) + x.missing == 5


def test_text_among_numbers_is_unseen(tmp_path: Path, build: Build) -> None:
    values = ["1.5", "oops", "nan", "", "2.5", "NULL", "inf", "3"] * 40
    made, out = build(text(tmp_path / "rows.csv", "x,y\n" + "".join(f"{value},0\n" for value in values)))
    x = made.features["x"]
    assert (sum(x.counts), x.unseen, x.missing) == (120, 40, 160)
    assert "feature x: numeric (numbers, and text in 40 of" in out


def test_other_commands_do_not_wait_for_numpy() -> None:
    code = "import sys, coalmine_operator.cli.main; print('numpy' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_leading_zeros_make_a_name(tmp_path: Path, build: Build) -> None:
    made, _ = build(text(tmp_path / "rows.csv", "zip\n" + "01234\n99999\n" * 60))
    assert isinstance(made.features["zip"], Categorical)
    assert made.features["zip"].categories == ("01234", "99999")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path, build: Build) -> None:
    made, _ = build(text(tmp_path / "rows.csv", b"\xef\xbb\xbfx;y\r\n1;2\r\n3;4\r\n"))
    assert list(made.features) == ["x", "y"]


def test_rows_may_stand_in_many_files(
    tmp_path: Path, columns: Columns, capsys: pytest.CaptureFixture[str], build: Build
) -> None:
    whole, _ = build(as_csv(tmp_path / "rows.csv", columns), *SCORED)
    halves = [{name: values[part] for name, values in columns.items()} for part in (slice(2500), slice(2500, None))]
    parts = [str(as_parquet(tmp_path / f"rows-{i}.pq", half)) for i, half in enumerate(halves)]
    options = ("-o", str(tmp_path / "parts.json"), *IDENTITY, *SCORED)
    assert said(capsys, "baseline", "build", *parts, *options)[0] == 0
    made = decode_baseline((tmp_path / "parts.json").read_bytes())
    assert {name: (one.counts, one.missing) for name, one in made.features.items()} == {
        name: (one.counts, one.missing) for name, one in whole.features.items()
    }
    assert made.score == whole.score
    other = as_parquet(tmp_path / "other.pq", {"score": [0.5], "label": [1]})
    code, _, err = said(capsys, "baseline", "build", *parts, str(other), *options)
    assert (code, err) == (2, f"{other}: has other columns than {parts[0]}: age, amount, code, id, kind\n")
    code, _, err = said(capsys, "baseline", "build", *parts, str(tmp_path / "rows.csv"), *options)
    assert code == 2
    assert err.endswith(f"{tmp_path / 'rows.csv'} is CSV: give one kind\n")


def test_an_earlier_file_stays_when_nothing_comes_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], build: Build
) -> None:
    build(text(tmp_path / "rows.csv", "a\n1\n2\n"))
    before = (tmp_path / "made.json").read_bytes()
    broken = text(tmp_path / "broken.csv", "a,b\n1,2\n3\n")
    code, _, _ = said(capsys, "baseline", "build", str(broken), "-o", str(tmp_path / "made.json"), *IDENTITY)
    assert code == 2
    assert (tmp_path / "made.json").read_bytes() == before
    assert json.loads(before)["rows"] == 2
