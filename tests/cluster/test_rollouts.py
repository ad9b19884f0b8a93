"""The loop the product is for, with everything real: chart, kubelet, Prometheus, Alertmanager, and clients that count.

The tests are chapters of one story under one load; each brings about what it begins with.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from statistics import median
from typing import Any

import pytest
from tests.cluster.figures import Figure
from tests.cluster.installed import Install, installed
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.prometheus import prometheus
from tests.cluster.lab.run import LabError
from tests.cluster.monitoring import ALERTMANAGER, Monitoring, monitoring
from tests.cluster.operating import Watched, manifest
from tests.cluster.traffic import Traffic, traffic
from tests.queries import queries

pytestmark = pytest.mark.timeout(300, func_only=True)

ALERT = "ModelLatencyHigh"
DRILL = "Drill"
RETRY = "coalmine.dev/retry"
WEIGHTS = (10, 30, 60)
#: Seconds of a step: some 2,000 requests, so that decks of 100 that are cut at its ends make less than a point.
STEP = 9.0
#: Seconds at both ends of a step that are not looked at: requests on their way, and the clocks of two processes.
MARGIN = 0.25
ROLLBACKS = 20


@pytest.fixture(scope="module")
def release(cluster: Cluster, operator_image: str, sidecar_image: str) -> Iterator[Install]:
    with installed(cluster, operator_image, sidecar_image) as release:
        yield release


@pytest.fixture(autouse=True)
def operators_log(release: Install) -> Iterator[None]:
    """Its end, for the report of a test that fails."""
    yield
    with suppress(LabError):
        print("the end of the operator's log:", *release.log("operator").splitlines()[-60:], sep="\n")


@pytest.fixture(scope="module")
def watching(
    release: Install, shown: Callable[[], AbstractContextManager[object]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Monitoring]:
    if ALERTMANAGER is None:
        reason = "no Alertmanager here: `make tools` installs it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with shown():
        prometheus()
    with monitoring(release, tmp_path_factory.mktemp("monitoring")) as both:
        yield both


@pytest.fixture(scope="module")
def fraud(release: Install, model_image: str) -> Watched:
    """v1 serves."""
    watched = Watched(release.cluster, release.models)
    watched.apply(deployment(model_image, "v1"))
    watched.healthy("v1")
    return watched


@pytest.fixture(scope="module")
def load(fraud: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    with traffic(fraud.cluster, f"http://{fraud.name}.{fraud.namespace}", tmp_path_factory.mktemp("load")) as seen:
        yield seen


@pytest.fixture
def v2(fraud: Watched, load: Traffic, model_image: str) -> str:
    """v2 is stable and has the traffic, whatever else was tried: its revision."""
    if not is_v2(fraud.status):
        fraud.apply(deployment(model_image, "v2"))
    status = fraud.until("v2 to be stable", lambda s: is_v2(s) and "rollout" not in s, 150)
    revision: str = status["stable"]["revision"]
    return revision


def is_v2(status: dict[str, Any]) -> bool:
    stable: str = status["stable"]["version"]
    return stable.partition("-")[0] == "v2"


@pytest.fixture
def suffix(again: bool) -> str:
    """For versions of a test that is run again: what was rolled back stays so, what was promoted is no news."""
    return "-again" if again else ""


def deployment(image: str, version: str, *, serves: str = "", **spec: Any) -> dict[str, Any]:
    """As in examples/breast-cancer.yaml, but for `spec`. `serves`: the model of another version."""
    steps = [step for weight in WEIGHTS for step in ({"setWeight": weight}, {"pause": {"duration": f"{STEP:g}s"}})]
    metrics = [
        {"name": "errors", "preset": "errorRate"},
        {"name": "labels", "preset": "outputDrift", "output": "label", "threshold": 0.2},
    ]
    common: dict[str, Any] = {
        "fallback": {"version": "previous"},
        "strategy": {"canary": {"steps": steps, "scaleDownDelay": "5s"}},
        "analysis": {"interval": "1s", "minRequests": 50, "metrics": metrics},
        "autoRollback": {"alerts": [{"name": ALERT}], "bakeTime": "3s"},
    }
    document = manifest("fraud", image, version, **common | spec)
    pod = document["spec"]["template"]["spec"]
    # Two thirds are for requests under way; the pod goes as soon as there are none.
    pod["terminationGracePeriodSeconds"] = 30
    (container,) = pod["containers"]
    container["env"] = [{"name": "MODEL_VERSION", "value": serves or version}, {"name": "BUILD", "value": version}]
    # More than it needs, so that it is never throttled; with none there would be nothing to say of it.
    container["resources"]["limits"] = {"cpu": "4", "memory": "512Mi"}
    return document


def stays_at(weight: int, keep: str) -> dict[str, Any]:
    """A strategy of one step without an end. `keep`: how long its pods stay after a rollback."""
    return {"canary": {"steps": [{"setWeight": weight}, {"pause": {}}], "scaleDownDelay": keep}}


def seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def uids(fraud: Watched, revision: str) -> set[str]:
    pods = fraud.pods().values()
    return {pod["metadata"]["uid"] for pod in pods if pod["metadata"]["labels"]["coalmine.dev/revision"] == revision}


def test_a_good_version_is_promoted_by_its_steps(
    fraud: Watched, load: Traffic, model_image: str, figure: Figure, suffix: str
) -> None:
    began = time.time()
    version = f"v2{suffix}"
    fraud.apply(deployment(model_image, version, serves="v2"))
    windows: dict[int, float] = {}

    def promoting(status: dict[str, Any]) -> bool:
        rollout = status.get("rollout", {})
        mine = status.get("canary", {}).get("version") == version
        if mine and rollout.get("step", 0) % 2:  # a pause: the weight before it is in force everywhere
            windows.setdefault(rollout["weight"], seconds(rollout["stepAt"]))
        return len(windows) == len(WEIGHTS)

    revision = fraud.until("the last step", promoting, 150)["canary"]["revision"]
    before = uids(fraud, revision)
    assert fraud.healthy(version)["stable"]["revision"] == revision
    assert uids(fraud, revision) == before, "promotion restarted a pod"
    shares = {weight: load.share(revision, start + MARGIN, start + STEP - MARGIN) for weight, start in windows.items()}
    figure(f"measured weights: { {weight: round(share, 2) for weight, share in shares.items()} }")
    assert shares == {weight: pytest.approx(weight, abs=1) for weight in WEIGHTS}
    assert not load.errors(began), load.summary()


def test_prometheus_sees_every_sidecar_and_has_every_rule(watching: Monitoring, fraud: Watched, v2: str) -> None:
    def scraped() -> bool:
        up = [one["labels"] for one in watching.targets() if one["health"] == "up"]
        return {labels["pod"] for labels in up if labels["job"] != "kubelet"} == set(fraud.pods())

    fraud.cluster.wait(scraped, "every sidecar to be scraped", 60)
    (weight,) = fraud.cluster.wait(
        lambda: watching.query("max by (version) (coalmine_route_weight) == 100"), "a weight"
    )
    assert weight["metric"]["version"] == fraud.status["stable"]["version"]

    def evaluated() -> bool:
        return all(rule["health"] == "ok" for rule in watching.rules())

    fraud.cluster.wait(evaluated, "every rule to be evaluated", 60)
    assert ALERT in {rule["name"] for rule in watching.rules()}


def test_a_version_that_answers_wrongly_is_rolled_back_by_verdict(
    fraud: Watched, load: Traffic, v2: str, model_image: str, figure: Figure, suffix: str
) -> None:
    began = time.time()
    version = f"v3{suffix}"
    fraud.apply(deployment(model_image, version, serves="v3"))
    back = rolled_back(fraud, version)
    assert back["reason"] == "AnalysisFailed"
    assert {verdict["metric"] for verdict in back["evidence"]} == {"labels"}
    assert fraud.status["stable"]["revision"] == v2
    figure(f"v3: last request {load.last(back['source']) - seconds(back['at']):.2f} s after the verdict")
    assert not load.errors(began), load.summary()


def test_a_slow_version_is_rolled_back_by_an_alert(
    fraud: Watched, load: Traffic, watching: Monitoring, v2: str, model_image: str, figure: Figure, suffix: str
) -> None:
    began = time.time()
    version = f"v4{suffix}"
    fraud.apply(deployment(model_image, version, serves="v4", strategy=stays_at(30, "5s")))
    back = rolled_back(fraud, version)
    assert (back["reason"], back["alert"]["name"]) == ("AlertFiring", ALERT)
    labels = back["alert"]["labels"]
    assert (labels["version"], labels["track"]) == (version, "canary")
    assert (labels["modeldeployment"], labels["namespace"]) == (fraud.name, fraud.namespace)
    assert fraud.status["stable"]["revision"] == v2
    figure(
        f"v4: last request {load.last(back['source']) - seconds(back['alert']['receivedAt']):.2f} s after the webhook"
    )
    assert not load.errors(began), load.summary()


def test_the_models_resources_are_seen_beside_their_limits(
    fraud: Watched, watching: Monitoring, load: Traffic, v2: str
) -> None:
    """The sidecar reads those of the model's processes, and a kubelet tells of throttling: the dashboard has both."""
    has = frozenset({"limits", "cadvisor"})
    asked = [query for query in queries(namespace=fraud.namespace) if query.needs and query.needs <= has]
    assert {need for query in asked for need in query.needs} == has

    def silent() -> list[str]:
        return [f"{query.panel}: {query.expr}" for query in asked if not watching.query(query.expr)]

    with suppress(LabError):
        fraud.cluster.wait(lambda: not silent(), "every figure", 60, every=1.0)
    assert not silent()


