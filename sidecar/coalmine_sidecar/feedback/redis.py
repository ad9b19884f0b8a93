"""Predictions in Redis: labels find them from any pod, days later, and after every restart.

A prediction is one key (`PREFIX p:ID`, MessagePack), what was said of it a hash beside it (`PREFIX l:ID:AT`): a field
for each row's label and each outcome, set once (HSETNX), so that of several pods exactly one counts it. Both expire.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from math import ceil
from typing import Final, NamedTuple, TypeVar, cast

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .counts import FeedbackCounts
from .memory import MAX_OUTCOMES
from .predicted import Predicted
from .store import Claim, Item

#: Predictions that wait to be written, and how many are written at a time.
MAX_QUEUED: Final = 10_000
_BATCH: Final = 500
#: Seconds: of a connection or an answer, and between tries while Redis is away.
_TIMEOUT: Final = 1.0
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
#: Keys stay for so much longer than `ttl`: a label that comes then is known to be late.
_LATE: Final = 0.1
#: Before a value in the hash stands who set it: a claim sent again after a broken connection knows its own.
_CLAIMANT: Final = 6

_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
#: A text leads from another id to the prediction's own.
_decoder: Final[msgspec.msgpack.Decoder[Predicted | str]] = msgspec.msgpack.Decoder(Predicted | str)

T = TypeVar("T")


class _Wanted:
    """A claim: the hash's fields that it wants to set, and what stands before their values."""

    __slots__ = ("claimant", "fields", "item", "predicted")

    def __init__(self, item: Item, predicted: Predicted, claimant: bytes) -> None:
        self.item = item
        self.predicted = predicted
        self.claimant = claimant
        self.fields: dict[str, bytes] = {}
        if item.outcome:
            self.fields[f"o:{item.outcome}"] = repr(item.value).encode()
        for row, truth in enumerate(item.truths):
            if truth is not None:
                self.fields[str(row)] = truth.encode()


class _Said(NamedTuple):
    """The values of a claim's fields as they are now, and whether the hash has too many of them."""

    values: list[bytes | None]
    beyond: bool


