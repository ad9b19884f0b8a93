"""`coalmine baseline build`: one line for what cannot be used, and what a cell of text means."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.local.running import said
from tests.unit.baseline_rows import IDENTITY, SCORED, as_csv, as_parquet, drawn, text

from coalmine_operator.cli.baseline_csv import meaning


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """One line, exit status 2, and nothing written."""

    def run(data: Path, *options: str) -> str:
        target = tmp_path / "never.json"
        code, out, err = said(capsys, "baseline", "build", str(data), "-o", str(target), *IDENTITY, *options)
        assert (code, out) == (2, "")
        assert not list(tmp_path.glob("*never*"))
        (line,) = err.splitlines()
        return line.replace(str(tmp_path) + "/", "")

    return run


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("+1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("0.25", 0.25),
        ("1E-3", 0.001),
        (" 3 ", 3),
        ("0", 0),
        ("007", "007"),
        ("1_000", "1_000"),
        ("1,5", "1,5"),
        ("0x10", "0x10"),
        ("1" * 40, "1" * 40),
        (".", "."),
        ("-", "-"),
        ("e5", "e5"),
        ("١", "١"),
        ("1e999", float("inf")),
        ("-inf", float("inf")),
        ("", None),
        ("NaN", None),
        ("NULL", None),
        ("N/A", None),
        ("True", True),
        ("false", False),
        ("New York", "New York"),
    ],
)
def test_what_a_cell_of_text_means(cell: str, value: object) -> None:
    found = meaning(cell)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("content", "options", "line"),
    [
        ("", SCORED, "rows.csv: is empty"),
        ("score,label\n", SCORED, "rows.csv: there is no row in it"),
        ("scores,label\n1,1\n", SCORED, "rows.csv: there is no column 'score': did you mean 'scores'?"),
        ("a,b\n1,1\n", SCORED, "rows.csv: there is no column 'score': there are a, b"),
        ("a,b\n1,1\n", ("--feature", "A"), "rows.csv: there is no column 'A': did you mean 'a'?"),
        ("a,b\n1,2\n3\n", (), "rows.csv:3: 1 value for 2 columns"),
        ("a,a\n1,2\n", (), "rows.csv: the column 'a' stands twice in the first line"),
        ("score,label\n0.5,1\nhigh,0\n", SCORED, "rows.csv: column 'score', row 2: 'high' is no number"),
        (
            "score,label\n0.5,1\n1.5,0\n",
            SCORED,
            "rows.csv: column 'score', row 2: 1.5 is no probability: a binary task has scores from 0 to 1, "
            "--task ranking takes any",
        ),
        (
            "score,label\n0.5,1\n0.1,0\n0.1,2\n",
            SCORED,
            "rows.csv: column 'label' has more than two values ('0', '1', '2'), and a binary task has two: "
            "give --task multiclass or regression, or name another --label",
        ),
        (
            "score,label\n0.5,good\n0.1,bad\n",
            SCORED,
            "rows.csv: column 'label' has 'bad', 'good', never '1': give --positive good",
        ),
        ("score,label\n0.5,\n0.1,\n", SCORED, "rows.csv: column 'label' has no label in 2 rows"),
        (
            "score,label\n,1\n,0\n",
            SCORED,
            "rows.csv: no row has both a label ('label') and a prediction ('score')",
        ),
        (b"a\n\xe9\n", (), "rows.csv: is no UTF-8 after line 1: save the file as UTF-8"),
        (b"\xe9,b\n1,2\n", (), "rows.csv: byte 0 is no UTF-8: save the file as UTF-8"),
        (b"a\0b,c\n1,2\n", (), "rows.csv: is neither CSV, Parquet nor a recording (CloudEvents in JSON lines)"),
        ('{"a": 1}\n', (), "rows.csv:1: is no CloudEvent in JSON: Object missing required field `id`"),
        ("a,b\n1," + "x" * 200_000 + "\n", (), "rows.csv:2: field larger than field limit (131072)"),
        ("a\n1\n", ("--as", "b"), "--as b: write it like OUTPUT=COLUMN"),
        ("a\n1\n", ("--label", "a"), "--label alone measures nothing: give --score or --prediction too"),
        ("a\n1\n", ("--features", "none"), "rows.csv: no column is asked for: name a score or features"),
        (
            "a" * 200 + "\n1\n",
            (),
            "rows.csv: makes no baseline: features: expected str of length <= 128 in a key",
        ),
        (
            ",".join(f"c{i}" for i in range(201)) + "\n" + ",".join("1" * 201) + "\n",
            (),
            "rows.csv: 201 columns are over 200 features: name those that matter",
        ),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(
    content: str | bytes, options: Sequence[str], line: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    found = refused(text(tmp_path / "rows.csv", content), *options)
    assert found == line


def test_files_that_cannot_be_read(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert refused(tmp_path / "rows.csv") == "rows.csv: cannot be read: No such file or directory"
    assert refused(tmp_path) == f"{tmp_path}: has no file with anything in it"
    assert refused(Path("/dev/null")) == "/dev/null: is read twice, so it has to be a file"
    whole = as_parquet(tmp_path / "rows.pq", drawn()).read_bytes()
    cut = text(tmp_path / "cut.pq", whole[: len(whole) // 2])
    assert refused(cut).startswith("cut.pq: is no Parquet that can be read: ")
    # Its footer is whole, its pages are not.
    torn = text(tmp_path / "torn.pq", whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    assert refused(torn).startswith("torn.pq: cannot be read: ")


def test_data_are_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = text(tmp_path / "rows.csv", "a\n1\n2\n")
    code, out, err = said(capsys, "baseline", "build", str(data), "-o", str(tmp_path / "./rows.csv"), *IDENTITY)
    assert (code, out) == (2, "")
    assert err == f"{data}: is the data itself: give --output another name\n"
    assert data.read_text() == "a\n1\n2\n"


def test_a_target_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = text(tmp_path / "rows.csv", "a\n1\n2\n")
    target = tmp_path / "none/made.json"
    code, out, err = said(capsys, "baseline", "build", str(data), "-o", str(target), *IDENTITY)
    assert (code, out, err) == (2, "", f"{target}: cannot be written: No such file or directory\n")


def test_parquet_without_its_reader(
    tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_parquet(tmp_path / "rows.pq", drawn())
    monkeypatch.setitem(sys.modules, "arro3.io", None)
    wanted = "rows.pq: reading Parquet needs arro3: pip install 'coalmine[parquet]', or write the data as CSV"
    assert refused(path) == wanted


@pytest.mark.parametrize("write", [as_csv, as_parquet])
def test_of_several_files_the_one_with_the_wrong_row_is_named(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = [[0.5] * 9000, [0.5] * 11, [0.5, 0.5, 1.5, 0.5]]
    paths = [
        write(tmp_path / f"{name}.rows", {"score": values, "label": [1] * len(values)})
        for name, values in zip("abc", scores, strict=True)
    ]
    target = tmp_path / "never.json"
    code, out, err = said(capsys, "baseline", "build", *map(str, paths), "-o", str(target), *IDENTITY, *SCORED)
    assert (code, out, target.exists()) == (2, "", False)
    assert err.startswith(f"{paths[2]}: column 'score', row 3: 1.5 is no probability: ")
