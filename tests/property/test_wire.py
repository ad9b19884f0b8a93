"""A status on Kubernetes' wire: whatever the engine may remember comes back, times to the microsecond."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from coalmine_operator.api.problems import Invalid
from coalmine_operator.api.status import LastRollback, Quarantined, Retiring, Status, TrackStatus
from coalmine_operator.api.wire import from_wire, is_time, time_seconds, time_text, to_wire

STATUS = inspect.type_info(Status)
YEAR_2200 = 7_258_118_400.0

times = st.just(0.0) | st.integers(1, int(YEAR_2200 * 1e6)).map(lambda microseconds: microseconds / 1e6)
texts = st.text(max_size=8)
evidence = st.dictionaries(
    texts | st.sampled_from(["startedAt", "at", "lastTransitionTime"]),
    st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False, allow_infinity=False) | texts | st.lists(texts),
    max_size=3,
)


def values_of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Any value that the types allow."""
    match kind:
        case inspect.StructType():
            fields = {f.name: times if is_time(f) else values_of(f.type) for f in kind.fields}
            return st.builds(kind.cls, **fields)
        case inspect.VarTupleType():
            return st.lists(values_of(kind.item_type), max_size=2).map(tuple)
        case inspect.UnionType():
            return st.one_of(values_of(one) for one in kind.types)
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.DictType(value_type=inspect.AnyType()):
            return evidence
        case inspect.DictType():
            return st.dictionaries(texts, values_of(kind.value_type), max_size=2)
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(0, 1 << 53)
        case inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case inspect.StrType():
            return texts
    raise TypeError(f"a status holds a {kind}, and this test does not know it")


def stored(wire: dict[str, Any]) -> Any:
    """What Go's JSON makes of it: a float without a fraction is written like a whole number."""

    def go(value: Any) -> Any:
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            return int(value)
        if isinstance(value, dict):
            return {key: go(item) for key, item in value.items()}
        return [go(item) for item in value] if isinstance(value, list) else value

    return json.loads(json.dumps(go(wire)))


def numbers_at_times(value: Any, kind: inspect.Type = STATUS) -> Iterator[Any]:
    """What stands in the wire form where the types have a time."""
    match kind:
        case inspect.StructType():
            for field in kind.fields:
                if field.encode_name in value:
                    given_time = value[field.encode_name]
                    yield from [given_time] if is_time(field) else numbers_at_times(given_time, field.type)
        case inspect.VarTupleType():
            for item in value:
                yield from numbers_at_times(item, kind.item_type)
        case inspect.UnionType():
            yield from numbers_at_times(value, next(k for k in kind.types if not isinstance(k, inspect.NoneType)))


@settings(max_examples=30)
@given(values_of(STATUS))
def test_a_status_comes_back(status: Status) -> None:
    wire = to_wire(status)
    for text in numbers_at_times(wire):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    back = from_wire(stored(wire))
    assert back == status
    assert to_wire(back) == wire, "a status at rest would be written again"


@given(st.floats(allow_nan=False))
@example(253_402_300_799.999999)
@example(0.0000005)
def test_any_number_is_a_time_that_reads_back_to_the_same_text(seconds: float) -> None:
    text = time_text(seconds)
    assert time_text(time_seconds(text)) == text
    if 0 <= seconds <= YEAR_2200:
        assert abs(time_seconds(text) - seconds) <= 1e-6


def test_what_a_person_sees() -> None:
    status = Status(
        phase="Healthy",
        stable=TrackStatus(revision="fraud-aaaaaaaaaa", version="v1"),
        quarantined=(Quarantined(revision="fraud-bbbbbbbbbb", version="v2", reason="AlertFiring", at=1763632800.25),),
        last_rollback=LastRollback(
            source="b", target="a", source_version="v2", target_version="v1", reason="r", message="m", at=0.0
        ),
        retiring=(Retiring(revision="b", replicas=2),),
    )
    assert to_wire(status) == {
        "phase": "Healthy",
        "stable": {"revision": "fraud-aaaaaaaaaa", "version": "v1", "weight": 0, "ready": 0, "desired": 0},
        "quarantined": [
            {
                "revision": "fraud-bbbbbbbbbb",
                "version": "v2",
                "reason": "AlertFiring",
                "at": "2025-11-20T10:00:00.250000Z",
            }
        ],
        "lastRollback": {
            "source": "b",
            "target": "a",
            "sourceVersion": "v2",
            "targetVersion": "v1",
            "reason": "r",
            "message": "m",
        },
        "retiring": [{"revision": "b", "replicas": 2}],
    }
    assert from_wire(to_wire(status)) == status


@pytest.mark.parametrize("nothing", [None, {}, {"stable": None, "history": None, "somethingNewer": {"at": 5}}])
def test_nothing_is_a_new_status(nothing: Any) -> None:
    assert from_wire(nothing) == Status()
    assert to_wire(Status()) == {}


def test_every_zone_is_read() -> None:
    assert time_seconds("2025-11-20T10:00:00Z") == time_seconds("2025-11-20T12:00:00.000000+02:00") == 1763632800


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (5, "status: Expected `object`, got `int`"),
        ({"phase": "Fine"}, "status: Invalid enum value 'Fine' - at `$.phase`"),
        ({"stable": []}, "status: Expected `object | null`, got `array` - at `$.stable`"),
        (
            {"conditions": [{"type": "A", "status": "True", "reason": "R", "lastTransitionTime": 5}]},
            "status.conditions[0].lastTransitionTime: 5 is no time: write it like 1970-01-01T00:00:00.000000Z",
        ),
        (
            {"quarantined": [{"revision": "r", "version": "v", "reason": "R", "at": "2025-11-20T10:00:00"}]},
            'status.quarantined[0].at: "2025-11-20T10:00:00" is no time: write it like 1970-01-01T00:00:00.000000Z',
        ),
    ],
)
def test_what_is_no_status_is_named(raw: Any, line: str) -> None:
    with pytest.raises(Invalid) as caught:
        from_wire(raw)
    assert str(caught.value) == line


def test_every_float_of_a_status_is_a_time_or_a_statistic_that_is_known() -> None:
    """A new float has to be decided: by its name it goes over the wire as a time or as a number."""

    def floats(kind: inspect.Type) -> Iterator[tuple[str, bool]]:
        match kind:
            case inspect.StructType():
                for field in kind.fields:
                    if isinstance(field.type, inspect.FloatType):
                        yield field.name, is_time(field)
                    yield from floats(field.type)
            case inspect.VarTupleType():
                yield from floats(kind.item_type)
            case inspect.UnionType():
                for one in kind.types:
                    yield from floats(one)

    assert {name for name, time in floats(STATUS) if not time} == {"statistic", "threshold", "log_e"}
