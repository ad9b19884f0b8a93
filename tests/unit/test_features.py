"""Features in frozen bins, sums about the baseline's mean, and the budget of series."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine_sidecar.monitoring import (
    MAX_GROUPS,
    Baseline,
    Bins,
    Feature,
    Feedback,
    Monitoring,
    ScoreBins,
    Slice,
    category,
)
from coalmine_sidecar.protocols import Value
from coalmine_sidecar.telemetry.features import FeatureCounter
from coalmine_sidecar.telemetry.moments import Moments
from coalmine_sidecar.telemetry.watched import Watched

AGE = Feature(name="age")
STATE = Feature(name="state", type="categorical")
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=80), st.just(10**400), st.just(-(10**400))
)


def numeric(edges: tuple[float, ...] = (20.0, 40.0), center: float = 30.0) -> FeatureCounter:
    return FeatureCounter(AGE, Bins(edges=edges, center=center))


def test_edges_are_the_lower_ends_of_their_bins() -> None:
    counter = numeric()
    for value in (19.9, 20.0, 39.9, 40, 1e12, -1e12):
        counter.add(value)
    assert counter.bins == [2, 2, 2]


def test_what_is_no_number_is_told_apart() -> None:
    counter = numeric()
    for value in (None, math.nan, math.inf, "41", True, 10**400, 1e308):
        counter.add(value)
    assert (counter.missing, counter.nonfinite, counter.unseen) == (5, 4, 1)
    assert counter.bins == [1, 0, 0]  # true is 1
    assert counter.values == 7


def test_categories_of_the_baseline_and_others() -> None:
    counter = FeatureCounter(STATE, Bins(categories=("CA", "1")))
    for value in ("CA", 1, 1.0, "1", True, "TX", None, 1.5, math.nan):
        counter.add(value)
    assert counter.bins == [1, 3]
    assert (counter.unseen, counter.missing, counter.nonfinite) == (3, 2, 1)


def test_without_a_baseline_categories_get_places_as_they_come_and_not_for_ever() -> None:
    counter = FeatureCounter(STATE, None)
    for number in range(1000):
        counter.add(f"state {number}")
    assert counter.categories == [f"state {number}" for number in range(MAX_GROUPS)]
    assert counter.unseen == 1000 - MAX_GROUPS
    assert len(counter.bins) + 4 <= counter.size


def test_a_number_without_a_baseline_has_no_bins() -> None:
    counter = FeatureCounter(AGE, None)
    counter.add_all([1.0] * 20)
    assert (counter.bins, counter.values, counter.moments) == ([], 20, None)


@given(st.lists(VALUES, max_size=60), st.sampled_from([AGE, STATE]), st.booleans())
def test_every_row_is_counted_once_however_they_come(values: list[Value], feature: Feature, known: bool) -> None:
    bins = Bins(edges=(0.0, 1.0, 5.0), center=1.0) if feature is AGE else Bins(categories=("", "1", "true"))
    one, many = (FeatureCounter(feature, bins if known else None) for _ in range(2))
    for value in values:
        one.add(value)
    many.add_all(values)
    assert one.counts() == many.counts()
    assert one.values == many.values == len(values)
    if known or feature is STATE:
        assert sum(one.bins) + one.missing + one.unseen == len(values)


@given(st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=40))
def test_many_floats_are_counted_as_one_by_one(values: list[float]) -> None:
    one, many = numeric(), numeric()
    for value in values:
        one.add(value)
    many.add_all(values)
    assert one.bins == many.bins
    assert one.moments is not None
    assert many.moments is not None
    assert (one.moments.above, one.moments.below) == (many.moments.above, many.moments.below)


#: NIST's Statistical Reference Datasets, Univariate: NumAcc1 to 4, of 3 and 1001 values; mean and deviation certified.
NUMACC = {
    1: ([10000001.0, 10000003.0, 10000002.0], 10000002.0, 1.0),
    2: ([1.2, *[1.1, 1.3] * 500], 1.2, 0.1),
    3: ([1000000.2, *[1000000.1, 1000000.3] * 500], 1000000.2, 0.1),
    4: ([10000000.2, *[10000000.1, 10000000.3] * 500], 10000000.2, 0.1),
}


def digits(found: float, certified: float) -> float:
    """NIST's measure: how many digits agree (log relative error), 15 for all of a double's."""
    return 15.0 if found == certified else min(-math.log10(abs(found - certified) / abs(certified)), 15.0)


@pytest.mark.parametrize(("number", "least"), [(1, 15.0), (2, 13.0), (3, 9.0), (4, 8.0)])
def test_mean_and_deviation_to_nists_certified_digits(number: int, least: float) -> None:
    """`least`: what the numbers' own rounding to doubles leaves (statistics.stdev, exact arithmetic, has no more)."""
    values, mean, deviation = NUMACC[number]
    n = len(values)
    # Two pods, and a baseline's mean that is near to today's but not it.
    pods = [Moments(mean + 0.3 * deviation) for _ in range(2)]
    for at, value in enumerate(values):
        pods[at % 2].add(value)
    above, below, squared = (math.fsum(getattr(pod, name) for pod in pods) for name in ("above", "below", "squared"))
    shift = (above - below) / n
    found = math.sqrt((squared - n * shift**2) / (n - 1))
    of_mean, of_deviation = digits(pods[0].center + shift, mean), digits(found, deviation)
    print(f"NumAcc{number}: mean {of_mean:.1f} digits, deviation {of_deviation:.1f}")
    assert of_mean >= 14.0
    assert of_deviation >= least
    assert digits(statistics.stdev(values), deviation) - of_deviation < 1.0


