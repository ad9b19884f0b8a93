"""A plan's routing file: a sidecar accepts it whatever the plan, and it says what the spec says."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace
from tests.manifests import GONE, changed, good, mirrored

from coalmine_operator.api.decode import decode
from coalmine_operator.api.spec import Metadata, Model, ModelDeployment
from coalmine_operator.engine.model import RevisionRecord, Route, RoutePlan
from coalmine_operator.render.routing import render_routing, same_but_generation
from coalmine_sidecar import contract

FRAUD = decode(good())
PLAIN = decode(changed("spec", {"template": good()["spec"]["template"]}))
PLAN = RoutePlan(
    routes=(
        Route(revision="fraud-a", track="stable", weight=95),
        Route(revision="fraud-b", track="canary", weight=5),
        Route(revision="fraud-f", track="fallback"),
    ),
    epoch="3.1",
    match="fraud-b",
    chain=("fraud-a", "fraud-f"),
    bins={"score": (0.0, 0.5, 1.0)},
)
RECORDS = {
    name: RevisionRecord(name=name, version=version, template={}, model=Model())
    for name, version in (("fraud-a", "1"), ("fraud-b", "2"))
}


def rendered(deployment: ModelDeployment = FRAUD, plan: RoutePlan = PLAN, **given: Any) -> contract.Routing:
    arguments = {"records": RECORDS, "endpoints": {}, "generation": 7, **given}
    return render_routing(metadata=deployment.metadata, spec=deployment.spec, plan=plan, **arguments)


def test_says_what_plan_and_spec_say() -> None:
    assert rendered(endpoints={"fraud-b": ["127.0.0.1:2", "127.0.0.1:1"]}) == contract.Routing(
        deployment="fraud",
        model="fraud",
        generation=7,
        epoch="3.1",
        revisions=(
            contract.RevisionRoute(name="fraud-a", version="1", track="stable", weight=95),
            contract.RevisionRoute(
                name="fraud-b", version="2", track="canary", weight=5, endpoints=("127.0.0.1:1", "127.0.0.1:2")
            ),
            contract.RevisionRoute(name="fraud-f", version="fraud-f", track="fallback"),
        ),
        match=(contract.Match(revision="fraud-b", headers=(contract.HeaderMatch(name="x-canary", value="always"),)),),
        affinity=contract.Affinity(header="x-user-id", salt="fraud-b"),
        fallback=contract.Fallback(chain=("fraud-a", "fraud-f"), status_codes=(502, 503)),
        timeouts=contract.Timeouts(response=90, idle=90),
        observe=contract.Observe(protocol="v2", thresholds=(0.25,), outputs={"score": (0.0, 0.5, 1.0)}),
    )


def test_a_plain_spec_gets_the_contracts_defaults() -> None:
    routing = rendered(PLAIN)
    assert routing.model == "fraud"
    assert routing.match == ()
    assert routing.affinity is None
    assert routing.fallback == contract.Fallback(chain=("fraud-a", "fraud-f"))
    assert routing.timeouts == contract.Timeouts()
    assert routing.limits == contract.Limits()
    assert (routing.circuit_breaker, routing.concurrency) == (None, None)
    assert routing.retry_budget == contract.RetryBudget()
    assert routing.observe == contract.Observe(outputs={"score": (0.0, 0.5, 1.0)})


def test_a_mirror_is_in_the_file_while_the_plan_asks_for_it() -> None:
    plan = replace(PLAN, mirror=20)
    assert rendered(plan=PLAN).mirror is UNSET
    assert rendered(plan=plan).mirror == contract.Mirror(source="fraud-a", target="fraud-b", percent=20)
    asked = decode(changed("spec", mirrored(tolerance=0.2)))
    assert rendered(asked, plan).mirror == contract.Mirror(
        source="fraud-a", target="fraud-b", percent=20, tolerance=0.2
    )
    once = replace(FRAUD, spec=replace(FRAUD.spec, model=replace(FRAUD.spec.model, idempotent=False)))
    assert rendered(once, plan).mirror is UNSET
    many = tuple(Route(revision=f"old-{i}", track="retired") for i in range(20))
    crowded = replace(plan, routes=(PLAN.routes[0], *many, Route(revision="fraud-b", track="canary")), match="")
    assert rendered(
        plan=replace(crowded, routes=tuple(replace(r, weight=100 * (r.track == "stable")) for r in crowded.routes))
    ).mirror


def test_breaker_budget_and_concurrency() -> None:
    spec = decode(changed("spec.circuitBreaker", {"successRate": 50, "minBackoff": "250ms"})).spec
    assert rendered(replace(FRAUD, spec=spec)).circuit_breaker == contract.CircuitBreaker(
        success_rate=50, min_backoff=0.25
    )
    spec = decode(changed("spec.retryBudget", {"percent": 5, "window": "1m"})).spec
    assert rendered(replace(FRAUD, spec=spec)).retry_budget == contract.RetryBudget(percent=5, window=60)
    for model, concurrency in (
        ({"containerConcurrency": 4}, contract.Concurrency(limit=4, queue_depth=40)),
        ({"containerConcurrency": 4, "queueDepth": 0}, contract.Concurrency(limit=4, queue_depth=0)),
        ({}, None),
    ):
        spec = decode(changed("spec.model", model)).spec
        assert rendered(replace(FRAUD, spec=spec)).concurrency == concurrency


def test_limits_and_timeouts() -> None:
    spec = decode(changed("spec.fallback.maxRequestBytes", 10)).spec
    model = replace(spec.model, max_request_bytes=2000, timeout=type(spec.model.timeout)(0.5), idempotent=False)
    routing = rendered(replace(FRAUD, spec=replace(spec, model=model)))
    assert (routing.limits.body_bytes, routing.limits.replay_bytes) == (2000, 10)
    assert (routing.timeouts.connect, routing.timeouts.response, routing.timeouts.idle) == (0.5, 0.5, 60)
    assert not routing.idempotent


def test_protocol_and_traces() -> None:
    assert rendered().new_traces == "sampled"
    model = replace(FRAUD.spec.model, protocol="openai", new_traces="none")
    routing = rendered(replace(FRAUD, spec=replace(FRAUD.spec, model=model)))
    assert (routing.observe.protocol, routing.new_traces) == ("openai", "none")


def test_no_match_without_a_canary_to_go_to() -> None:
    assert rendered(plan=replace(PLAN, match="")).match == ()
    assert rendered(plan=replace(PLAN, match="gone")).match == ()


def test_affinity_by_cookie_without_a_canary_has_no_salt() -> None:
    deployment = decode(changed("spec.strategy.canary.affinity", {"cookie": "u"}))
    routes = (Route(revision="fraud-a", track="stable", weight=100),)
    routing = rendered(deployment, replace(PLAN, routes=routes, match="", chain=()))
    assert routing.affinity == contract.Affinity(cookie="u")


def test_bad_bins_are_left_out() -> None:
    bins = {"a": (), "b": (1.0, 1.0), "c": (math.nan,), "d": (2.0, 1.0), "e": tuple(map(float, range(65))), "f": (1.0,)}
    assert rendered(plan=replace(PLAN, bins=bins)).observe.outputs == {"f": (1.0,)}


def test_routes_that_may_get_requests_are_never_the_ones_left_out() -> None:
    idle = tuple(Route(revision=f"old-{i}", track="retired") for i in range(20))
    plan = replace(PLAN, routes=(*idle, *PLAN.routes))
    names = [route.name for route in rendered(plan=plan).revisions]
    assert len(names) == 16
    assert names[-3:] == ["fraud-a", "fraud-b", "fraud-f"]


def test_only_the_generation_may_differ() -> None:
    one = rendered(endpoints={"fraud-a": ["h:1", "h:2"]})
    assert same_but_generation(one, rendered(endpoints={"fraud-a": ["h:2", "h:1", "h:1"]}, generation=8))
    assert not same_but_generation(one, rendered(endpoints={"fraud-a": ["h:1"]}))
    assert not same_but_generation(one, rendered(plan=replace(PLAN, epoch="3.2")))


names = st.text(alphabet="abcdef0123456789-", min_size=1, max_size=20)


@st.composite
def plans(draw: st.DrawFn) -> RoutePlan:
    """Any plan whose weights sum to 100 over at most 16 revisions, with any number of idle ones beside them."""
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=11)))
    weights = [high - low for low, high in zip([0, *cuts], [*cuts, 100], strict=True)]
    weights += [0] * draw(st.integers(0, 20))
    revisions = draw(st.lists(names, min_size=len(weights), max_size=len(weights), unique=True))
    tracks = st.sampled_from(get_args(contract.Track))
    anyone = st.sampled_from([*revisions, "gone", ""])
    return RoutePlan(
        routes=tuple(
            Route(revision=name, track=draw(tracks), weight=weight)
            for name, weight in zip(revisions, draw(st.permutations(weights)), strict=True)
        ),
        epoch=draw(st.text(alphabet="0123456789.", max_size=20)),
        match=draw(anyone),
        chain=tuple(draw(st.lists(anyone, max_size=6))),
        bins=draw(st.dictionaries(st.text(max_size=5), st.lists(st.floats(), max_size=6).map(tuple), max_size=3)),
    )


@given(
    plans(),
    st.sampled_from([FRAUD, PLAIN]),
    st.dictionaries(names, st.lists(st.text("h:0123456789", min_size=1), max_size=5), max_size=3),
    st.integers(0, 1 << 40),
)
@example(PLAN, FRAUD, {"fraud-a": [f"h:{i}" for i in range(2000)]}, 1)
def test_a_sidecar_accepts_whatever_is_rendered(
    plan: RoutePlan, deployment: ModelDeployment, endpoints: dict[str, list[str]], generation: int
) -> None:
    routing = rendered(deployment, plan, endpoints=endpoints, generation=generation)
    assert contract.decode_routing(contract.encode_routing(routing)) == routing
    weights = {route.revision: route.weight for route in plan.routes if route.weight}
    assert {route.name: route.weight for route in routing.revisions if route.weight} == weights


def test_a_sidecar_of_the_first_release_takes_a_file_that_uses_nothing_newer() -> None:
    """It refuses what it does not know, and after an upgrade it is there until a refresh."""
    known = {
        "schema", "deployment", "namespace", "model", "generation", "epoch", "idempotent", "revisions", "match",
        "affinity", "fallback", "timeouts", "limits", "observe",
    }  # fmt: skip
    written = json.loads(contract.encode_routing(rendered(FRAUD, PLAN)))
    assert set(written) <= known


@pytest.mark.parametrize("name", ["", "other"])
def test_the_models_name_is_the_deployments_unless_given(name: str) -> None:
    raw = changed("spec.model.name", name or GONE)
    deployment = replace(decode(raw), metadata=Metadata(name="scoring"))
    assert rendered(deployment).model == (name or "scoring")
