"""Feedback follows the routing file: what is kept and counted outlives changes that need not end it."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import convert

from coalmine_sidecar.contract import Routing
from coalmine_sidecar.feedback.predicted import Predicted
from coalmine_sidecar.feedback.service import FeedbackService
from coalmine_sidecar.telemetry import Telemetry

LABEL = json.dumps({"predictionId": "one", "label": 1}).encode()


class World:
    def __init__(self) -> None:
        self.telemetry = Telemetry(pod="p", revision="a")
        self.now = 1000.0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.service = FeedbackService(self.telemetry, self.socket, others=lambda: (), clock=lambda: self.now)

    def use(self, feedback: dict[str, Any] | None, *revisions: str, **monitoring: Any) -> None:
        names = revisions or ("a",)
        shares = [{"name": one, "version": one, "track": "stable" if not i else "canary", "weight": 0 if i else 100}
                  for i, one in enumerate(names)]  # fmt: skip
        document: dict[str, Any] = {"deployment": "d", "model": "m", "generation": 1, "revisions": shares}
        if feedback is not None:
            document["monitoring"] = {"feedback": feedback, **monitoring}
        routing = convert(document, Routing)
        self.telemetry.configure(routing)
        self.service.use(routing)

    def predict(self, revision: str = "a") -> None:
        self.service.remember(Predicted("one", revision, self.now, [0.9], [None]), "")

    async def label(self) -> dict[str, int]:
        return (await self.service.feedback(LABEL)).outcomes


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.service.stop()
    made.socket.close()


async def test_nobody_asked_for_feedback(world: World) -> None:
    world.use(None)
    world.predict()
    result = await world.service.feedback(LABEL)
    assert (result.status, list(world.service.collect())) == (404, [])
    assert json.loads(result.body())["error"] == "no feedback is asked for here: give spec.monitoring.feedback"


@pytest.mark.parametrize(
    ("feedback", "more"), [({"path": "/labels"}, {}), ({"maxPending": 5, "ttl": 60}, {}), ({}, {"task": "ranking"})]
)
async def test_changes_that_lose_no_prediction(world: World, feedback: dict[str, Any], more: dict[str, Any]) -> None:
    world.use({})
    world.predict()
    world.use(feedback, **more)
    assert await world.label() == {"joined": 1}


async def test_another_positive_class_is_asked_for_from_then_on(world: World) -> None:
    world.use({})
    world.predict()
    assert await world.label() == {"joined": 1}
    world.use({}, prediction={"positive": "yes"})
    world.predict()
    assert await world.label() == {"malformed": 1}


async def test_a_label_counts_for_the_revision_that_answered(world: World) -> None:
    world.use({}, "a", "b")
    world.predict("b")
    assert await world.label() == {"joined": 1}
    labels = {
        name: series.watched.performance.labels
        for name, revision in world.telemetry.revisions.items()
        if (series := revision.series.get("ingress")) is not None and series.watched is not None
    }
    assert labels["b"] == 1
    assert labels.get("a", 0) == 0


async def test_a_revision_that_left_the_routing_file_for_long_is_not_counted_any_more(world: World) -> None:
    world.use({}, "a", "b")
    world.predict("b")
    for i in range(30):
        world.use({}, "a", f"c{i}")
    assert await world.label() == {"retired": 1}


async def test_counts_go_on_when_feedback_ends_and_comes_back(world: World) -> None:
    world.use({})
    assert await world.label() == {"held": 1}
    world.use(None)
    world.use({})
    samples = {s.labels.get("outcome"): s.value for family in world.service.collect() for s in family.samples}
    assert samples["unknown"] == 1