class RedisStore:
    """`url`: redis://HOST:PORT/DB; `prefix`: of all keys; `ttl`: seconds; `queue`: predictions that wait to be written.

    Raises ValueError for a URL that is none. `close` ends it.
    """

    def __init__(
        self, url: str, counts: FeedbackCounts, *, password: str = "", ttl: float, prefix: str, queue: int = MAX_QUEUED
    ) -> None:
        self._counts = counts
        self._ttl = ttl
        self._expires = ceil(ttl * (1 + _LATE))
        self._prefix = prefix
        self._client = Redis.from_url(
            url,
            password=password or None,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            # Tries are ours: a claim sent again has to be known for the same.
            retry=Retry(NoBackoff(), 0),
            # More than there are posts at a time.
            max_connections=32,
        )
        self._queue: deque[tuple[str, bytes, str, int]] = deque()
        self._max = queue
        self._rows = 0
        self._writer: asyncio.Task[None] | None = None
        self._pause = 0.0
        self._away_until = 0.0

    @property
    def pending(self) -> int:
        return self._rows

    def remember(self, predicted: Predicted, other: str = "") -> None:
        if not predicted.rows:
            return
        if len(self._queue) >= self._max:
            self._counts.lost["queue"] += predicted.rows
            return
        self._queue.append((predicted.id, _encode(predicted), other, predicted.rows))
        self._rows += predicted.rows
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name="feedback to Redis")

    def sweep(self, now: float) -> None:
        """Nothing: Redis does."""

    async def close(self) -> None:
        """Write what is queued, as far as Redis takes it at once, and let go of the connections."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        if self._queue:
            await self._try(partial(self._write, list(self._queue)))
        await self._client.aclose()

    async def _write_all(self) -> None:
        """Until nothing is queued."""
        try:
            while self._queue:
                if (away := self._away_until - asyncio.get_running_loop().time()) > 0:
                    await asyncio.sleep(away)
                batch = list(islice(self._queue, _BATCH))
                # It stays in the queue until Redis has it.
                if await self._try(partial(self._write, batch)) is not None:
                    for _ in batch:
                        self._rows -= self._queue.popleft()[3]
        finally:
            self._writer = None

    async def claim(self, items: Sequence[Item], now: float) -> list[Claim]:
        found = await self._try(partial(self._find, [item.id for item in items]), again=True)
        if found is None:
            return [_failed(item) for item in items]
        claims: list[Claim | None] = [
            _refusal(item, it, now - self._ttl) for item, it in zip(items, found, strict=True)
        ]
        asked = [(i, items[i], it) for i, it in enumerate(found) if claims[i] is None and isinstance(it, Predicted)]
        if asked:
            nonce = secrets.token_bytes(_CLAIMANT - 2)
            wanted = [_Wanted(item, it, nonce + i.to_bytes(2, "big")) for i, item, it in asked]
            said = await self._try(partial(self._claim, wanted), again=True)
            for at, (i, item, _) in enumerate(asked):
                claims[i] = _failed(item) if said is None else _claim(wanted[at], said[at])
        return [claim or _failed(item) for claim, item in zip(claims, items, strict=True)]

    async def known(self, ids: Sequence[str], now: float) -> list[bool]:
        found = await self._try(partial(self._find, ids), again=True)
        return [it is not None for it in found] if found is not None else [False for _ in ids]

    async def _write(self, batch: Sequence[tuple[str, bytes, str, int]]) -> bool:
        pipe = self._client.pipeline(transaction=False)
        for name, encoded, other, _ in batch:
            pipe.set(f"{self._prefix}p:{name}", encoded, ex=self._expires)
            if other:
                pipe.set(f"{self._prefix}p:{other}", _encode(name), ex=self._expires)
        await pipe.execute()
        return True

    async def _find(self, ids: Sequence[str]) -> list[Predicted | Exception | None]:
        found = await self._get(ids)
        others = {i: it for i, it in enumerate(found) if isinstance(it, str)}
        behind = dict(zip(others, await self._get(list(others.values())), strict=True)) if others else {}
        return [_last(behind.get(i) if isinstance(it, str) else it) for i, it in enumerate(found)]

    async def _get(self, ids: Sequence[str]) -> list[Predicted | str | Exception | None]:
        if not ids:
            return []
        values = await self._client.mget([f"{self._prefix}p:{one}" for one in ids])
        return [None if value is None else _read(cast(bytes, value)) for value in values]

    async def _claim(self, wanted: Sequence[_Wanted]) -> list[_Said]:
        pipe = self._client.pipeline(transaction=False)
        for one in wanted:
            key = self._key(one.predicted)
            for field, text in one.fields.items():
                pipe.hsetnx(key, field, one.claimant + text)
            pipe.hmget(key, list(one.fields))
            pipe.hlen(key)
            pipe.expire(key, self._expires)
        answers = iter(await pipe.execute())
        said = []
        for one in wanted:
            values, size, _ = list(islice(answers, len(one.fields) + 3))[-3:]
            said.append(_Said(values, size > one.predicted.rows + MAX_OUTCOMES if one.item.outcome else False))
        # Whoever sends outcomes under ever new names fills no memory.
        beyond = [one for one, it in zip(wanted, said, strict=True) if it.beyond]
        if beyond:
            pipe = self._client.pipeline(transaction=False)
            for one in beyond:
                pipe.hdel(self._key(one.predicted), *one.fields)
            await pipe.execute()
        return said

    def _key(self, predicted: Predicted) -> str:
        """Of the labels. A later prediction under the same id has labels of its own."""
        return f"{self._prefix}l:{predicted.id}:{predicted.at!r}"

    async def _try(self, ask: Callable[[], Awaitable[T]], *, again: bool = False) -> T | None:
        """What Redis says; None while it is away. `again`: at once, as the connection may just have been old."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            return None
        for left in (again, False):
            try:
                answer = await ask()
            except (RedisError, OSError, TimeoutError) as error:
                problem = error
                if not left:
                    break
            else:
                if self._pause:
                    _log.info("feedback: Redis answers again")
                self._pause = self._away_until = 0.0
                return answer
        if not self._pause:
            _log.warning("feedback: Redis does not answer: %s: %.200s", type(problem).__name__, problem)
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._away_until = loop.time() + self._pause
        return None


def _read(value: bytes) -> Predicted | str | Exception:
    try:
        it = _decoder.decode(value)
    except ValueError as error:
        return error
    if isinstance(it, Predicted) and len(it.scores) != len(it.labels):
        return ValueError("columns differ")
    return it


def _last(it: Predicted | str | Exception | None) -> Predicted | Exception | None:
    return ValueError("an id leads to an id that leads on") if isinstance(it, str) else it


def _failed(item: Item) -> Claim:
    return Claim(("store_error",) * item.given)


def _refusal(item: Item, it: Predicted | Exception | None, oldest: float) -> Claim | None:
    """Why nothing is to be claimed; None where something may be."""
    if it is None:
        return Claim(("unknown",) * item.given)
    if isinstance(it, Exception):
        return _failed(item)
    if it.at <= oldest:
        return Claim(("late",) * item.given)
    if not item.outcome and len(item.truths) != it.rows:
        return Claim(("mismatch",) * item.given)
    return None


def _claim(one: _Wanted, said: _Said) -> Claim:
    outcomes = []
    for text, value in zip(one.fields.values(), said.values, strict=True):
        if value is None:
            outcomes.append("store_error")
        elif value[:_CLAIMANT] == one.claimant:
            outcomes.append("too_many" if said.beyond else "joined")
        else:
            outcomes.append("duplicate" if value[_CLAIMANT:] == text else "contradictory")
    if "joined" not in outcomes:
        return Claim(tuple(outcomes))
    each = iter(outcomes)
    fresh = tuple(truth if truth is not None and next(each) == "joined" else None for truth in one.item.truths)
    return Claim(tuple(outcomes), one.predicted, fresh)