def test_a_huge_number_leaves_the_sums_as_they_are() -> None:
    counter = numeric()
    counter.add(1e200)
    counter.add(31.0)
    assert counter.moments is not None
    assert counter.moments.squared == 1.0


@pytest.mark.parametrize(
    ("value", "name"),
    [(1, "1"), (1.0, "1"), (1.5, "1.5"), (True, "true"), ("x", "x"), (2**53, "_other"), (10**400, "_other")],
)
def test_names_of_categories(value: float | bool | str, name: str) -> None:
    assert category(value) == name


BASELINE = Baseline(
    digest="sha256:1",
    features={f"f{n}": Bins(edges=(0.0, 1.0), center=0.5) for n in range(40)},
    score=ScoreBins(edges=(0.5,), calibration=(0.1, 0.9)),
)
MONITORING = Monitoring(
    features=tuple(Feature(name=f"f{n}") for n in range(40)), slices=(Slice(attribute="sex", header="x-sex"),)
)


def test_what_has_no_room_is_left_out_and_said() -> None:
    whole = Watched(MONITORING, BASELINE)
    assert whole.left_out == {"features": 0, "slices": 0}
    limited = Monitoring(features=MONITORING.features, slices=MONITORING.slices, max_series=whole.series - 100)
    short = Watched(limited, BASELINE)
    assert short.series <= limited.max_series
    assert short.left_out["features"] == 40 - len(short.features) > 0
    none = Watched(Monitoring(features=MONITORING.features, slices=MONITORING.slices, max_series=1), BASELINE)
    assert none.left_out == {"features": 40, "slices": 1}
    assert none.performance.slices.attributes == []


def test_counters_go_on_while_the_routing_file_asks_the_same() -> None:
    rng = random.Random(1)
    one = Watched(MONITORING, BASELINE)
    one.features["f1"].add(rng.random())
    assert one.counts_as(Monitoring(features=MONITORING.features, slices=MONITORING.slices), BASELINE)
    assert not one.counts_as(MONITORING, None)
    assert not one.counts_as(Monitoring(features=MONITORING.features[:3], slices=MONITORING.slices), BASELINE)
    assert not one.counts_as(
        Monitoring(features=MONITORING.features, slices=MONITORING.slices, feedback=Feedback()), BASELINE
    )
