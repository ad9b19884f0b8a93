"""Kubernetes Events: told again after a crash, and there once; against a server that knows the names it was given."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from coalmine_operator.api.status import Status, Told
from coalmine_operator.api.wire import from_wire, to_wire
from coalmine_operator.platforms.kubernetes import events
from coalmine_operator.platforms.kubernetes.access import Access
from coalmine_operator.platforms.kubernetes.client import Client
from coalmine_operator.platforms.kubernetes.events import Poster
from coalmine_operator.platforms.kubernetes.held import Held, hold
from coalmine_operator.platforms.kubernetes.kinds import MODEL_DEPLOYMENT
from coalmine_operator.platforms.kubernetes.telling import Teller

AT = 1_795_313_046.58


class Names:
    """Takes every name once; `away` is how many calls fail first."""

    def __init__(self) -> None:
        self.taken: dict[str, dict[str, Any]] = {}
        self.calls = 0
        self.away = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.calls += 1
        if self.away:
            self.away -= 1
            return web.json_response({"message": "not now"}, status=503)
        sent = await request.json()
        name = sent["metadata"]["name"]
        if name in self.taken:
            return web.json_response({"message": "already exists"}, status=409)
        self.taken[name] = sent
        return web.json_response(sent, status=201)

    def reasons(self) -> list[str]:
        return [sent["reason"] for sent in sorted(self.taken.values(), key=lambda sent: sent["eventTime"])]


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def client(names: Names) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_post("/apis/events.k8s.io/v1/namespaces/ml/events", names.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = Client(Access(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def fraud(generation: int = 1) -> Held:
    about = {"name": "fraud", "namespace": "ml", "uid": "u1", "resourceVersion": "7", "generation": generation}
    return hold(MODEL_DEPLOYMENT, {"metadata": about, "spec": {}})


def told(reason: str, at: float = AT) -> Told:
    return Told(reason=reason, message=f"{reason}!", at=at)


async def test_a_step_is_told_once_however_often_operators_die(client: Client, names: Names) -> None:
    for _ in range(2):
        poster = Poster(client, "coalmine-0")
        for event in (told("WeightSet"), told("Promoting", AT + 1e-5), told("Promoted", AT + 2e-5)):
            poster.tell(fraud(), event)
        await poster.drain(5)
    assert names.reasons() == ["WeightSet", "Promoting", "Promoted"]
    assert names.calls == 6
    (first, *_) = names.taken.values()
    assert first["regarding"] == {
        "apiVersion": "coalmine.dev/v1alpha1",
        "kind": "ModelDeployment",
        "name": "fraud",
        "namespace": "ml",
        "uid": "u1",
    }


async def test_the_same_words_are_told_anew_only_about_another_generation(client: Client, names: Names) -> None:
    poster = Poster(client, "coalmine-0")
    for generation in (1, 1, 2):
        poster.tell_once(fraud(generation), told("InvalidSpec", AT + generation))
    await poster.drain(5)
    assert names.reasons() == ["InvalidSpec", "InvalidSpec"]


async def test_an_api_server_that_is_away_is_waited_for(
    client: Client, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAUSE", 0.01)
    names.away = 3
    poster = Poster(client, "coalmine-0")
    poster.tell(fraud(), told("RolledBack"))
    await poster.drain(5)
    assert names.reasons() == ["RolledBack"]
    assert names.calls == 4


async def test_what_waits_is_bounded(client: Client, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_WAITING", 3)
    poster = Poster(client, "coalmine-0")
    for number in range(5):
        poster.tell(fraud(), told(f"E{number}", AT + number))
    await poster.drain(5)
    assert names.reasons() == ["E2", "E3", "E4"], "the oldest go first"


async def test_what_a_dead_operator_left_untold_is_told_by_the_next_and_old_news_are_not(
    client: Client, names: Names
) -> None:
    now = time.time()
    stale, left, newer = told("Promoted", now - 3600), told("WeightSet", now - 5), told("Promoting", now)
    poster = Poster(client, "coalmine-0")
    teller = Teller("ml/fraud", poster, fraud)
    teller.saved(Status(events=(stale, left)))
    # As it comes back from the API server: to the microsecond.
    teller.saved(from_wire(to_wire(Status(events=(stale, left, newer)))))
    await poster.drain(5)
    assert names.reasons() == ["WeightSet", "Promoting"]
    assert names.calls == 2


async def test_what_lasts_is_told_once_and_what_happens_again_is_told_again(client: Client, names: Names) -> None:
    poster = Poster(client, "coalmine-0")
    teller = Teller("ml/fraud", poster, fraud)
    for _ in range(2):
        teller.once("ApplyRefused", "Service refused: taken")
        teller.say("Refreshed", "ordered by ada")
    await poster.drain(5)
    assert sorted(names.reasons()) == ["ApplyRefused", "Refreshed", "Refreshed"]


async def test_nothing_is_told_of_what_is_gone(client: Client, names: Names) -> None:
    poster = Poster(client, "coalmine-0")
    teller = Teller("ml/fraud", poster, lambda: None)
    teller.saved(Status(events=(told("Promoted", time.time()),)))
    teller.once("ApplyRefused", "taken")
    teller.say("Refreshed", "ordered")
    await poster.drain(5)
    assert not names.calls
