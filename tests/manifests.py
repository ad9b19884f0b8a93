"""A good manifest that uses every field, and ways to break it."""

from __future__ import annotations

import copy
import re
from typing import Any, Final

import pytest

from coalmine_operator.api.decode import Invalid, decode, read_manifests

GOOD = """
apiVersion: coalmine.dev/v1alpha1
kind: ModelDeployment
metadata:
  name: fraud
  labels: {team: risk}
  creationTimestamp: 2026-11-20T10:00:00Z
spec:
  model:
    name: fraud
    version: 2026-11-20
    protocol: v2
    port: 8080
    timeout: 1m30s
    lineage: {run: "17", dataset: {name: cards, rows: 1000}}
  replicas: 2
  template:
    metadata: {labels: {app: fraud}}
    spec:
      containers:
        - name: model
          image: registry/fraud:17
          command: [python, -m, server]
  fallback:
    version: simple
    template: {spec: {containers: [{name: model, command: [python, simple.py]}]}}
    statusCodes: [502, 503]
  strategy:
    canary:
      steps:
        - setWeight: 5
        - pause: {requests: 500}
        - setWeight: 25
        - pause: {duration: 10m, requests: 10}
        - pause: {}
        - setWeight: 50
      affinity: {header: x-user-id}
      match: [{headers: [{name: x-canary, value: always}]}]
      scaleDownDelay: 0s
  analysis:
    interval: 15s
    minRequests: 100
    alpha: 0.01
    onInconclusive: Pause
    metrics:
      - {name: errors, preset: errorRate, threshold: 0.01}
      - {name: p99, preset: latency, threshold: 250ms, initialDelay: 30s}
      - name: scores
        preset: outputDrift
        threshold: 0.2
        output: score
        against: baseline
        baseline: [{output: score, edges: [0, 0.5, 1], counts: [0, 10, 20, 0]}]
  autoRollback:
    alerts: [{name: ModelLatencyHigh}, {matchLabels: {severity: critical}}]
    bakeTime: 1h
"""
#: For `changed`: take the field out.
GONE: Final = object()


def good() -> dict[str, Any]:
    documents, problems = read_manifests(GOOD, source="good.yaml")
    assert not problems
    return copy.deepcopy(documents[0].raw)


def mirrored(*, threshold: float = 0.05, tolerance: float = 0.05, **changes: Any) -> dict[str, Any]:
    """A spec whose canary is tried on copies of requests; `changes` replace its fields."""
    metric = {"name": "shadow", "preset": "shadowDisagreement", "threshold": threshold, "tolerance": tolerance}
    steps = [{"setMirror": 20}, {"pause": {"requests": 100}}, {"setWeight": 50}, {"pause": {"requests": 100}}]
    spec = {
        "template": {"spec": {"containers": [{"name": "model", "image": "registry/fraud:17"}]}},
        "strategy": {"canary": {"steps": steps}},
        "analysis": {"metrics": [metric]},
    }
    return spec | changes


def watched(**changes: Any) -> dict[str, Any]:
    """A `spec.monitoring` that uses every field; `changes` replace fields, GONE takes one out."""
    monitoring = {
        "task": "binary",
        "predictionId": {"header": "x-request-id", "generate": False},
        "prediction": {
            "score": "probabilities[1]",
            "label": "$.outputs[0].data[*]",
            "threshold": 0.4,
            "positive": "yes",
        },
        "outputs": [{"name": "score", "path": "$.results[*].score"}],
        "features": [
            {"name": "AGEP", "path": "$.instances[*].age"},
            {"name": "SEX", "path": "x[1]", "type": "categorical"},
            {"name": "mean radius (µm)"},
        ],
        "baseline": {"configMap": "fraud-v3", "key": "v3.json", "digest": f"sha256:{'0a' * 32}", "minSamples": 1000},
        "feedback": {
            "path": "/v1/feedback",
            "ttl": "36h",
            "maxPending": 5000,
            "expectedCoverage": 0.5,
            "redis": {"url": "redis://redis.shop:6379/0", "passwordSecret": {"name": "redis", "key": "word"}},
        },
        "slices": [
            {"attribute": "sex", "path": "x[1]", "privileged": "1", "favourable": "0", "minSamples": 50},
            {"attribute": "country", "header": "x-country"},
        ],
        "drift": {"statistic": "js", "warn": 0.05, "critical": 0.1, "window": "30m", "averageRunLength": "90d"},
        "alerts": {
            "defaults": False,
            "overrides": [
                {"name": "RecallDrop", "threshold": 0.05, "for": "10m", "action": "rollback"},
                {"name": "AucDrop"},
            ],
        },
        "payloadLog": {
            "percent": 0.5,
            "url": "http://logger:8080/",
            "redact": ["$.instances[*].name"],
            "maxBytes": 1024,
        },
        "maxSeries": 500,
    }
    return {name: value for name, value in {**monitoring, **changes}.items() if value is not GONE}


def get(raw: Any, path: str) -> Any:
    """The value at a path such as `spec.strategy.canary.steps[1]`."""
    for key in _keys(path):
        raw = raw[key]
    return raw


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good manifest with one field set, or taken out where `value` is GONE."""
    raw = good()
    *parents, last = _keys(path)
    at: Any = raw
    for key in parents:
        at = at[key]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return raw


def problem_lines(raw: Any) -> list[str]:
    """What a person reads when `raw` is refused."""
    with pytest.raises(Invalid) as caught:
        decode(raw)
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return [str(problem) for problem in caught.value.problems]


def _keys(path: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"[.\[\]]+", path.rstrip("]"))]
