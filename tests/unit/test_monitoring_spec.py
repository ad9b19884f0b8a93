"""`spec.monitoring`: what is taken, and what people read who wrote something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.manifests import GONE, changed, good, mirrored, problem_lines, watched

from coalmine_operator.api.codec import spec_from_json, to_json
from coalmine_operator.api.decode import Invalid, decode, read_manifests
from coalmine_operator.api.monitoring import (
    AlertName,
    AlertOverride,
    BaselineRef,
    Drift,
    Feature,
    Feedback,
    Monitoring,
    PayloadLog,
    Redis,
    SecretKey,
    Slice,
)
from coalmine_sidecar.jsonpath import path_problem

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
M = "spec.monitoring"
NO_DURATION = "is no duration: write it like 250ms, 15s, 10m or 1h30m"
ONE_OF = "give a {} or a {}, one of them"
PATH = "is no path: begin with / and write what is not ASCII as %XX"
DIGEST = "is not allowed: write sha256: and 64 digits from 0 to f, as sha256sum prints them"
NO_HEADER = "is no name of a header or cookie: write letters, digits and -"
REDIS = "is no address of a Redis: write redis://HOST:PORT/DB"
NO_PORT = "has a port that is none: write 1 to 65535"
STEPS_ONCE = "[*] stands for the rows, so at most once; write a position instead, such as [0]"


def monitoring(**changes: Any) -> Monitoring:
    found = decode(changed(M, watched(**changes))).spec.monitoring
    assert found is not None
    return found


def test_every_field() -> None:
    found = monitoring()
    assert found.features == (
        Feature(name="AGEP", path="$.instances[*].age"),
        Feature(name="SEX", path="x[1]", type="categorical"),
        Feature(name="mean radius (µm)"),
    )
    assert found.baseline == BaselineRef(
        config_map="fraud-v3", key="v3.json", digest=f"sha256:{'0a' * 32}", min_samples=1000
    )
    assert found.feedback == Feedback(
        path="/v1/feedback",
        ttl=36 * 3600,
        max_pending=5000,
        expected_coverage=0.5,
        redis=Redis(url="redis://redis.shop:6379/0", password_secret=SecretKey(name="redis", key="word")),
    )
    assert found.slices[1] == Slice(attribute="country", header="x-country")
    assert found.drift == Drift(statistic="js", warn=0.05, critical=0.1, window=1800, average_run_length=90 * 86400)
    assert found.alerts.overrides == (
        AlertOverride(name="RecallDrop", threshold=0.05, for_=600, action="rollback"),
        AlertOverride(name="AucDrop"),
    )
    assert found.payload_log == PayloadLog(
        percent=0.5, url="http://logger:8080/", redact=("$.instances[*].name",), max_bytes=1024
    )
    assert found.max_series == 500


def test_nothing_is_needed() -> None:
    assert decode(changed(M, {})).spec.monitoring == Monitoring()
    assert decode(good()).spec.monitoring is None
    assert Monitoring().drift.window == 3600
    assert Monitoring().drift.average_run_length == 30 * 86400


def test_it_comes_back_from_storage() -> None:
    spec = decode(changed(M, watched())).spec
    assert spec_from_json(to_json(spec)) == spec


# What to replace, by what, the path within `spec.monitoring`, what is said of it.
BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"taks": "binary"}, ".taks", "unknown field; did you mean task?"),
    ({"task": "ranks"}, ".task", '"ranks" is not allowed: write binary, multiclass, ranking, regression or text'),
    ({"prediction": {"threshold": 40}}, ".prediction.threshold", "40 is no probability: write 0 to 1"),
    ({"prediction": {"score": "$..a"}}, ".prediction.score", '"$..a": no name after the dot at character 2'),
    ({"prediction": {"label": "x[*]"}}, ".prediction.label", '"x[*]": a column has a value of each row anyway'),
    ({"predictionId": {"header": "x id"}}, ".predictionId.header", f'"x id" {NO_HEADER}'),
    ({"outputs": [{"name": "a", "path": ""}]}, ".outputs[0].path", "is empty"),
    ({"outputs": [{"name": "a"}]}, ".outputs[0].path", "missing"),
    ({"outputs": [{"name": f"o{i}", "path": "$"} for i in range(9)]}, ".outputs", "has 9 entries, at most 8"),
    ({"features": [{"name": "a"}, {"name": "a"}]}, ".features[1].name", '"a" stands twice: entry 0 has it too'),
    ({"features": [{"name": ""}]}, ".features[0].name", "is empty"),
    ({"features": [{"name": "a\nb"}]}, ".features[0].name", '"a\\nb" holds a control character: it is a label of met'),
    ({"features": [{"name": "a" * 129}]}, ".features[0].name", f'"{"a" * 57}…" has 129 characters, at most 128'),
    ({"features": [{"name": f"f{i}"} for i in range(201)]}, ".features", "has 201 entries, at most 200 are allowed"),
    ({"features": [{"name": "a", "type": "int"}]}, ".features[0].type", '"int" is not allowed: write categorical or'),
    ({"features": [{"name": "a", "path": "$.x[*].y[*]"}]}, ".features[0].path", f'"$.x[*].y[*]": {STEPS_ONCE}'),
    ({"features": [{"name": "a", "path": "$x"}]}, ".features[0].path", "\"$x\": 'x' should begin with . or ["),
    ({"baseline": {}}, ".baseline", ONE_OF.format("configMap", "file")),
    ({"baseline": {"configMap": "a", "file": "b"}}, ".baseline", ONE_OF.format("configMap", "file")),
    ({"baseline": {"configMap": "A_b"}}, ".baseline.configMap", '"A_b" is no name of a ConfigMap: write lower-case'),
    ({"baseline": {"configMap": "a", "key": "a/b"}}, ".baseline.key", '"a/b" is not allowed: write letters, digits,'),
    ({"baseline": {"file": "b", "digest": "md5:0"}}, ".baseline.digest", f'"md5:0" {DIGEST}'),
    ({"baseline": {"file": "b", "digest": "0a" * 32}}, ".baseline.digest", f'"{"0a" * 28}0…" {DIGEST}'),
    ({"baseline": {"file": "b", "minSamples": 0}}, ".baseline.minSamples", "0 is under 1"),
    ({"feedback": {"path": "feedback"}}, ".feedback.path", f'"feedback" {PATH}'),
    ({"feedback": {"path": "/a?b"}}, ".feedback.path", f'"/a?b" {PATH}'),
    ({"feedback": {"ttl": "0s"}}, ".feedback.ttl", "0s is not over 0s"),
    ({"feedback": {"ttl": 7}}, ".feedback.ttl", f"7 {NO_DURATION}"),
    ({"feedback": {"maxPending": 0}}, ".feedback.maxPending", "0 is under 1"),
    ({"feedback": {"expectedCoverage": 30}}, ".feedback.expectedCoverage", "30 is over 1"),
    ({"feedback": {"redis": {"url": "redis:6379"}}}, ".feedback.redis.url", f'"redis:6379" {REDIS}'),
    ({"feedback": {"redis": {"url": "rediss://r"}}}, ".feedback.redis.url", f'"rediss://r" {REDIS}'),
    ({"feedback": {"redis": {"url": "redis://r:65536"}}}, ".feedback.redis.url", f'"redis://r:65536" {NO_PORT}'),
    ({"feedback": {"redis": {"url": "redis://[::1]:0/1"}}}, ".feedback.redis.url", f'"redis://[::1]:0/1" {NO_PORT}'),
    (
        {"feedback": {"redis": {"url": "redis://r", "passwordSecret": {"name": "A"}}}},
        ".feedback.redis.passwordSecret.name",
        '"A" is no name of a Secret: write lower-case letters, digits, - and .',
    ),
    ({"slices": [{"attribute": "sex"}]}, ".slices[0]", ONE_OF.format("path", "header")),
    ({"slices": [{"attribute": "a", "path": "b", "header": "c"}]}, ".slices[0]", ONE_OF.format("path", "header")),
    ({"slices": [{"attribute": "a", "header": "c d"}]}, ".slices[0].header", f'"c d" {NO_HEADER}'),
    ({"slices": [{"attribute": "a", "path": "$"}] * 2}, ".slices[1].attribute", '"a" stands twice: entry 0 has it'),
    (
        {"task": "regression", "alerts": {}},
        ".slices",
        "compare who gets a class, and task regression has none: leave them out",
    ),
    ({"drift": {"warn": 0.3}}, ".drift.warn", "0.3 is over critical, 0.2: a warning comes first"),
    ({"drift": {"warn": 0}}, ".drift.warn", "0 is not over 0"),
    ({"drift": {"statistic": "ks", "critical": 1}}, ".drift.critical", "1 never fires: ks is at most 1"),
    (
        {"drift": {"statistic": "PSI"}},
        ".drift.statistic",
        '"PSI" is not allowed: write chi2, hellinger, js, ks, psi or',
    ),
    ({"drift": {"window": "0s"}}, ".drift.window", "0s is not over 0s"),
    ({"drift": {"averageRunLength": "1m"}}, ".drift.averageRunLength", "1m is under the window of 1h"),
    (
        {"alerts": {"overrides": [{"name": "Recall"}]}},
        ".alerts.overrides[0].name",
        '"Recall" is not allowed: write AccuracyDrop',
    ),
    (
        {"alerts": {"overrides": [{"name": "RecallDrop"}]}},
        ".alerts.overrides[0]",
        "changes nothing: give threshold, for, action or enabled",
    ),
    (
        {"alerts": {"overrides": [{"name": "AucDrop", "action": "none"}] * 2}},
        ".alerts.overrides[1].name",
        '"AucDrop" stands twice: entry 0 has it too',
    ),
    (
        {"alerts": {"overrides": [{"name": "AucDrop", "action": "page"}]}},
        ".alerts.overrides[0].action",
        '"page" is not allowed: write fallback, hold, none or rollback',
    ),
    (
        {"alerts": {"overrides": [{"name": "AucDrop", "for": "soon"}]}},
        ".alerts.overrides[0].for",
        f'"soon" {NO_DURATION}',
    ),
    (
        {"alerts": {"overrides": [{"name": "AucDrop", "threshold": -1}]}},
        ".alerts.overrides[0].threshold",
        "-1 is under 0",
    ),
    (
        {"alerts": {"overrides": [{"name": "ErrorRise", "action": "hold"}]}},
        ".alerts.overrides[0].name",
        '"ErrorRise" is of task regression, and this one is binary: leave it out',
    ),
    (
        {"task": "regression", "slices": [], "alerts": {"overrides": [{"name": "AucDrop", "action": "hold"}]}},
        ".alerts.overrides[0].name",
        '"AucDrop" is of task binary or ranking, and this one is regression: leave it out',
    ),
    (
        {"feedback": GONE, "alerts": {"overrides": [{"name": "OutcomeDrop", "threshold": 0.1}]}},
        ".alerts.overrides[0].name",
        '"OutcomeDrop" is by labels: give spec.monitoring.feedback',
    ),
    (
        {"slices": GONE, "alerts": {"overrides": [{"name": "DisparateImpact", "threshold": 0.1}]}},
        ".alerts.overrides[0].name",
        '"DisparateImpact" compares groups: give spec.monitoring.slices',
    ),
    ({"payloadLog": {}}, ".payloadLog", ONE_OF.format("url", "file")),
    ({"payloadLog": {"url": "http://a", "file": "b"}}, ".payloadLog", ONE_OF.format("url", "file")),
    ({"payloadLog": {"url": "kafka:9092"}}, ".payloadLog.url", '"kafka:9092" is no URL: write http://HOST:PORT/PATH'),
    (
        {"payloadLog": {"file": "/"}},
        ".payloadLog.file",
        '"/" is a folder: write a file',
    ),
    ({"payloadLog": {"file": "logs/"}}, ".payloadLog.file", '"logs/" is a folder: '),
    ({"payloadLog": {"file": ".."}}, ".payloadLog.file", '".." is a folder: '),
    ({"payloadLog": {"file": "a", "percent": 0}}, ".payloadLog.percent", "0 is not over 0"),
    ({"payloadLog": {"file": "a", "percent": 101}}, ".payloadLog.percent", "101 is over 100"),
    ({"payloadLog": {"file": "a", "redact": ["name"]}}, ".payloadLog.redact[0]", '"name": a JSON path begins with $'),
    ({"payloadLog": {"file": "a", "maxBytes": 1 << 25}}, ".payloadLog.maxBytes", "33554432 is over 16777216"),
    ({"maxSeries": 0}, ".maxSeries", "0 is under 1"),
    ({"maxSeries": 83}, ".maxSeries", "83 has no room for a single feature: write 84 or more"),
    ({"maxSeries": 483, "baseline": GONE}, ".maxSeries", "483 has no room for a single feature: write 484 or more"),
    ({"maxSeries": 211, "features": []}, ".maxSeries", "211 has no room for a single slice: write 212 or more"),
]


@pytest.mark.parametrize(("changes", "path", "said"), BROKEN)
def test_broken(changes: dict[str, Any], path: str, said: str) -> None:
    (line,) = problem_lines(changed(M, watched(**changes)))
    assert line.startswith(f"{M}{path}: {said}")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"feedback": {"redis": {"url": "redis://:hunter2@redis:6379"}}}, "feedback.redis.url"),
        ({"feedback": {"redis": {"url": "redis:hunter2@redis"}}}, "feedback.redis.url"),
        ({"payloadLog": {"url": "https://me:hunter2@sink"}}, "payloadLog.url"),
    ],
)
def test_a_password_is_refused_and_not_shown(changes: dict[str, Any], path: str) -> None:
    (line,) = problem_lines(changed(M, watched(**changes)))
    assert line.startswith(f"{M}.{path}: names a user or a password: ")
    assert "hunter2" not in line


def test_every_slip_is_named_at_once() -> None:
    wrong = watched(drift={"warn": 1}, baseline={}, maxSeries="many", features=[{"name": "a", "path": "$."}])
    assert [line.partition(": ")[0] for line in problem_lines(changed(M, wrong))] == [
        f"{M}.features[0].path",
        f"{M}.baseline",
        f"{M}.drift.warn",
        f"{M}.maxSeries",
    ]


TAKEN: list[dict[str, Any]] = [
    {"baseline": {"file": "baselines/v3.json"}},
    {"baseline": {"configMap": "a.b-c", "digest": ""}},
    {"drift": {"warn": 0.2, "critical": 0.2}},
    {"drift": {"statistic": "wasserstein", "critical": 3}},
    {"drift": {"window": "1h", "averageRunLength": "1h"}},
    {"prediction": {}, "task": "ranking", "alerts": {}},
    {"prediction": {"threshold": 40}, "task": "regression", "slices": [], "alerts": {}},
    {"feedback": {"redis": {"url": "redis://[::1]:6379"}}},
    {"feedback": {"redis": {"url": "redis://redis"}}},
    {
        "alerts": {
            "overrides": [{"name": name, "action": "none"} for name in get_args(AlertName) if name != "ErrorRise"]
        }
    },
    # What is off anyway may be turned off.
    {"alerts": {"overrides": [{"name": name, "enabled": False} for name in get_args(AlertName)]}},
    {"alerts": {"overrides": [{"name": "OutputDrift", "action": "fallback"}]}},
    {"maxSeries": 84},
    {"maxSeries": 1, "features": [], "slices": []},
    {"feedback": {"redis": {"url": "redis://r:06379/15"}}},
    {"alerts": {"defaults": False}},
    {"payloadLog": {"file": "log.jsonl", "percent": 100, "redact": ["$", "$.messages[*].content[*].text"]}},
    {"features": [{"name": f"f{i}"} for i in range(200)]},
]


@pytest.mark.parametrize("changes", TAKEN)
def test_taken(changes: dict[str, Any]) -> None:
    assert monitoring(**changes) != monitoring()


@given(path=st.text("$.[]*'\"x0 ", min_size=1, max_size=12))
def test_a_path_is_taken_exactly_where_it_can_be_followed(path: str) -> None:
    found: tuple[str, ...] = ()
    try:
        decode(changed(M, {"features": [{"name": "a", "path": path}]}))
    except Invalid as error:
        found = tuple(problem.path for problem in error.problems)
    assert found == ((f"{M}.features[0].path",) if path_problem(path) else ())


def test_the_verdict_on_the_baseline_has_a_name_of_its_own() -> None:
    metrics = [{"name": "baseline", "preset": "errorRate"}]
    spec = mirrored(strategy={}, analysis={"metrics": metrics}, monitoring={"baseline": {"configMap": "a"}})
    (line,) = problem_lines(changed("spec", spec))
    assert line.startswith(
        'spec.analysis.metrics[0].name: "baseline" is the name of the verdict on spec.monitoring.bas'
    )
    del spec["monitoring"]["baseline"]
    decode(changed("spec", spec))


def alerts_in(spec: dict[str, Any], **override: Any) -> dict[str, Any]:
    """`spec` with a monitoring that overrides one alert."""
    return changed("spec", spec | {"monitoring": {"alerts": {"overrides": [override]}}})


def test_who_asks_for_the_fallback_has_one() -> None:
    spec = mirrored()
    (line,) = problem_lines(alerts_in(spec, name="OutputDrift", action="fallback"))
    assert line == (
        "spec.monitoring.alerts.overrides[0].action: fallback: there is none that could answer: give spec.fallback"
    )
    decode(alerts_in(spec, name="OutputDrift", action="fallback", enabled=False))
    decode(alerts_in(spec | {"fallback": {}}, name="OutputDrift", action="fallback"))


@pytest.mark.parametrize("name", ["ModelLatencyP99", "ModelLatencyBudgetBurn"])
def test_an_alert_of_latency_needs_to_know_what_is_slow(name: str) -> None:
    spec = mirrored()
    (line,) = problem_lines(alerts_in(spec, name=name, action="hold"))
    assert line == (
        f'spec.monitoring.alerts.overrides[0].name: "{name}" is never told, since nothing says what is slow: '
        "give spec.analysis a latency metric, or ModelLatencyP99 a threshold"
    )
    latency = {"name": "slow", "preset": "latency", "threshold": "250ms"}
    spec["analysis"]["metrics"].append(latency)
    decode(alerts_in(spec, name=name, action="hold"))
    decode(alerts_in(mirrored(), name="ModelLatencyP99", threshold=0.5))


def test_the_example_is_the_other_example_watched() -> None:
    plain, watched_one = (
        decode(document.raw)
        for name in ("breast-cancer", "breast-cancer-monitored")
        for document in read_manifests((EXAMPLES / f"{name}.yaml").read_text(), source=name)[0]
    )
    assert watched_one.spec.monitoring is not None
    assert msgspec.structs.replace(watched_one.spec, monitoring=None) == plain.spec
