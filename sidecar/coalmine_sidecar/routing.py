"""Which revision a request goes to. Pure: no clock, no I/O, and chance comes in as an argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Protocol

from .contract import REASONS, Affinity, Match, Routing

WEIGHT: Final = REASONS.index("weight")
AFFINITY: Final = REASONS.index("affinity")
MATCH: Final = REASONS.index("match")

#: Value of a request header by its lower-case name; None where it is absent.
Lookup = Callable[[bytes], bytes | None]
#: Whether a revision can be reached at all: it has an endpoint, or it is this pod's own.
Reachable = Callable[[str], bool]


class Shuffler(Protocol):
    """The one thing asked of a source of chance: random.Random has it."""

    def shuffle(self, x: list[str], /) -> None: ...


class Deck:
    """Draws names so that each 100 draws in a row from a fresh deck hold exactly `weight` of each name.

    Exact like a round robin, yet unpredictable inside a deck: a fixed order would hand a client that comes in a
    period of its own (a probe, every tenth row of a batch) to the same revision each time.
    """

    def __init__(self, weights: Sequence[tuple[str, int]], rng: Shuffler) -> None:
        self.weights = tuple((name, weight) for name, weight in weights if weight)
        self._cards = [name for name, weight in self.weights for _ in range(weight)]
        self._rng = rng
        self._left: list[str] = []

    def draw(self) -> str:
        if not self._left:
            self._left = self._cards.copy()
            self._rng.shuffle(self._left)
        return self._left.pop()


class Ring:
    """Maps keys to names: the canary owns [0, weight) of 100, the others what follows, in the file's order.

    A key's place is fixed by `salt`, so while the canary grows a key only ever moves towards it.
    """

    def __init__(self, shares: Sequence[tuple[str, int]], salt: str) -> None:
        self._salt = salt.encode()
        self._bounds: list[tuple[float, str]] = []
        total = 0
        for name, weight in shares:
            if weight:
                total += weight
                self._bounds.append((total, name))

    def place(self, key: bytes) -> float:
        """Where a key stands, in [0, 100). The length before the salt keeps (salt, key) pairs apart."""
        digest = blake2b(len(self._salt).to_bytes(4, "big") + self._salt + key, digest_size=8).digest()
        # 53 bits: all that a float holds, so that the quotient stays below 1.
        return (int.from_bytes(digest, "big") >> 11) / (1 << 53) * 100

    def owner(self, key: bytes) -> str:
        place = self.place(key)
        for bound, name in self._bounds:
            if place < bound:
                return name
        return self._bounds[-1][1]


class Chooser:
    """The choices of one routing file.

    `previous` is the chooser of the file before: where the weights are the same its deck goes on, so that a file
    that changes often (endpoints come and go) does not blur the shares.
    """

    def __init__(self, routing: Routing, rng: Shuffler, previous: Chooser | None = None) -> None:
        weights = [(revision.name, revision.weight) for revision in routing.revisions]
        canary_first = sorted(routing.revisions, key=lambda revision: revision.track != "canary")
        self._deck = Deck(weights, rng)
        if previous is not None and previous._deck.weights == self._deck.weights:
            self._deck = previous._deck
        self._matches = tuple(_Rule(match) for match in routing.match)
        self._key = _key_reader(routing.affinity)
        self._ring = Ring(
            [(revision.name, revision.weight) for revision in canary_first],
            routing.affinity.salt if routing.affinity else "",
        )
        #: No request header has a say: `draw` is all there is to call.
        self.by_weight_only = not self._matches and self._key is None
        self.draw = self._deck.draw

    def choose(self, lookup: Lookup, reachable: Reachable) -> tuple[str, int]:
        """The revision of a request and the reason, an index into contract.REASONS.

        A match whose revision can't be reached is passed over: its users are asked for by name, not at any price.
        """
        for rule in self._matches:
            if rule.holds(lookup) and reachable(rule.revision):
                return rule.revision, MATCH
        if self._key is not None:
            key = self._key(lookup)
            if key:
                return self._ring.owner(key), AFFINITY
        return self._deck.draw(), WEIGHT


class _Rule:
    def __init__(self, match: Match) -> None:
        self.revision = match.revision
        self._headers = tuple((h.name.lower().encode(), h.value.encode()) for h in match.headers)

    def holds(self, lookup: Lookup) -> bool:
        return all(lookup(name) == value for name, value in self._headers)


def _key_reader(affinity: Affinity | None) -> Callable[[Lookup], bytes | None] | None:
    if affinity is None:
        return None
    if affinity.header is not None:
        header = affinity.header.lower().encode()
        return lambda lookup: lookup(header)
    cookie = (affinity.cookie or "").encode()
    return lambda lookup: cookie_value(lookup(b"cookie"), cookie)


def cookie_value(header: bytes | None, name: bytes) -> bytes | None:
    """The value of a cookie in a Cookie header (RFC 6265, section 4.2); the first one where a name stands twice."""
    for pair in (header or b"").split(b";"):
        key, equals, value = pair.strip(b" \t").partition(b"=")
        if equals and key == name:
            return value.strip(b'"')
    return None
