"""Predictions in a real Redis: labels find them from any pod, through restarts, and count once."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.relay.redis_server import PASSWORD, RedisServer, redis_server

from coalmine_sidecar.feedback.counts import FeedbackCounts
from coalmine_sidecar.feedback.joiner import HOLD, Joiner
from coalmine_sidecar.feedback.memory import MemoryStore
from coalmine_sidecar.feedback.predicted import Predicted
from coalmine_sidecar.feedback.redis import RedisStore
from coalmine_sidecar.feedback.result import Result
from coalmine_sidecar.monitoring import Feedback, Monitoring, ScoreBins
from coalmine_sidecar.telemetry.performance import PerformanceCounters

TTL = 3600.0


class Pod:
    """A joiner as in a pod, and what it counted."""

    def __init__(self, url: str, *, password: str = PASSWORD, ttl: float = TTL, queue: int = 10_000) -> None:
        self.counts = FeedbackCounts()
        self.performance = PerformanceCounters(Monitoring(feedback=Feedback()), ScoreBins(), 0.0)
        self.store = RedisStore(
            url, self.counts, password=password, ttl=ttl, prefix="coalmine:shop:fraud:", queue=queue
        )
        self.ahead = 0.0
        self.joiner = Joiner(
            self.store,
            lambda revision: self.performance if revision == "a" else None,
            task="binary",
            counts=self.counts,
            clock=lambda: time.time() + self.ahead,
        )

    async def predict(self, name: str, *scores: float, other: str = "", revision: str = "a") -> None:
        """Remembered, and written."""
        rows: list[float | None] = [*scores]
        self.joiner.remember(Predicted(name, revision, time.time(), rows, [None] * len(rows)), other)
        await self.written()

    async def written(self) -> None:
        for _ in range(1500):
            if not self.store.pending:
                return
            await asyncio.sleep(0.02)
        pytest.fail("not written after half a minute")

    async def label(self, *entries: dict[str, Any]) -> Result:
        return await self.joiner.feedback(json.dumps(entries).encode())

    @property
    def outcomes(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.counts.outcomes.items() if count}


StartPod = Callable[..., Pod]


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
async def start_pod() -> AsyncIterator[StartPod]:
    pods: list[Pod] = []

    def start(*args: Any, **kwargs: Any) -> Pod:
        pods.append(Pod(*args, **kwargs))
        return pods[-1]

    yield start
    for pod in pods:
        await pod.store.close()


async def test_a_label_finds_its_prediction_from_another_pod(redis: RedisServer, start_pod: StartPod) -> None:
    a, b = start_pod(redis.url), start_pod(redis.url)
    await a.predict("one", 0.9, 0.2)
    result = await b.label({"predictionId": "one", "labels": [1, 1]})
    assert (result.status, result.outcomes) == (202, {"joined": 2})
    assert b.performance.confusion == {("0", "0"): 0, ("0", "1"): 0, ("1", "0"): 1, ("1", "1"): 1}
    assert a.performance.labels == 0


async def test_two_pods_count_each_label_once(redis: RedisServer, start_pod: StartPod) -> None:
    """The same 300 labels at both pods at the same time, as senders do who try again."""
    pods = [start_pod(redis.url), start_pod(redis.url)]
    for i in range(300):
        pods[i % 2].joiner.remember(Predicted(f"p{i}", "a", time.time(), [0.7], [None]))
    for pod in pods:
        await pod.written()
    entries = [{"predictionId": f"p{i}", "label": i % 2} for i in range(300)]
    await asyncio.gather(*(pod.label(*entries[at : at + 30]) for at in range(0, 300, 30) for pod in pods))
    assert sum(pod.performance.labels for pod in pods) == 300
    assert sum((Counter(pod.outcomes) for pod in pods), Counter()) == {"joined": 300, "duplicate": 300}


async def test_a_batch_that_repeats_itself_counts_once(redis: RedisServer, start_pod: StartPod) -> None:
    pod = start_pod(redis.url)
    await pod.predict("one", 0.9)
    same = {"predictionId": "one", "label": 1}
    assert (await pod.label(same, same, same | {"label": 0})).outcomes == {
        "joined": 1,
        "duplicate": 1,
        "contradictory": 1,
    }
    assert pod.performance.labels == 1


async def test_joins_survive_a_restart_of_redis(redis: RedisServer, start_pod: StartPod) -> None:
    pod = start_pod(redis.url)
    await pod.predict("before", 0.9, 0.8)
    await pod.label({"predictionId": "before", "labels": [1, None]})
    await redis.stop()
    await redis.start()
    result = await pod.label({"predictionId": "before", "labels": [1, 0]})
    assert result.outcomes == {"duplicate": 1, "joined": 1}, "the connection was old: it is tried again at once"


async def test_redis_gone_is_counted_and_what_waits_is_written_when_it_is_back(
    redis: RedisServer, start_pod: StartPod, caplog: pytest.LogCaptureFixture
) -> None:
    pod = start_pod(redis.url, queue=5)
    await pod.predict("before", 0.9)
    await redis.stop()
    with caplog.at_level(logging.INFO):
        for i in range(8):
            pod.joiner.remember(Predicted(f"p{i}", "a", time.time(), [0.9], [None]))
        away = await pod.label({"predictionId": "before", "label": 1}, {"predictionId": "p0", "label": 1})
        again = await pod.label({"predictionId": "before", "label": 1})
        assert (away.status, away.outcomes, away.accepted) == (503, {"store_error": 2}, 0)
        assert (again.status, again.outcomes) == (503, {"store_error": 1})
        assert (pod.counts.lost["queue"], pod.store.pending) == (3, 5)
        await redis.start()
        await pod.written()
    back = await pod.label(*({"predictionId": name, "label": 1} for name in ("before", "p0", "p4")))
    assert (back.status, back.outcomes) == (202, {"joined": 3})
    told = [record.getMessage() for record in caplog.records]
    assert [text.split(":")[1].strip() for text in told] == ["Redis does not answer", "Redis answers again"]
    assert PASSWORD not in caplog.text


async def test_the_wrong_password_is_a_store_error(redis: RedisServer, start_pod: StartPod) -> None:
    pod = start_pod(redis.url, password="another-one")
    assert (await pod.label({"predictionId": "one", "label": 1})).outcomes == {"store_error": 1}


async def test_partial_labels_come_one_by_one(redis: RedisServer, start_pod: StartPod) -> None:
    a, b = start_pod(redis.url), start_pod(redis.url)
    await a.predict("one", 0.9, 0.2, 0.7)
    assert (await a.label({"predictionId": "one", "labels": [1, None, None]})).outcomes == {"joined": 1}
    assert (await b.label({"predictionId": "one", "labels": [0, 0, None]})).outcomes == {
        "contradictory": 1,
        "joined": 1,
    }
    assert (await a.label({"predictionId": "one", "labels": [1, 1]})).outcomes == {"mismatch": 2}
    assert a.performance.labels + b.performance.labels == 2


async def test_another_id_leads_to_the_same_prediction(redis: RedisServer, start_pod: StartPod) -> None:
    pod = start_pod(redis.url)
    await pod.predict("generated", 0.9, other="the-model-s")
    assert (await pod.label({"predictionId": "the-model-s", "label": 1})).outcomes == {"joined": 1}
    assert (await pod.label({"predictionId": "generated", "label": 1})).outcomes == {"duplicate": 1}


async def test_outcomes_of_a_prediction_are_bounded(redis: RedisServer, start_pod: StartPod) -> None:
    pod = start_pod(redis.url)
    await pod.predict("one", 0.9)
    for i in range(40):
        await pod.label({"predictionId": "one", "outcome": f"o{i}", "value": i})
    await pod.label({"predictionId": "one", "outcome": "o0", "value": 0})
    assert pod.outcomes["joined"] + pod.outcomes["too_many"] == 40
    assert pod.outcomes["too_many"] > 20
    assert pod.outcomes["duplicate"] == 1
    assert (
        int((await redis.ask(f"HLEN {await only_key(redis, 'l')}")).split(b":")[1].split()[0]) == pod.outcomes["joined"]
    )


async def test_everything_expires(redis: RedisServer, start_pod: StartPod) -> None:
    pod = start_pod(redis.url)
    await pod.predict("one", 0.9)
    await pod.label({"predictionId": "one", "label": 1})
    for kind in ("p", "l"):
        said = await redis.ask(f"TTL {await only_key(redis, kind)}")
        assert TTL < int(said.split(b":")[1].split()[0]) <= TTL * 1.1 + 1


async def test_late_labels_are_known_to_be_late(redis: RedisServer, start_pod: StartPod) -> None:
    pod = start_pod(redis.url)
    await pod.predict("one", 0.9)
    pod.ahead = TTL + 1
    assert (await pod.label({"predictionId": "one", "label": 1})).outcomes == {"late": 1}
    assert pod.performance.labels == 0


async def test_an_early_label_waits_for_its_prediction(redis: RedisServer, start_pod: StartPod) -> None:
    a, b = start_pod(redis.url), start_pod(redis.url)
    assert (await b.label({"predictionId": "one", "label": 1}, {"predictionId": "none", "label": 1})).outcomes == {
        "held": 2
    }
    await a.predict("one", 0.9)
    b.ahead = HOLD + 1
    await b.joiner.tick()
    assert (b.outcomes, b.joiner.held) == ({"joined": 1, "unknown": 1}, 0)


async def test_a_revision_that_is_not_counted_any_more(redis: RedisServer, start_pod: StartPod) -> None:
    pod = start_pod(redis.url)
    await pod.predict("one", 0.9, revision="gone")
    assert (await pod.label({"predictionId": "one", "label": 1})).outcomes == {"retired": 1}


async def test_what_others_wrote_under_our_keys_is_an_error_of_the_store(
    redis: RedisServer, start_pod: StartPod
) -> None:
    pod = start_pod(redis.url)
    await pod.predict("two", 0.9)
    await redis.ask("SET coalmine:shop:fraud:p:one junk", "HSET coalmine:shop:fraud:p:three a b")
    got = await pod.label(*({"predictionId": name, "label": 1} for name in ("one", "two", "three")))
    assert got.outcomes == {"store_error": 1, "joined": 1, "held": 1}


async def test_predictions_of_another_deployment_are_not_found(redis: RedisServer, start_pod: StartPod) -> None:
    pod = start_pod(redis.url)
    await pod.predict("one", 0.9)
    await redis.ask("RENAME coalmine:shop:fraud:p:one coalmine:shop:other:p:one")
    assert (await pod.label({"predictionId": "one", "label": 1})).outcomes == {"held": 1}


@pytest.mark.parametrize("seed", range(3))
async def test_redis_and_memory_say_the_same(redis: RedisServer, start_pod: StartPod, seed: int) -> None:
    """The same predictions, labels and outcomes, in any order, through both stores."""
    draw = random.Random(seed)
    there, here = start_pod(redis.url), start_pod(redis.url)
    here.joiner.store = MemoryStore(here.counts, max_pending=10_000, ttl=TTL)
    ids = [f"p{i}" for i in range(12)]
    for _ in range(120):
        name, rows = draw.choice(ids), draw.randint(1, 3)
        if draw.random() < 0.3:
            scores: list[float | None] = [draw.random() for _ in range(rows)]
            predicted = Predicted(name, draw.choice("aab"), time.time(), scores, [None] * rows)
            other = f"other of {name}" if name > "p4" else ""
            for pod in (there, here):
                pod.joiner.remember(predicted, other)
            await there.written()
            continue
        posted = [
            draw.choice(
                [
                    {
                        "predictionId": one,
                        "labels": [draw.choice([0, 1, None, "x"]) for _ in range(draw.randint(1, 3))],
                    },
                    {"predictionId": one, "outcome": draw.choice("xyz"), "value": draw.randint(0, 1)},
                    {"predictionId": f"other of {one}", "label": 1},
                ]
            )
            for one in draw.choices(ids, k=draw.randint(1, 4))
        ]
        results = [await pod.label(*posted) for pod in (there, here)]
        assert results[0].body() == results[1].body(), posted
    assert there.counts.outcomes == here.counts.outcomes
    assert there.performance.confusion == here.performance.confusion
    assert there.outcomes.keys() > {"joined", "duplicate", "contradictory", "mismatch", "retired"}


async def only_key(redis: RedisServer, kind: str) -> str:
    said = (await redis.ask("KEYS coalmine:shop:fraud:*")).decode().split()
    (key,) = (word for word in said if word.startswith(f"coalmine:shop:fraud:{kind}:"))
    return key