def rolled_back(fraud: Watched, version: str) -> dict[str, Any]:
    """How, once no sidecar routes to it any more."""

    def done(status: dict[str, Any]) -> bool:
        last = status.get("lastRollback", {})
        return last.get("sourceVersion") == version and "doneAt" in last

    back: dict[str, Any] = fraud.until(f"{version} to be rolled back", done, 120)["lastRollback"]
    return back


@pytest.mark.timeout(600, func_only=True)
def test_from_webhook_to_last_request(
    fraud: Watched, load: Traffic, watching: Monitoring, v2: str, model_image: str, figure: Figure
) -> None:
    """Alertmanager is told of an alert, the rest is as ever. v5 answers well: nothing else may take it out."""
    began = time.time()
    # Another one at each try: what was rolled back stays so.
    version = f"v5-{secrets.token_hex(2)}"
    v5 = deployment(
        model_image,
        version,
        serves="v2",
        strategy=stays_at(50, "5m"),
        analysis={"metrics": []},
        autoRollback={"alerts": [{"name": DRILL}]},
    )
    fraud.apply(v5)
    took = [_seconds_to_last_request(fraud, load, watching, 0)]
    for number in range(1, ROLLBACKS):
        # Of two orders of the same words the second is no change while the first one stands.
        fraud.cluster.wait(lambda: RETRY not in fraud.annotations(), "the order before to be taken away")
        fraud.annotate("retry", version)
        took.append(_seconds_to_last_request(fraud, load, watching, number))
    # Of twenty, the last is the 99th percentile.
    figure(f"webhook to last request, {len(took)} rollbacks: p50 {median(took):.2f} s, p99 {max(took):.2f} s")
    figure(f"the whole story: {load.summary()}; {load.rate():.0f}/s")
    assert not load.errors(began), load.summary()


def _seconds_to_last_request(fraud: Watched, load: Traffic, watching: Monitoring, number: int) -> float:
    """From the operator's clock as it reads the webhook to a client's as it sends what the canary answers last."""
    status = fraud.until("the canary", lambda s: s["phase"] == "Paused" and s.get("canary", {}).get("weight") == 50)
    revision, paused = status["canary"]["revision"], time.time()
    fraud.cluster.wait(lambda: load.last(revision) > paused, "the canary answers")
    labels = {"alertname": DRILL, "modeldeployment": fraud.name, "namespace": fraud.namespace, "number": str(number)}
    watching.tell(labels)

    def done(status: dict[str, Any]) -> bool:
        last = status.get("lastRollback", {})
        return last.get("alert", {}).get("labels", {}).get("number") == str(number) and "doneAt" in last

    back = fraud.until("the rollback", done)["lastRollback"]
    watching.tell(labels, ended=True)
    return max(0.0, load.last(revision) - seconds(back["alert"]["receivedAt"]))
