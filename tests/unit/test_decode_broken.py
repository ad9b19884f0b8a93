"""Broken manifests: exactly which lines a person gets to read."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.manifests import GONE, changed, mirrored, problem_lines

NAME_RULE = "write lower-case letters, digits and -, with a letter or digit at both ends"
VERSION_RULE = "write letters, digits, -, _ and ., with a letter or digit at both ends"
NO_DURATION = "is no duration: write it like 250ms, 15s, 10m or 1h30m"
SLOW = "write the time over which a request is slow, such as 250ms"
STEPS = "spec.strategy.canary.steps"
METRICS = "spec.analysis.metrics"
CONTAINERS = "spec.template.spec.containers"
CANARY = "spec.strategy.canary"
PRESETS = "errorRate, latency, outputDrift or shadowDisagreement"
FOR_EVER = "waits for ever: the canary's weight is still 0; put a setWeight or setMirror before it"
EMPTY_STEP = (
    "is empty: give setWeight, setMirror or pause "
    "(`pause: {}` waits for `coalmine resume`; in a cluster: annotation coalmine.dev/resume)"
)
NO_HEADER = "is no name of a header or cookie: write letters, digits and -"

# (path, value, the line or lines)
BROKEN: list[tuple[str, Any, str | list[str]]] = [
    # the manifest itself
    ("apiVersion", GONE, "apiVersion: missing"),
    ("apiVersion", "coalmine.dev/v1", 'apiVersion: "coalmine.dev/v1" is not allowed: write coalmine.dev/v1alpha1'),
    ("kind", "Deployment", 'kind: "Deployment" is not allowed: write ModelDeployment'),
    ("metadata", GONE, "metadata: missing"),
    ("metadata", "fraud", 'metadata: "fraud" is no mapping: give fields as `name: value`'),
    ("metadata.name", GONE, "metadata.name: missing"),
    ("metadata.name", None, "metadata.name: missing"),
    ("metadata.name", "", "metadata.name: is empty"),
    ("metadata.name", 17, "metadata.name: 17 is no text: put it in quotes"),
    ("metadata.name", "Fraud", f'metadata.name: "Fraud" is not allowed: {NAME_RULE}'),
    ("metadata.name", "fraud\n", f'metadata.name: "fraud\\n" is not allowed: {NAME_RULE}'),
    ("metadata.name", "a" * 64, f'metadata.name: "{"a" * 57}…" has 64 characters, at most 63 are allowed'),
    ("metadata.namespace", "-x", f'metadata.namespace: "-x" is not allowed: {NAME_RULE}'),
    ("metadata.labels", {"a.b/c": 5}, 'metadata.labels["a.b/c"]: 5 is no text: put it in quotes'),
    ("metadata.annotations", {"on": True}, "metadata.annotations.on: true is no text: put it in quotes"),
    ("spec", GONE, "spec: missing"),
    ("spec", [], "spec: a list is no mapping: give fields as `name: value`"),
    ("sepc", {}, "sepc: unknown field; did you mean spec?"),
    ("spec.stratgy", {}, "spec.stratgy: unknown field; did you mean strategy?"),
    ("spec.strategy.cannary", {}, "spec.strategy.cannary: unknown field; did you mean canary?"),
    (f"{STEPS}[0].setweight", 3, f"{STEPS}[0].setweight: unknown field; did you mean setWeight?"),
    ("spec.autoRollback.baketime", "1h", "spec.autoRollback.baketime: unknown field; did you mean bakeTime?"),
    ("spec.strategy.rolling", {}, "spec.strategy.rolling: unknown field; known here: canary"),
    ("spec.strategy.a\nb", {}, 'spec.strategy["a\\nb"]: unknown field; known here: canary'),
    # numbers
    ("spec.replicas", "two", 'spec.replicas: "two" is no whole number'),
    ("spec.replicas", "2", 'spec.replicas: "2" is no whole number'),
    ("spec.replicas", True, "spec.replicas: true is no whole number"),
    ("spec.replicas", 2.5, "spec.replicas: 2.5 is no whole number"),
    ("spec.replicas", -1, "spec.replicas: -1 is under 0"),
    ("spec.replicas", 1001, "spec.replicas: 1001 is over 1000"),
    ("spec.replicas", 10**400, "spec.replicas: a number of 1329 bits is a number too large"),
    ("spec.replicas", math.inf, "spec.replicas: inf is no finite number"),
    ("spec.replicas", {}, "spec.replicas: a mapping is no whole number"),
    ("spec.analysis.alpha", 0, "spec.analysis.alpha: 0 is not over 0"),
    ("spec.analysis.alpha", 1, "spec.analysis.alpha: 1 is not under 1"),
    ("spec.analysis.alpha", "low", 'spec.analysis.alpha: "low" is no number'),
    ("spec.analysis.alpha", math.nan, "spec.analysis.alpha: nan is no finite number"),
    ("spec.model.port", 0, "spec.model.port: 0 is under 1"),
    ("spec.model.port", 65536, "spec.model.port: 65536 is over 65535"),
    ("spec.progressDeadlineSeconds", "10m", 'spec.progressDeadlineSeconds: "10m" is no whole number'),
    ("spec.fallback.statusCodes", [502, 200], "spec.fallback.statusCodes[1]: 200 is under 400"),
    ("spec.fallback.statusCodes", [500] * 17, "spec.fallback.statusCodes: has 17 entries, at most 16 are allowed"),
    ("spec.fallback.statusCodes", 503, "spec.fallback.statusCodes: 503 is no list"),
    # words, texts, booleans, free parts
    ("spec.paused", "yes", 'spec.paused: "yes" is neither true nor false'),
    ("spec.model.idempotent", 1, "spec.model.idempotent: 1 is neither true nor false"),
    ("spec.model.version", 1.1, "spec.model.version: 1.1 is no text: put it in quotes"),
    ("spec.model.version", "v 1", f'spec.model.version: "v 1" is not allowed: {VERSION_RULE}'),
    ("spec.model.protocol", "v3", 'spec.model.protocol: "v3" is not allowed: write auto, openai, v1 or v2'),
    ("spec.model.protocol", 2, "spec.model.protocol: 2 is not allowed: write auto, openai, v1 or v2"),
    ("spec.model.newTraces", True, "spec.model.newTraces: true is not allowed: write none, sampled or unsampled"),
    (
        "spec.analysis.onInconclusive",
        "wait",
        'spec.analysis.onInconclusive: "wait" is not allowed: write Pause, Rollback or Wait',
    ),
    ("spec.model.lineage", "run 17", 'spec.model.lineage: "run 17" is no mapping: give entries as `name: value`'),
    ("spec.model.lineage", {"a": {"b": [1, math.nan]}}, "spec.model.lineage.a.b[1]: nan is no finite number"),
    (
        "spec.model.lineage",
        {"a": b"x"},
        "spec.model.lineage.a: a bytes is nothing that JSON can hold: put it in quotes",
    ),
    ("spec.model.lineage", {3: 4}, "spec.model.lineage[3]: 3 is no text: put it in quotes"),
    # durations
    ("spec.analysis.interval", "5 minutes", f'spec.analysis.interval: "5 minutes" {NO_DURATION}'),
    ("spec.analysis.interval", 15, f"spec.analysis.interval: 15 {NO_DURATION}"),
    ("spec.analysis.interval", "-5s", f'spec.analysis.interval: "-5s" {NO_DURATION}'),
    ("spec.analysis.interval", "٣s", f'spec.analysis.interval: "٣s" {NO_DURATION}'),
    ("spec.analysis.interval", "0s", "spec.analysis.interval: 0s is not over 0s"),
    ("spec.model.timeout", "0ms", "spec.model.timeout: 0s is not over 0s"),
    ("spec.autoRollback.bakeTime", "4000d", 'spec.autoRollback.bakeTime: "4000d" is too long: at most 3650d'),
    (f"{STEPS}[3].pause.duration", "", f'{STEPS}[3].pause.duration: "" {NO_DURATION}'),
    # steps
    (f"{STEPS}[2].setWeight", 140, f"{STEPS}[2].setWeight: 140 is over 100"),
    (f"{STEPS}[2].setWeight", -1, f"{STEPS}[2].setWeight: -1 is under 0"),
    (f"{STEPS}[5].setWeight", 10, f"{STEPS}[5].setWeight: 10 is under the 25 before it; steps may only grow"),
    (f"{STEPS}[1]", {}, f"{STEPS}[1]: {EMPTY_STEP}"),
    (f"{STEPS}[1]", {"pause": None}, f"{STEPS}[1]: {EMPTY_STEP}"),
    (f"{STEPS}[1].setWeight", 9, f"{STEPS}[1]: has setWeight and pause: make two steps of them"),
    (f"{STEPS}[1].pause", 500, f"{STEPS}[1].pause: 500 is no mapping: give fields as `name: value`"),
    (f"{STEPS}[1].pause.requests", 0, f"{STEPS}[1].pause.requests: 0 is under 1"),
    (
        f"{STEPS}[0].setWeight",
        0,
        f"{STEPS}[1].pause.requests: {FOR_EVER}",
    ),
    (STEPS, [{"setMirror": 0}, {"pause": {"requests": 5}}], f"{STEPS}[1].pause.requests: {FOR_EVER}"),
    (STEPS, [{"setMirror": 101}], f"{STEPS}[0].setMirror: 101 is over 100"),
    (STEPS, [{"setMirror": {"percentage": 5}}], f"{STEPS}[0].setMirror: a mapping is no whole number"),
    (STEPS, [{"setMirror": 5, "pause": {}}], f"{STEPS}[0]: has setMirror and pause: make two steps of them"),
    (STEPS, [{"setMirror": 5, "setWeight": 5}], f"{STEPS}[0]: has setWeight and setMirror: make two steps of them"),
    (
        STEPS,
        [{"setMirror": 5}, {"setWeight": 5}, {"setMirror": 0}],
        f"{STEPS}[2].setMirror: comes after setWeight 5: mirror before the canary gets users",
    ),
    (
        "spec",
        mirrored(model={"idempotent": False}),
        f"{STEPS}[0].setMirror: sends requests twice, and spec.model.idempotent is false",
    ),
    (
        "spec",
        mirrored(strategy={}),
        f"{METRICS}[0].preset: compares nothing: put a setMirror into spec.strategy.canary.steps",
    ),
    (f"{STEPS}[4]", [], f"{STEPS}[4]: a list is no mapping: give fields as `name: value`"),
    (STEPS, [{"setWeight": 1}] * 101, f"{STEPS}: has 101 entries, at most 100 are allowed"),
    # affinity and matches
    (f"{CANARY}.affinity", {}, f"{CANARY}.affinity: give a header or a cookie, one of them"),
    (f"{CANARY}.affinity.cookie", "u", f"{CANARY}.affinity: give a header or a cookie, one of them"),
    (f"{CANARY}.affinity.header", "x user", f'{CANARY}.affinity.header: "x user" {NO_HEADER}'),
    (f"{CANARY}.affinity.header", "", f"{CANARY}.affinity.header: is empty"),
    (f"{CANARY}.match[0].headers", [], f"{CANARY}.match[0].headers: has 0 entries, needs at least 1"),
    (f"{CANARY}.match[0].headers", GONE, f"{CANARY}.match[0].headers: missing"),
    (f"{CANARY}.match[0].headers[0].name", "a:b", f'{CANARY}.match[0].headers[0].name: "a:b" {NO_HEADER}'),
    (
        f"{CANARY}.match[0].headers[0].value",
        "a\r\nb",
        f'{CANARY}.match[0].headers[0].value: "a\\r\\nb" holds a control character, which no header can have',
    ),
    # breaker, retries, concurrency
    (
        "spec.circuitBreaker",
        {"consecutiveFailures": 0},
        "spec.circuitBreaker: never opens: give consecutiveFailures or successRate",
    ),
    ("spec.circuitBreaker", {"successRate": 101}, "spec.circuitBreaker.successRate: 101 is over 100"),
    ("spec.circuitBreaker", {"window": "0s"}, "spec.circuitBreaker.window: 0s is not over 0s"),
    ("spec.circuitBreaker", {"minBackoff": 5}, f"spec.circuitBreaker.minBackoff: 5 {NO_DURATION}"),
    ("spec.retryBudget", {"percent": -1}, "spec.retryBudget.percent: -1 is under 0"),
    ("spec.retryBudget", {"window": "0s"}, "spec.retryBudget.window: 0s is not over 0s"),
    ("spec.retryBudget", {"minPerSecond": 0.5}, "spec.retryBudget.minPerSecond: 0.5 is no whole number"),
    ("spec.model.containerConcurrency", -1, "spec.model.containerConcurrency: -1 is under 0"),
    (
        "spec.model.queueDepth",
        5,
        "spec.model.queueDepth: has no meaning without a limit: give containerConcurrency",
    ),
    # fallback
    ("spec.fallback.version", "", "spec.fallback.version: is empty: write previous, or a version and its template"),
    (
        "spec.fallback.version",
        "previous",
        "spec.fallback.version: previous has no template of its own: "
        "name the template's version, or leave the template out",
    ),
    (
        "spec.fallback.version",
        "2026-11-20",
        'spec.fallback.version: "2026-11-20" is also spec.model.version: another template needs another version',
    ),
    (
        "spec.fallback.template",
        GONE,
        'spec.fallback.template: missing: version "simple" needs one; only previous goes without',
    ),
    (
        "spec.fallback.template.spec",
        GONE,
        "spec.fallback.template.spec: missing: a template is a pod's, with spec.containers",
    ),
    # the template
    ("spec.template", GONE, "spec.template: missing"),
    ("spec.template", {}, "spec.template.spec: missing: a template is a pod's, with spec.containers"),
    (CONTAINERS, [], f"{CONTAINERS}: missing: give a list with the model's container"),
    (CONTAINERS, {"name": "m"}, f"{CONTAINERS}: missing: give a list with the model's container"),
    (f"{CONTAINERS}[0]", "model", f'{CONTAINERS}[0]: "model" is no mapping'),
    (f"{CONTAINERS}[0].name", GONE, f"{CONTAINERS}[0].name: missing: every container has a name"),
    (CONTAINERS, [{"name": "a"}, {"name": "a"}], f'{CONTAINERS}[1].name: "a" stands twice: entry 0 has it too'),
    # metrics
    (f"{METRICS}[0].name", "Errors", f'{METRICS}[0].name: "Errors" is not allowed: {NAME_RULE}'),
    (f"{METRICS}[1].name", "errors", f'{METRICS}[1].name: "errors" stands twice: entry 0 has it too'),
    (f"{METRICS}[0].preset", GONE, f"{METRICS}[0].preset: missing: write {PRESETS}"),
    (
        f"{METRICS}[0].preset",
        "errors",
        f'{METRICS}[0].preset: "errors" is not allowed: write {PRESETS}',
    ),
    (f"{METRICS}[0].threshold", 2, f"{METRICS}[0].threshold: 2 is not a share from 0 to 1, such as 0.01"),
    (f"{METRICS}[0].threshold", "1%", f'{METRICS}[0].threshold: "1%" is not a share from 0 to 1, such as 0.01'),
    (f"{METRICS}[0].threshold", [], f"{METRICS}[0].threshold: a list is neither text nor a number"),
    (
        f"{METRICS}[0].output",
        "score",
        f"{METRICS}[0].output: has no meaning here: only presets outputDrift and shadowDisagreement take it",
    ),
    (
        f"{METRICS}[0].tolerance",
        0.1,
        f"{METRICS}[0].tolerance: has no meaning here: only preset shadowDisagreement takes it",
    ),
    *(
        (
            "spec",
            mirrored(threshold=threshold),
            f"{METRICS}[0].threshold: {threshold} is not a share over 0 and under 1, such as 0.05",
        )
        for threshold in (0, 1, 2)
    ),
    ("spec", mirrored(tolerance=-0.1), f"{METRICS}[0].tolerance: -0.1 is under 0"),
    (
        "spec",
        mirrored(analysis={"metrics": [{"name": n, "preset": "shadowDisagreement"} for n in ("a", "b")]}),
        f"{METRICS}[1]: is a second shadowDisagreement: answers are compared in one way only",
    ),
    (
        f"{METRICS}[0].against",
        "baseline",
        f"{METRICS}[0].against: only preset outputDrift can be compared with a baseline",
    ),
    (f"{METRICS}[1].threshold", GONE, f"{METRICS}[1].threshold: missing: {SLOW}"),
    (f"{METRICS}[1].threshold", 250, f"{METRICS}[1].threshold: 250 has no unit: {SLOW}"),
    (f"{METRICS}[1].threshold", "fast", f'{METRICS}[1].threshold: "fast" {NO_DURATION}'),
    (f"{METRICS}[1].threshold", "0s", f"{METRICS}[1].threshold: 0s is not over 0s"),
    (
        f"{METRICS}[2].threshold",
        0,
        f"{METRICS}[2].threshold: 0 is not a population stability index over 0, such as 0.2",
    ),
    (f"{METRICS}[2].threshold", True, f"{METRICS}[2].threshold: true is neither text nor a number"),
    (f"{METRICS}[2].output", "other", f'{METRICS}[2].output: "other" has no baseline here'),
    (
        f"{METRICS}[2].baseline",
        [],
        f"{METRICS}[2].baseline: missing: against baseline needs edges and counts of an output",
    ),
    (
        f"{METRICS}[2].against",
        "stable",
        f"{METRICS}[2].against: stable does not read the baseline: write against: baseline, or leave the baseline out",
    ),
    (
        f"{METRICS}[2].baseline[0].edges",
        [0, 1, 0.5],
        f"{METRICS}[2].baseline[0].edges[2]: 0.5 is not over the 1 before it; edges ascend",
    ),
    (
        f"{METRICS}[2].baseline[0].counts",
        [1, 2, 3],
        f"{METRICS}[2].baseline[0].counts: has 3 entries: 3 edges cut 4 bins, so give 4",
    ),
    (f"{METRICS}[2].baseline[0].counts", [0] * 4, f"{METRICS}[2].baseline[0].counts: are all 0: a baseline needs data"),
    (f"{METRICS}[2].baseline[0].edges[0]", "a", f'{METRICS}[2].baseline[0].edges[0]: "a" is no number'),
    (
        METRICS,
        [{"name": f"p{i}", "preset": "latency", "threshold": f"{i + 1}s"} for i in range(9)],
        f"{METRICS}: 9 different latency thresholds, at most 8 are allowed",
    ),
    # alerts
    ("spec.autoRollback.alerts[0]", {}, "spec.autoRollback.alerts[0]: matches every alert: give a name or matchLabels"),
    (
        "spec.autoRollback.alerts[1].matchLabels.severity",
        1,
        "spec.autoRollback.alerts[1].matchLabels.severity: 1 is no text: put it in quotes",
    ),
    # several at once
    (
        "spec.analysis",
        {"interval": "x", "alpha": 2, "metrics": [{"name": "a"}, {"name": "b", "preset": "latency"}]},
        [
            f'spec.analysis.interval: "x" {NO_DURATION}',
            "spec.analysis.alpha: 2 is not under 1",
            f"{METRICS}[0].preset: missing: write {PRESETS}",
            f"{METRICS}[1].threshold: missing: {SLOW}",
        ],
    ),
]


@pytest.mark.parametrize(("path", "value", "expected"), BROKEN)
def test_broken_manifest(path: str, value: Any, expected: str | list[str]) -> None:
    assert problem_lines(changed(path, value)) == ([expected] if isinstance(expected, str) else expected)
