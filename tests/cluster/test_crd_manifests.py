"""Manifests that the real API server takes or refuses, and what it says to the person."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.manifests import GONE, changed, get, good, mirrored, watched
from tests.unit.test_decode import MINIMAL
from tests.unit.test_decode_broken import BROKEN
from tests.unit.test_monitoring_spec import BROKEN as BROKEN_MONITORING
from tests.unit.test_monitoring_spec import TAKEN as TAKEN_MONITORING

from coalmine_operator.api.decode import decode

from .crd import Manifests, RefusedError, install
from .lab.cluster import Cluster

STEPS = "spec.strategy.canary.steps"
CANARY = "spec.strategy.canary"
METRICS = "spec.analysis.metrics"
M = "spec.monitoring"
BASELINE = f"{METRICS}[2].baseline[0]"
CONTAINERS = "spec.template.spec.containers"
MODEL_NAME = "is not allowed: write letters, digits, -, _ and ., with a letter or digit at both ends"
METRIC_NAME = "is not allowed: write lower-case letters, digits and -, with a letter or digit at both ends"
OWN_NAME = "is not allowed: write lower-case letters, digits and -, with a letter at the front and no - at the end"
NO_DURATION = "is no duration: write it like 250ms, 15s, 10m or 1h30m"
NO_HEADER = "is no name of a header or cookie: write letters, digits and -"
SHARE = 'supported values: "a share from 0 to 1, such as 0.01"'
TIME = 'supported values: "a time with a unit, such as 250ms"'
INDEX = 'supported values: "a population stability index over 0, such as 0.2"'


def _told(name: str, *, action: str = "hold", **others: Any) -> dict[str, Any]:
    """A spec.monitoring that overrides one alert."""
    return {"alerts": {"overrides": [{"name": name, "action": action}]}, **others}


#: What is set, to what, the field that is named (empty: that one), what is said of it.
REFUSED: list[tuple[str, Any, str, str]] = [
    # names
    ("metadata.name", "a" * 53, "", "is too long: at most 52 characters, since the names of its children are made"),
    ("metadata.name", "fraud.v2", "", OWN_NAME),
    ("metadata.name", "7up", "", OWN_NAME),
    # what is missing
    ("spec", GONE, "", "Required value"),
    ("spec.template", GONE, "", "Required value"),
    ("spec.template", {}, "spec.template.spec", "Required value"),
    (CONTAINERS, [], "", "should have at least 1 items"),
    (f"{CONTAINERS}[0].name", GONE, "", "Required value"),
    (CONTAINERS, [{"name": "a"}, {"name": "a"}], f"{CONTAINERS}[1]", 'Duplicate value: {"name":"a"}'),
    (CONTAINERS, "model", "", "must be of type array"),
    # numbers
    ("spec.replicas", "two", "", "must be of type integer"),
    ("spec.replicas", 2.5, "", "must be of type integer"),
    ("spec.replicas", -1, "", "should be greater than or equal to 0"),
    ("spec.replicas", 1001, "", "should be less than or equal to 1000"),
    ("spec.analysis.alpha", 0, "", "should be greater than 0"),
    ("spec.analysis.alpha", 1, "", "should be less than 1"),
    ("spec.analysis.minRequests", 0, "", "should be greater than or equal to 1"),
    ("spec.model.port", 65536, "", "should be less than or equal to 65535"),
    ("spec.model.maxRequestBytes", 0, "", "should be greater than or equal to 1"),
    ("spec.progressDeadlineSeconds", "10m", "", "must be of type integer"),
    ("spec.progressDeadlineSeconds", 604801, "", "should be less than or equal to 604800"),
    ("spec.revisionHistoryLimit", 0, "", "should be greater than or equal to 1"),
    ("spec.fallback.replicas", 0, "", "should be greater than or equal to 1"),
    ("spec.fallback.maxRequestBytes", 16777217, "", "should be less than or equal to 16777216"),
    ("spec.fallback.statusCodes", [502, 200], "spec.fallback.statusCodes[1]", "should be greater than or equal to 400"),
    ("spec.fallback.statusCodes", [500] * 17, "", "Too many: 17: must have at most 16 items"),
    # words and texts
    ("spec.paused", "yes", "", "must be of type boolean"),
    ("spec.model.idempotent", 1, "", "must be of type boolean"),
    ("spec.model.version", 1.1, "", "must be of type string"),
    ("spec.model.version", "v 1", "", f'Invalid value: "v 1": {MODEL_NAME}'),
    ("spec.model.version", "v" * 64, "", "Too long: may not be more than 63"),
    ("spec.model.protocol", "v3", "", 'Unsupported value: "v3": supported values: "auto", "v1", "v2"'),
    ("spec.model.lineage", "run 17", "", "must be of type object"),
    ("spec.analysis.onInconclusive", "wait", "", 'supported values: "Wait", "Pause", "Rollback"'),
    # durations
    ("spec.analysis.interval", "5 minutes", "", f'Invalid value: "5 minutes": {NO_DURATION}'),
    ("spec.analysis.interval", 15, "", "must be of type string"),
    ("spec.analysis.interval", "0s", "", 'Invalid value: "0s": is not over 0s'),
    ("spec.model.timeout", "0m0.0s", "", "is not over 0s"),
    ("spec.autoRollback.bakeTime", "4000d", "", "is too long: at most 3650d"),
    (f"{CANARY}.scaleDownDelay", "3650d1s", "", "is too long: at most 3650d"),
    (f"{STEPS}[3].pause.duration", "", "", NO_DURATION),
    (f"{METRICS}[1].initialDelay", "-5s", "", NO_DURATION),
    # steps
    (f"{STEPS}[5].setWeight", 140, "", "should be less than or equal to 100"),
    (f"{STEPS}[5].setWeight", 10, STEPS, "a setWeight is under the one before it; steps may only grow"),
    (
        f"{STEPS}[1]",
        {},
        "",
        "is empty: give setWeight, setMirror or pause "
        "(`pause: {}` waits for `coalmine resume`; in a cluster: annotation coalmine.dev/resume)",
    ),
    (f"{STEPS}[1].setWeight", 9, f"{STEPS}[1]", "has setWeight and pause: make two steps of them"),
    (f"{STEPS}[1].pause", 500, "", "must be of type object"),
    (f"{STEPS}[1].pause.requests", 0, "", "should be greater than or equal to 1"),
    (f"{STEPS}[0].setWeight", 0, STEPS, "waits for ever: the canary's weight is still 0; put a setWeight or setMirror"),
    (STEPS, [{"setMirror": 0}, {"pause": {"requests": 5}}], STEPS, "waits for ever: the canary's weight is still 0"),
    (STEPS, [{"setMirror": 5, "pause": {}}], f"{STEPS}[0]", "has setMirror and pause: make two steps of them"),
    (
        STEPS,
        [{"setWeight": 5}, {"setMirror": 5}],
        STEPS,
        "a setMirror comes after a setWeight: mirror before the canary",
    ),
    (
        "spec",
        mirrored(model={"idempotent": False}),
        STEPS,
        "a setMirror sends requests twice, and spec.model.idempotent",
    ),
    ("spec", mirrored(strategy={}), METRICS, "shadowDisagreement compares nothing: put a setMirror into"),
    (STEPS, [{"pause": {"requests": 5}}], STEPS, "waits for ever: the canary's weight is still 0"),
    (STEPS, [{"setWeight": 1}] * 101, "", "Too many: 101: must have at most 100 items"),
    # affinity and matches
    (f"{CANARY}.affinity", {}, "", "give a header or a cookie, one of them"),
    (f"{CANARY}.affinity.cookie", "u", f"{CANARY}.affinity", "give a header or a cookie, one of them"),
    (f"{CANARY}.affinity.header", "x user", "", NO_HEADER),
    (f"{CANARY}.match[0].headers", [], "", "should have at least 1 items"),
    (f"{CANARY}.match[0].headers", GONE, "", "Required value"),
    (f"{CANARY}.match[0].headers[0].name", "a:b", "", NO_HEADER),
    (f"{CANARY}.match[0].headers[0].value", "a\r\nb", "", "holds a control character, which no header can have"),
    # fallback
    ("spec.fallback.version", "", "", "is empty: write previous, or a version and its template"),
    ("spec.fallback.version", "previous", "", "previous has no template of its own: name the template's version"),
    ("spec.fallback.version", "2026-11-20", "", "is also spec.model.version: another template needs another version"),
    ("spec.fallback.template", GONE, "", "a version of its own needs one; only previous goes without"),
    ("spec.fallback.template.spec", GONE, "", "Required value"),
    # breaker, retries, concurrency
    ("spec.circuitBreaker", {"consecutiveFailures": 0}, "", "never opens: give consecutiveFailures or successRate"),
    (
        "spec.circuitBreaker",
        {"successRate": 101},
        "spec.circuitBreaker.successRate",
        "should be less than or equal to 100",
    ),
    ("spec.circuitBreaker", {"window": "0s"}, "spec.circuitBreaker.window", "is not over 0s"),
    ("spec.retryBudget", {"percent": -1}, "spec.retryBudget.percent", "should be greater than or equal to 0"),
    ("spec.model.queueDepth", 5, "", "has no meaning without a limit: give containerConcurrency"),
    # metrics
    (f"{METRICS}[0].name", "Errors", "", METRIC_NAME),
    (f"{METRICS}[1].name", "errors", f"{METRICS}[1]", 'Duplicate value: {"name":"errors"}'),
    (f"{METRICS}[0].preset", GONE, "", "Required value: write errorRate, latency, outputDrift or"),
    (f"{METRICS}[0].preset", "errors", "", 'supported values: "errorRate", "latency", "outputDrift"'),
    (f"{METRICS}[0].threshold", 2, "", f"Unsupported value: 2: {SHARE}"),
    (f"{METRICS}[0].threshold", "1%", "", SHARE),
    (f"{METRICS}[0].threshold", [], "", SHARE),
    (f"{METRICS}[0].output", "score", "", "has no meaning here: only presets outputDrift and shadowDisagreement"),
    (f"{METRICS}[0].tolerance", 0.1, "", "has no meaning here: only preset shadowDisagreement takes it"),
    ("spec", mirrored(threshold=1), f"{METRICS}[0].threshold", 'supported values: "a share over 0 and under 1'),
    (f"{METRICS}[0].against", "baseline", "", "only preset outputDrift can be compared with a baseline"),
    (f"{METRICS}[1].threshold", GONE, f"{METRICS}[1]", "threshold is missing: write the time over which a request"),
    (f"{METRICS}[1].threshold", 250, "", f"Unsupported value: 250: {TIME}"),
    (f"{METRICS}[1].threshold", "fast", "", TIME),
    (f"{METRICS}[1].threshold", "0m0s", "", TIME),
    (f"{METRICS}[1].threshold", True, "", TIME),
    (f"{METRICS}[2].threshold", 0, "", INDEX),
    (f"{METRICS}[2].threshold", "2s", "", INDEX),
    (f"{METRICS}[2].threshold", True, "", INDEX),
    (f"{METRICS}[2].output", "other", "", "has no baseline here"),
    (f"{METRICS}[2].baseline", [], "", "against baseline needs edges and counts of an output"),
    (f"{METRICS}[2].against", "stable", "", "stable does not read the baseline: write against: baseline, or leave"),
    (f"{BASELINE}.edges", [0, 1, 0.5], "", "an edge is not over the one before it; edges ascend"),
    (f"{BASELINE}.edges", [0, 1, 1], "", "an edge is not over the one before it; edges ascend"),
    (f"{BASELINE}.counts", [1, 2, 3], "", "edges cut one bin more than there are edges"),
    (f"{BASELINE}.counts", [0] * 4, "", "are all 0: a baseline needs data"),
    # monitoring
    (M, {"task": "ranks"}, f"{M}.task", 'supported values: "binary", "multiclass", "ranking", "regression", "text"'),
    (M, {"prediction": {"threshold": 40}}, f"{M}.prediction.threshold", "is no probability: write 0 to 1"),
    (M, {"task": "text", "slices": [{"attribute": "a", "path": "b"}]}, f"{M}.slices", "compare who gets a class"),
    (M, {"features": [{"name": "a"}] * 2}, f"{M}.features[1]", 'Duplicate value: {"name":"a"}'),
    (M, {"features": [{"name": "a", "path": "$..b"}]}, f"{M}.features[0].path", "is no path: write one like $.inst"),
    (M, {"features": [{"name": "a", "path": "b[*]"}]}, f"{M}.features[0].path", "is no path: write one like $.inst"),
    (M, {"features": [{"name": "a", "path": "$[*][*]"}]}, f"{M}.features[0].path", "has [*] more than once, and it"),
    (M, {"baseline": {}}, f"{M}.baseline", "give a configMap or a file, one of them"),
    (
        M,
        {"baseline": {"file": "a"}},
        f"{M}.baseline.file",
        "is for `coalmine run`: in a cluster give a configMap",
    ),
    (M, {"baseline": {"configMap": "a", "digest": "0"}}, f"{M}.baseline.digest", "write sha256: and 64 digits from 0"),
    (M, {"feedback": {"redis": {"url": "redis://a:b@c"}}}, f"{M}.feedback.redis.url", "Invalid value: names a user or"),
    (M, {"feedback": {"ttl": "a week"}}, f"{M}.feedback.ttl", NO_DURATION),
    (M, {"drift": {"warn": 0.3}}, f"{M}.drift.warn", "is over critical: a warning comes first"),
    (M, {"drift": {"statistic": "ks", "critical": 1}}, f"{M}.drift.critical", "never fires: this statistic is at most"),
    (
        M,
        {"alerts": {"overrides": [{"name": "OutputDrift"}]}},
        f"{M}.alerts.overrides",
        "an entry changes nothing: give th",
    ),
    (M, _told("AucDrop", feedback={}, task="text"), f"{M}.alerts.overrides", "an entry is of another task: leave it"),
    (M, _told("OutcomeDrop"), f"{M}.alerts.overrides", "an entry is by labels: give spec.monitoring.feedback"),
    (M, _told("DisparateImpact"), f"{M}.alerts.overrides", "an entry compares groups: give spec.monitoring.slices"),
    ("spec", mirrored(monitoring=_told("FeatureDrift", action="fallback")), f"{M}.alerts.overrides", "give spec.fallb"),
    ("spec", mirrored(monitoring=_told("ModelLatencyP99")), f"{M}.alerts.overrides", "nothing says what is slow: give"),
    (M, {"feedback": {"redis": {"url": "redis://r:65536"}}}, f"{M}.feedback.redis.url", "has a port that is none: wri"),
    (M, {"features": [{"name": "a"}], "maxSeries": 83}, f"{M}.maxSeries", "has no room for a single feature or slice"),
    (M, {"payloadLog": {"url": "http://a:b@c"}}, f"{M}.payloadLog.url", "Invalid value: names a user or a password"),
    (M, {"payloadLog": {"file": "a"}}, f"{M}.payloadLog.file", "a sidecar in a cluster has no disk, so give a url"),
    (
        "spec",
        mirrored(strategy={}, analysis={"metrics": [{"name": "baseline", "preset": "errorRate"}]})
        | {"monitoring": {"baseline": {"configMap": "a"}}},
        METRICS,
        "a metric called baseline has the name of the verdict on spec.monitoring.baseline: take another one",
    ),
    # alerts
    ("spec.autoRollback.alerts[0]", {}, "", "matches every alert: give a name or matchLabels"),
    ("spec.autoRollback.alerts[0]", {"matchLabels": {}}, "", "matches every alert: give a name or matchLabels"),
    ("spec.autoRollback.alerts[1].matchLabels.severity", 1, "", "must be of type string"),
    ("spec.autoRollback.alerts", [{"name": "A"}] * 33, "", "Too many: 33: must have at most 32 items"),
]

UNKNOWN: list[tuple[str, Any]] = [
    ("spec.stratgy", {}),
    ("spec.strategy.cannary", {}),
    (f"{STEPS}[0].setweight", 3),
    ("spec.autoRollback.baketime", "1h"),
    (f"{METRICS}[0].treshold", 0.1),
]

TAKEN: list[tuple[str, Any]] = [
    ("metadata.name", "a" * 52),
    ("spec.replicas", 0),
    ("spec.analysis.minRequests", 3.0),
    ("spec.replicas", None),
    ("spec.fallback", None),
    ("spec.fallback", {}),
    ("spec.fallback", {"version": "previous", "replicas": 2}),
    ("spec.fallback", {"version": "2026-11-20", "template": good()["spec"]["template"]}),
    ("spec.model", GONE),
    ("spec.model.version", ""),
    ("spec.model", {"containerConcurrency": 1, "queueDepth": 0}),
    ("spec.circuitBreaker", {"consecutiveFailures": 0, "successRate": 90, "maxBackoff": "100ms"}),
    ("spec.retryBudget", {"percent": 0, "minPerSecond": 0}),
    ("spec.model.maxRequestBytes", 1 << 40),
    ("spec.template.spec.nodeSelector", {"a.b/c": "x"}),
    (f"{CONTAINERS}[0].resources", {"limits": {"nvidia.com/gpu": 1}}),
    ("spec", mirrored()),
    (STEPS, [{"setMirror": 10}, {"pause": {"requests": 10}}, {"setMirror": 100}, {"setWeight": 5}]),
    (STEPS, []),
    (STEPS, [{"pause": {}}]),
    (STEPS, [{"setWeight": 10}, {"setWeight": 10}]),
    (STEPS, [{"setWeight": 0}, {"pause": {"duration": "1m"}}, {"setWeight": 100}]),
    (STEPS, [{"setWeight": i} for i in range(100)]),
    ("spec.analysis.interval", "1h30m0.5s"),
    ("spec.autoRollback.bakeTime", "3650d"),
    ("spec.autoRollback.bakeTime", "0s"),
    (METRICS, []),
    (f"{METRICS}[0].threshold", GONE),
    (f"{METRICS}[0].threshold", 0),
    (f"{METRICS}[0].threshold", 1),
    (f"{METRICS}[1].threshold", "0.5s"),
    (f"{METRICS}[1].threshold", "0h2m"),
    (f"{METRICS}[2].threshold", 100),
    (f"{METRICS}[2].threshold", 0.2),
    (f"{METRICS}[2].output", GONE),
    (METRICS, [{"name": f"m{i}", "preset": "errorRate"} for i in range(20)]),
    (f"{CANARY}.affinity", {"cookie": "session"}),
    (f"{CANARY}.match[0].headers[0].value", "tab\there"),
    (M, {}),
    (M, watched()),
    # Files are for `coalmine run`.
    *((M, watched(**changes)) for changes in TAKEN_MONITORING if "'file'" not in str(changes)),
]

#: Beyond what rules of the API server can say: the operator refuses them, with the condition InvalidSpec.
ONLY_THE_OPERATOR_KNOWS = {
    f"{METRICS}: 9 different latency thresholds, at most 8 are allowed",
    f"{M}.drift.averageRunLength: 1m is under the window of 1h",
}


@pytest.fixture(scope="module")
def manifests(cluster: Cluster) -> Manifests:
    install(cluster)
    return Manifests(cluster, "default")


def said_of(manifests: Manifests, manifest: dict[str, Any]) -> list[str]:
    """What is said; nothing where it is taken.

    Without the server's remarks beside it: that a schema within a schema did not hold (`<nil>`), and what the scale
    subresource has to say of replicas (`.spec`).
    """
    try:
        manifests.try_out(manifest)
    except RefusedError as error:
        return [line for line in error.lines if not line.startswith(("<nil>: ", ".spec"))] or error.lines
    return []


def test_refused_with_one_line_that_names_field_and_remedy(manifests: Manifests) -> None:
    wrong = {}
    for path, value, field, message in REFUSED:
        lines = said_of(manifests, changed(path, value))
        if len(lines) != 1 or not lines[0].startswith(f"{field or path}: ") or message not in lines[0]:
            wrong[path, str(value)[:40]] = message, lines
    assert wrong == {}
    assert len(REFUSED) + len(TAKEN) + len(UNKNOWN) >= 60


def test_unknown_fields_are_named(manifests: Manifests) -> None:
    for path, value in UNKNOWN:
        (line,) = said_of(manifests, changed(path, value))
        assert f'unknown field "{path}"' in line


def test_taken_and_so_by_the_operator(manifests: Manifests) -> None:
    for path, value in TAKEN:
        manifest = changed(path, value)
        assert said_of(manifests, manifest) == [], path
        kept = manifests.try_out(manifest)
        assert decode(kept).spec == decode(manifest).spec, path


def test_what_the_operator_refuses_the_server_refuses(manifests: Manifests) -> None:
    """The tables of the types' own tests: nobody is told at `kubectl get` what `kubectl apply` could have said."""
    taken = set()
    broken = [(changed(path, value), expected) for path, value, expected in BROKEN]
    broken += [(changed(M, watched(**changes)), f"{M}{path}: {said}") for changes, path, said in BROKEN_MONITORING]
    for manifest, expected in broken:
        try:
            if json.loads(json.dumps(manifest, allow_nan=False)) != manifest:
                continue  # another manifest by the time it is sent
        except (TypeError, ValueError):
            continue  # no JSON, so nothing that could be sent
        if not said_of(manifests, manifest):
            taken.add(expected if isinstance(expected, str) else expected[0])
    assert taken == ONLY_THE_OPERATOR_KNOWS


