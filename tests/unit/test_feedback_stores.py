"""Which store a routing file gets, and what happens where it cannot have it."""

from __future__ import annotations

import logging
import sys

import pytest

from coalmine_sidecar.feedback.counts import FeedbackCounts
from coalmine_sidecar.feedback.joiner import Joiner
from coalmine_sidecar.feedback.memory import MemoryStore
from coalmine_sidecar.feedback.predicted import Predicted
from coalmine_sidecar.feedback.stores import make_store
from coalmine_sidecar.monitoring import Feedback


async def nothing_is_lost_silently(feedback: Feedback, password: str = "") -> None:
    counts = FeedbackCounts()
    store = make_store(feedback, counts, password=password, prefix="coalmine:shop:fraud:")
    joiner = Joiner(store, lambda _: None, task="binary", counts=counts, clock=lambda: 0.0)
    joiner.remember(Predicted("one", "a", 0.0, [0.9, 0.1], [None, None]))
    result = await joiner.feedback(b'{"predictionId":"one","labels":[1,0]}')
    assert (result.status, result.outcomes, counts.lost["no_store"]) == (503, {"store_error": 2}, 2)
    await joiner.tick()
    await store.close()


async def test_without_redis_client(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As on a laptop, whose environment has the client only if it is asked for."""
    for name in [
        name
        for name in sys.modules
        if name == "redis" or name.startswith(("redis.", "coalmine_sidecar.feedback.redis"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with caplog.at_level(logging.ERROR):
        await nothing_is_lost_silently(Feedback(redis="redis://localhost:6379/0"))
    assert caplog.messages == ["feedback.redis: its client is not installed: pip install 'coalmine[redis]'"]


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:many/0"])
async def test_an_address_that_is_none(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        await nothing_is_lost_silently(Feedback(redis=url), password="a-secret")
    (line,) = caplog.messages
    assert line.startswith("feedback.redis: ")
    assert line.endswith(": write it like redis://HOST:6379/0")
    assert "a-secret" not in line
    assert "\n" not in line


async def test_without_redis_predictions_are_in_memory() -> None:
    store = make_store(Feedback(max_pending=3), FeedbackCounts(), password="", prefix="")
    assert isinstance(store, MemoryStore)
    for i in range(5):
        store.remember(Predicted(f"p{i}", "a", 0.0, [0.9], [None]))
    assert store.pending == 3
