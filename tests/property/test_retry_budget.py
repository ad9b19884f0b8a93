"""The retry budget over any window, against a plain account of requests and retries."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from coalmine_sidecar.contract import RetryBudget
from coalmine_sidecar.relay.retries import PARTS, Budget

EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.05, 0.4, 1.0, 3.0, 40.0]), st.sampled_from(["request", "requests", "retry", "sample"])
    ),
    max_size=100,
)
SETTINGS = st.builds(
    RetryBudget,
    percent=st.integers(0, 100),
    min_per_second=st.sampled_from([0.0, 0.5, 10.0]),
    window=st.sampled_from([1.0, 10.0]),
)


@given(SETTINGS, EVENTS, st.floats(0, 1e6))
def test_never_more_than_it_says_and_never_less_where_it_is_sampled(settings, events, now):
    budget = Budget(settings, now)
    width = settings.window / PARTS
    requests, retries = [], []
    sampled = math.floor(now / width)
    for pause, event in events:
        # As the sweeper does: a look in every part.
        for part in range(sampled + 1, math.floor((now + pause) / width)):
            budget.sample((part + 0.5) * width)
        now += pause
        sampled = math.floor(now / width)
        if event == "retry":
            granted = budget.withdraw(now)
            recent = [when for when in retries if when > now - settings.window - width]
            floor = settings.min_per_second * settings.window
            most = floor + settings.percent / 100 * sum(when > now - settings.window - width for when in requests)
            least = floor + settings.percent / 100 * sum(when > now - settings.window + 2 * width for when in requests)
            if granted:
                retries.append(now)
                assert sum(when > now - settings.window + 2 * width for when in retries) <= most + 1e-6
            else:
                assert len(recent) + 1 > least
        elif event != "sample":
            count = 1 if event == "request" else 50
            budget.requests += count
            requests += [now] * count
        else:
            budget.sample(now)


@given(st.integers(1, 50), st.integers(1, 30))
def test_one_in_five_of_a_steady_stream(rate, seconds):
    """Every request breaks: with 20 % and no floor a fifth of them are sent again, from the first window on."""
    budget = Budget(RetryBudget(percent=20, min_per_second=0), 0.0)
    granted = 0
    for second in range(seconds):
        for number in range(rate):
            budget.requests += 1
            granted += budget.withdraw(second + number / rate)
    assert granted <= rate * seconds / 5
    if seconds <= 9:
        assert granted == rate * seconds // 5


def test_a_quiet_service_may_retry_as_well():
    budget = Budget(RetryBudget(), 0.0)
    budget.requests += 1
    assert [budget.withdraw(1.0) for _ in range(101)] == [True] * 100 + [False]
    assert budget.withdraw(12.0)


def test_none_at_all():
    budget = Budget(RetryBudget(percent=0, min_per_second=0), 0.0)
    budget.requests += 10_000
    assert not budget.withdraw(0.5)