def test_defaults_appear(manifests: Manifests) -> None:
    spec = manifests.try_out(MINIMAL)["spec"]
    assert spec == {
        "template": MINIMAL["spec"]["template"],
        "model": {
            "protocol": "auto",
            "port": 8080,
            "idempotent": True,
            "timeout": "1m",
            "containerConcurrency": 0,
            "maxRequestBytes": 33554432,
            "newTraces": "sampled",
        },
        "replicas": 1,
        "paused": False,
        "retryBudget": {"percent": 20, "minPerSecond": 10, "window": "10s"},
        "strategy": {"canary": {"scaleDownDelay": "30s"}},
        "analysis": {
            "interval": "15s",
            "minRequests": 100,
            "alpha": 0.05,
            "onInconclusive": "Wait",
            "metrics": [{"name": "errors", "preset": "errorRate", "against": "stable"}],
        },
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 10,
    }
    fallback = manifests.try_out(changed("spec.fallback", {}))["spec"]["fallback"]
    assert fallback == {
        "version": "previous",
        "replicas": 1,
        "statusCodes": [502, 503, 504],
        "maxRequestBytes": 1048576,
    }
    breaker = manifests.try_out(changed("spec.circuitBreaker", {}))["spec"]["circuitBreaker"]
    assert breaker == {
        "consecutiveFailures": 5,
        "successRate": 0,
        "minRequests": 20,
        "window": "30s",
        "minBackoff": "1s",
        "maxBackoff": "1m",
    }
    assert manifests.try_out(changed("spec.autoRollback", {}))["spec"]["autoRollback"] == {"bakeTime": "1h"}


def test_what_is_passed_on_is_kept_whole(manifests: Manifests) -> None:
    container = {"name": "model", "image": "x", "env": [{"name": "A", "value": "b"}], "somethingNew": {"a": [1, 2.5]}}
    template = {
        "metadata": {"labels": {"app": "x"}, "annotations": {"a/b": "c"}},
        "spec": {"containers": [container], "nodeSelector": {"gpu": "yes"}},
    }
    manifest = changed("spec.template", template)
    manifest["spec"]["fallback"]["template"] = template
    manifest["spec"]["model"]["lineage"] = {"run": 17, "data": [{"name": "cards", "rows": 1000.5}]}
    kept = manifests.try_out(manifest)
    for path in ("spec.template", "spec.fallback.template", "spec.model.lineage"):
        assert get(kept, path) == get(manifest, path)
