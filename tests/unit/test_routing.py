"""Which revision a request goes to: properties over all weights."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coalmine_sidecar.contract import Affinity, HeaderMatch, Match, RevisionRoute, Routing
from coalmine_sidecar.routing import AFFINITY, MATCH, WEIGHT, Chooser, Deck, Ring, cookie_value

NAMES = ("stable", "canary", "third", "fourth")


@st.composite
def weights(draw: st.DrawFn) -> list[tuple[str, int]]:
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=3)))
    return list(zip(NAMES, (high - low for low, high in zip([0, *cuts], [*cuts, 100], strict=True)), strict=False))


def file(shares: list[tuple[str, int]], **more) -> Routing:
    revisions = tuple(
        RevisionRoute(name=name, version=name, track="canary" if name == "canary" else "stable", weight=weight)
        for name, weight in shares
    )
    return Routing(deployment="d", model="m", generation=1, revisions=revisions, **more)


def nothing(_: bytes) -> None:
    return None


def always(_: str) -> bool:
    return True


@given(weights(), st.integers(), st.integers(1, 5))
def test_each_hundred_of_a_deck_holds_exactly_the_weights(shares, seed, rounds):
    deck = Deck(shares, random.Random(seed))
    for _ in range(rounds):
        counts = Counter(deck.draw() for _ in range(100))
        assert counts == {name: weight for name, weight in shares if weight}


@given(weights(), st.integers(), st.integers(0, 99))
@settings(max_examples=30)
def test_ten_thousand_requests_are_within_a_point_wherever_one_starts_to_count(shares, seed, skipped):
    deck = Deck(shares, random.Random(seed))
    for _ in range(skipped):
        deck.draw()
    counts = Counter(deck.draw() for _ in range(10_000))
    for name, weight in shares:
        assert abs(counts[name] / 100 - weight) <= 1


def test_the_order_inside_a_deck_is_not_the_same_twice():
    deck = Deck([("a", 50), ("b", 50)], random.Random(1))
    first, second = ([deck.draw() for _ in range(100)] for _ in range(2))
    assert first != second


def test_a_client_with_a_period_sees_the_shares_too():
    deck = Deck([("a", 90), ("b", 10)], random.Random(2))
    draws = [deck.draw() for _ in range(100_000)]
    for period in (2, 5, 10, 20):
        share = Counter(draws[::period])["b"] / len(draws[::period])
        assert 0.08 < share < 0.12


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=50), st.text(max_size=20))
def test_a_key_only_ever_moves_towards_the_growing_canary(keys, salt):
    for key in keys:
        on_canary = False
        for weight in range(0, 101, 5):
            owner = Ring([("canary", weight), ("stable", 100 - weight)], salt).owner(key)
            assert owner == "canary" or not on_canary
            on_canary = owner == "canary"
        assert on_canary


@given(weights(), st.binary(min_size=1, max_size=40))
def test_every_key_has_an_owner_with_weight_and_keeps_it(shares, key):
    ring = Ring(shares, "salt")
    assert ring.owner(key) == Ring(shares, "salt").owner(key)
    assert dict(shares)[ring.owner(key)] > 0
    assert 0 <= ring.place(key) < 100


def test_keys_spread_by_weight_and_anew_with_another_salt():
    shares = [("canary", 10), ("stable", 90)]
    keys = [f"user-{i}".encode() for i in range(20_000)]
    first = {key for key in keys if Ring(shares, "r1").owner(key) == "canary"}
    second = {key for key in keys if Ring(shares, "r2").owner(key) == "canary"}
    assert 0.09 < len(first) / len(keys) < 0.11
    assert len(first & second) / len(first) < 0.15


@given(weights(), st.integers())
def test_without_a_key_the_deck_decides(shares, seed):
    chooser = Chooser(file(shares, affinity=Affinity(header="X-User")), random.Random(seed))
    assert not chooser.by_weight_only
    drawn = Counter(chooser.choose(nothing, always) for _ in range(100))
    assert drawn == {(name, WEIGHT): weight for name, weight in shares if weight}


def test_affinity_by_header_and_by_cookie_agree():
    shares = [("stable", 70), ("canary", 30)]
    by_header = Chooser(file(shares, affinity=Affinity(header="X-User", salt="s")), random.Random(0))
    by_cookie = Chooser(file(shares, affinity=Affinity(cookie="uid", salt="s")), random.Random(0))
    for i in range(200):
        key = str(i).encode()
        name, reason = by_header.choose({b"x-user": key}.get, always)
        assert reason == AFFINITY
        assert by_cookie.choose({b"cookie": b"a=b; uid=" + key + b"; c=d"}.get, always) == (name, AFFINITY)


def test_a_match_needs_all_its_headers_and_somebody_there():
    match = Match(
        revision="canary",
        headers=(HeaderMatch(name="X-Canary", value="always"), HeaderMatch(name="x-team", value="ml")),
    )
    chooser = Chooser(file([("stable", 100), ("canary", 0)], match=(match,)), random.Random(0))
    both = {b"x-canary": b"always", b"x-team": b"ml"}
    assert chooser.choose(both.get, always) == ("canary", MATCH)
    assert chooser.choose(both.get, lambda name: name != "canary") == ("stable", WEIGHT)
    for name in both:
        assert chooser.choose({k: v for k, v in both.items() if k != name}.get, always) == ("stable", WEIGHT)
        assert chooser.choose((both | {name: b"Always"}).get, always) == ("stable", WEIGHT)


@given(weights(), st.integers(), st.integers(1, 99))
def test_a_reload_that_leaves_the_weights_alone_goes_on_with_the_deck(shares, seed, at):
    rng = random.Random(seed)
    chooser = Chooser(file(shares), rng)
    drawn = [chooser.draw() for _ in range(at)]
    chooser = Chooser(msgspec.structs.replace(file(shares), generation=2), rng, chooser)
    drawn += [chooser.draw() for _ in range(100 - at)]
    assert Counter(drawn) == {name: weight for name, weight in shares if weight}


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"uid=1", b"1"),
        (b"a=2; uid=1", b"1"),
        (b"uid=1; uid=2", b"1"),
        (b'uid="1"', b"1"),
        (b"xuid=1", None),
        (b"uid", None),
        (b"uid=", b""),
        (b"a=uid=3;uid=4", b"4"),
        (b"", None),
        (None, None),
    ],
)
def test_cookies(header, value):
    assert cookie_value(header, b"uid") == value
