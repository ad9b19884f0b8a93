"""Durations and JSON: what is stored reads back as the same."""

from __future__ import annotations

import math

import msgspec
import pytest
from tests.manifests import good

from coalmine_operator.api.codec import from_json, spec_from_json, status_from_json, to_builtins, to_json
from coalmine_operator.api.decode import Invalid, decode
from coalmine_operator.api.duration import Duration
from coalmine_operator.api.status import Status, Verdict
from coalmine_operator.engine.model import RevisionRecord


@pytest.mark.parametrize(
    ("text", "seconds", "spelled"),
    [
        ("250ms", 0.25, "250ms"),
        ("15s", 15, "15s"),
        ("1h30m", 5400, "1h30m"),
        ("90m", 5400, "1h30m"),
        ("7d", 604800, "7d"),
        ("1.5h", 5400, "1h30m"),
        ("0s", 0, "0s"),
        ("12.345s", 12.345, "12s"),
    ],
)
def test_durations(text: str, seconds: float, spelled: str) -> None:
    duration = Duration.parse(text)
    assert duration == seconds
    assert str(duration) == spelled


@pytest.mark.parametrize(
    "text", ["", "5", "5 m", "m", "-1s", "1h 30m", "1.s", "1e3s", "s5", "1y", "5S", "٣s", "1" * 65 + "s"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration: write it like"):
        Duration.parse(text)


def test_a_duration_is_bounded() -> None:
    with pytest.raises(ValueError, match="is too long: at most 3650d"):
        Duration.parse("9" * 60 + "d")


def test_spec_reads_back() -> None:
    spec = decode(good()).spec
    assert spec_from_json(to_json(spec)) == spec


def test_revision_record_reads_back() -> None:
    spec = decode(good()).spec
    record = RevisionRecord(name="fraud-1", version="1", template=spec.template, model=spec.model, created_at=1.5)
    assert from_json(to_json(record), RevisionRecord) == record


def test_status_with_numbers_that_json_lacks_reads_back() -> None:
    verdict = Verdict(metric="errors", verdict="Fail", statistic=math.inf, evidence={"psi": math.nan, "n": -math.inf})
    (stored,) = status_from_json(to_json(Status(verdicts=(verdict,)))).verdicts
    assert stored.statistic > 1e300
    assert stored.evidence == {"psi": 0.0, "n": -stored.statistic}


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "Status: Input data was truncated"),
        (b'{"phase": 5}', "Status: Expected `str`, got `int` - at `$.phase`"),
        (b"[" * 100_000, None),
        (b"\xff", None),
    ],
)
def test_a_stored_status_that_is_broken_is_one_line(data: bytes, line: str | None) -> None:
    with pytest.raises(Invalid) as caught:
        status_from_json(data)
    assert "\n" not in str(caught.value)
    assert line is None or str(caught.value) == line


def test_a_stored_duration_that_is_broken_is_one_line() -> None:
    raw = to_builtins(decode(good()).spec)
    raw["analysis"]["interval"] = "soon"
    with pytest.raises(Invalid) as caught:
        spec_from_json(msgspec.json.encode(raw))
    assert str(caught.value) == 'ModelDeploymentSpec: Expected seconds, got "soon" - at `$.analysis.interval`'
