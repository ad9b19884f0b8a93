"""The baseline's file: what is written is read back, and what is wrong with one is said in a line."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import msgspec
import pytest

from coalmine_operator.api import baseline as files
from coalmine_operator.api.baseline import Baseline, Categorical, Figure, Numeric, Performance, Score
from coalmine_sidecar import monitoring

AGE = Numeric(edges=(18.0, 30.5), counts=(10, 60, 20), missing=5, unseen=5, mean=27.0, stddev=9.5, min=1.0, max=90.0)
CITY = Categorical(categories=("Bonn", "Ulm"), counts=(70, 25), missing=0, unseen=5)
SCORE = Score(
    threshold=0.5,
    positive="1",
    edges=(0.2, 0.5),
    calibration=(0.1, 0.3, 0.8),
    counts=(50, 30, 20),
    positives=(5, 9, 16),
)
FULL = Baseline(
    schema=1,
    model="fraud",
    version="v3",
    task="binary",
    rows=100,
    created_at="2026-11-22T16:00:00Z",
    source="rows.csv",
    features={"age": AGE, "city": CITY},
    outputs={"score": AGE},
    score=SCORE,
    performance=Performance(chunk_rows=50, metrics={"auc": Figure(value=0.8, mean=0.79, stddev=0.02)}),
)
CITY_WRITTEN = msgspec.to_builtins(CITY)


def changed(path: str, value: Any) -> bytes:
    """The file with one value replaced; `path` is dotted."""
    document = json.loads(files.encode_baseline(FULL))
    *way, last = path.split(".")
    place = document
    for key in way:
        place = place[key]
    place[last] = value
    return json.dumps(document).encode()


def test_what_is_written_is_read_back() -> None:
    data = files.encode_baseline(FULL)
    assert files.decode_baseline(data) == FULL
    assert files.encode_baseline(files.decode_baseline(data)) == data


def test_a_file_is_named_by_the_digest_of_its_bytes() -> None:
    data = files.encode_baseline(FULL)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert files.digest_of(data) == digest
    assert files.decode_baseline(data, digest=digest) == FULL
    with pytest.raises(ValueError, match=f"^baseline: the digest is sha256:[0-9a-f]{{64}}, not {digest}"):
        files.decode_baseline(data + b" ", digest=digest)


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("schema", 2, "schema: invalid enum value 2"),
        ("task", "binarry", "task: invalid enum value 'binarry'"),
        ("rows", -1, "rows: expected int >= 0"),
        ("rows", "many", "rows: expected int, got str"),
        ("features.age.counts", [1, "x", 3], "features.age.counts[1]: expected int, got str"),
        ("features.age.type", "number", "features.age.type: invalid value 'number'"),
        ("features.age.edges", [30.5, 18], "features.age.edges[1]: 18 after 30.5: edges ascend"),
        ("features.age.edges", [18, 18], "features.age.edges[1]: 18 after 18: edges ascend"),
        ("features.age.edges", [18], "features.age.counts: 3 for 2 bins"),
        ("features.age.edges", [], "features.age.edges: expected array of length >= 1"),
        ("features.city.categories", ["Bonn"], "features.city.counts: 2 for 1 categories"),
        ("features.city.categories", ["Bonn", "Bonn"], 'features.city.categories[1]: "Bonn" stands twice'),
        (
            "features.city.categories",
            ["Bonn", "missing"],
            'features.city.categories[1]: "missing" is the name of another bin',
        ),
        ("score.calibration", [0.1, 0.3], "score.calibration: 2 for 3 bins"),
        ("score.calibration", [0.3, 0.1, 0.8], "score.calibration[1]: 0.1 after 0.3: a calibration never falls"),
        ("score.calibration", [0.1, 0.3, 1.8], "score.calibration[2]: expected float <= 1.0"),
        ("score.positives", [5, 31, 16], "score.positives[1]: 31 of 30 rows"),
        ("score.edges", [0.5, 0.2], "score.edges[1]: 0.2 after 0.5: edges ascend"),
        ("performance.metrics.auc", {"value": "good"}, "performance.metrics.auc.value: expected float, got str"),
        ("outputs.score", 7, "outputs.score: expected object, got int"),
        ("rows", 0, "rows: 0: a baseline is made of one row at least"),
        ("rows", 17, "features.age: counts, missing and unseen sum to 100, and rows is 17"),
        ("rows", 10**30, f"rows: {10**30} is over {2**53}"),
        ("model", "fraud\nrules", 'model: "fraud\\nrules" has a control character in it'),
        ("source", "a\u2028b", 'source: "a\\u2028b" has a control character in it'),
        ("createdAt", "never", 'createdAt: "never" is no time of RFC 3339, such as 2026-11-22T16:00:00Z'),
        (
            "createdAt",
            "2026-13-22T16:00:00Z",
            'createdAt: "2026-13-22T16:00:00Z" is no time of RFC 3339, such as 2026-11-22T16:00:00Z',
        ),
        ("features", {"a\nb": CITY_WRITTEN}, 'features: "a\\nb" has a control character in it'),
        (
            "features.city.categories",
            ["Bonn", "Ulm\x00"],
            'features.city.categories[1]: "Ulm\\u0000" has a control character in it',
        ),
        ("features.city.counts", [10**30, 1], f"features.city.counts[0]: {10**30} is over {2**53}"),
        ("features.city.counts", [0, 0], "features.city.counts: all are 0: nothing can be compared with it"),
        ("features.age.missing", 6, "features.age: counts, missing and unseen sum to 101, and rows is 100"),
        ("features.age.unseen", 2**53 + 2, f"features.age.unseen: {2**53 + 2} is over {2**53}"),
        ("features.age.min", 91.0, "features.age.min: 91 is over max, 90"),
        ("features.age.max", 1e300, "features.age.max: 1e+300: numbers of a column are under 1e+150"),
        ("features.age.mean", 1e300, "features.age.mean: 1e+300 is not between min, 1, and max, 90"),
        ("features.age.stddev", 90.0, "features.age.stddev: 90 is over max - min, 89"),
        ("score.counts", [500, 30, 20], "score.counts: sum to 550, and rows is 100"),
        ("score.counts", [0, 0, 0], "score.counts: all are 0: nothing can be compared with it"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(path: str, value: Any, line: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - its whole text is looked at
        files.decode_baseline(changed(path, value))
    assert str(refused.value) == line


@pytest.mark.parametrize("time", ["", "2026-11-22T16:00:00.123+05:30", "2026-11-22t16:00:00z"])
def test_any_time_of_rfc_3339_is_taken(time: str) -> None:
    assert files.decode_baseline(changed("createdAt", time)).created_at == time


def test_a_constant_column_may_be_rounded() -> None:
    constant = msgspec.structs.replace(AGE, mean=0.1 + 0.2, min=0.3, max=0.3, stddev=1e-17)
    baseline = msgspec.structs.replace(FULL, features={"x": constant})
    assert files.decode_baseline(files.encode_baseline(baseline)) == baseline


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"nonsense", b'{"schema": NaN}'])
def test_no_json_is_said_in_one_line(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^baseline: is no JSON: [^\n]+$"):
        files.decode_baseline(data)


def test_a_file_that_is_none_is_not_parsed() -> None:
    with pytest.raises(ValueError, match=r"^baseline: 8388609 bytes, and a baseline has at most 8388608$"):
        files.decode_baseline(b" " * (files.MAX_BYTES + 1))


def test_a_sidecar_takes_the_bins() -> None:
    found = files.for_sidecar(FULL, "sha256:ab")
    assert found.digest == "sha256:ab"
    assert found.features["age"] == monitoring.Bins(edges=(18.0, 30.5), center=27.0)
    assert found.features["city"] == monitoring.Bins(categories=("Bonn", "Ulm"))
    assert found.outputs["score"].edges == (18.0, 30.5)
    assert found.score == monitoring.ScoreBins(edges=(0.2, 0.5), calibration=(0.1, 0.3, 0.8))
    whole = monitoring.Monitoring(baselines={"r": found})
    assert list(monitoring.problems(whole)) == []
    assert msgspec.json.decode(msgspec.json.encode(whole), type=monitoring.Monitoring) == whole


def test_without_a_score_a_sidecar_keeps_its_own_bins() -> None:
    bare = msgspec.structs.replace(FULL, score=None)
    assert files.for_sidecar(bare, "d").score == monitoring.ScoreBins()


def test_frequencies_are_smoothed_and_sum_to_one() -> None:
    assert files.ratios(AGE) == pytest.approx(
        {
            "(-Inf,18.0)": 10.5 / 102.5,
            "[18.0,30.5)": 60.5 / 102.5,
            "[30.5,+Inf)": 20.5 / 102.5,
            "missing": 5.5 / 102.5,
            "unseen": 5.5 / 102.5,
        }
    )
    assert files.ratios(CITY) == pytest.approx(
        {"Bonn": 70.5 / 102, "Ulm": 25.5 / 102, "missing": 0.5 / 102, "unseen": 5.5 / 102}
    )
    for column in (AGE, CITY):
        assert math.fsum(files.ratios(column).values()) == pytest.approx(1)


def test_shares_up_to_a_bin_are_of_the_numbers_alone() -> None:
    assert files.upto(AGE) == pytest.approx({"(-Inf,18.0)": 1 / 9, "[18.0,30.5)": 7 / 9, "[30.5,+Inf)": 1})


def test_only_inner_bins_have_a_width() -> None:
    assert files.widths(AGE) == {"[18.0,30.5)": 12.5}
    assert files.widths(msgspec.structs.replace(AGE, edges=(18.0,), counts=(1, 2))) == {}
