"""The circuit breaker as a state machine, against a plain account of what happened."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from coalmine_sidecar.contract import CircuitBreaker
from coalmine_sidecar.relay.breaker import PARTS, Breaker

SETTINGS = st.builds(
    CircuitBreaker,
    consecutive_failures=st.integers(0, 6),
    success_rate=st.integers(0, 100),
    min_requests=st.integers(1, 10),
    window=st.sampled_from([0.5, 4.0, 30.0]),
    min_backoff=st.sampled_from([0.25, 1.0, 2.0]),
    max_backoff=st.sampled_from([1.0, 8.0]),
)
#: What happens, and how long after the last thing.
EVENTS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.01, 0.3, 1.0, 5.0, 50.0]), st.sampled_from(["ok", "bad", "ask"])), max_size=80
)


@given(SETTINGS, EVENTS, st.floats(0, 1e6))
def test_it_does_what_its_settings_say(settings, events, now):
    breaker = Breaker(settings)
    row, counted = 0, []
    retry_at, backoff = 0.0, settings.min_backoff
    for pause, event in events:
        now += pause
        before, opened = breaker.state, breaker.opened
        if event == "ask":
            ready = breaker.ready(now)
            assert breaker.admit(now) is ready, "asking whether it would is the same as asking"
            assert ready is (before == "closed" or now >= retry_at)
            if before != "closed" and ready:
                assert breaker.state == "half_open"
                assert not breaker.ready(now + 0.9 * backoff), "one probe a backoff"
                retry_at = now + backoff
            else:
                assert breaker.state == before
            continue
        (breaker.succeeded if event == "ok" else breaker.failed)(now)
        if before == "open":
            assert breaker.state == "open", "answers to requests from before change nothing"
        elif before == "half_open":
            if event == "ok":
                assert breaker.state == "closed"
                row, counted, backoff = 0, [], settings.min_backoff
            else:
                assert breaker.state == "open"
                backoff = max(settings.min_backoff, min(backoff * 2, settings.max_backoff))
                retry_at = now + backoff
        else:
            row = 0 if event == "ok" else row + 1
            counted.append((math.floor(now * PARTS / settings.window), event == "ok"))
            part = counted[-1][0]
            within = [ok for number, ok in counted if number > part - PARTS]
            too_many = 0 < settings.consecutive_failures <= row
            too_few = (
                settings.success_rate > 0
                and len(within) >= settings.min_requests
                and sum(within) * 100 < settings.success_rate * len(within)
            )
            assert (breaker.state == "open") is (event == "bad" and (too_many or too_few))
            if breaker.state == "open":
                retry_at = now + backoff
        assert breaker.opened == opened + (before == "closed" and breaker.state == "open")


@given(st.lists(st.booleans(), max_size=200))
def test_without_either_rule_it_never_opens(events):
    breaker = Breaker(CircuitBreaker(consecutive_failures=0, success_rate=0))
    for number, ok in enumerate(events):
        (breaker.succeeded if ok else breaker.failed)(float(number))
    assert breaker.state == "closed"


@given(st.integers(1, 40))
def test_a_revision_that_stays_down_is_asked_ever_less_and_never_not_at_all(hours):
    """Backoffs of 1, 2, 4, ... 60 s: about one probe a minute."""
    settings = CircuitBreaker(consecutive_failures=1)
    breaker = Breaker(settings)
    breaker.failed(0.0)
    probes = 0
    for second in range(1, hours * 3600):
        if breaker.admit(float(second)):
            probes += 1
            breaker.failed(float(second))
    assert hours * 60 - 1 <= probes <= hours * 60 + 6
    assert breaker.opened == 1
