"""Rules ask for nothing that nobody tells, by no label that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import get_args

import pytest
from msgspec.structs import replace
from tests.exported import SCRAPED, exported
from tests.queries import queries
from tests.unit.rulebook import EVERYTHING

from coalmine_operator.render.rules import groups
from coalmine_sidecar.monitoring import Task

_SELECTOR = re.compile(r"\b([a-z][a-z0-9_]*(?::[a-z0-9_:]+)?)\{((?:[^{}\"]|\"(?:[^\"\\]|\\.)*\")*)\}")
_LABEL = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"')
#: cAdvisor's, which is kubelet's.
OTHERS: Mapping[str, frozenset[str]] = {
    "container_cpu_cfs_throttled_periods_total": frozenset({"container"}),
    "container_cpu_cfs_periods_total": frozenset({"container"}),
}


@pytest.fixture(scope="module")
def known() -> dict[str, frozenset[str]]:
    return {**exported(), **OTHERS}


def rules(task: Task) -> Iterator[Mapping[str, str]]:
    for group in groups(replace(EVERYTHING, task=task)):
        yield from group["rules"]


@pytest.mark.parametrize("task", get_args(Task))
def test_everything_asked_for_is_told(task: Task, known: dict[str, frozenset[str]]) -> None:
    recorded = {rule["record"] for rule in rules(task) if "record" in rule}
    asked = 0
    for rule in rules(task):
        for name, matchers in _SELECTOR.findall(rule["expr"]):
            asked += 1
            if ":" in name:
                assert name in recorded, rule
                continue
            assert name in known, rule
            assert set(_LABEL.findall(matchers)) <= known[name] | SCRAPED, rule
    assert asked > 100


#: Drawn nowhere: for people who look closer, or for dashboards and alerts of their own.
TOLD_BESIDE = {
    *(f"coalmine:{metric}:{bound}" for metric in ("accuracy", "precision", "recall") for bound in ("lower", "upper")),
    *(f"coalmine:output_{name}:baseline" for name in ("js", "hellinger", "ks", "wasserstein", "chi2")),
    *(f"coalmine:output_{name}:ratio" for name in ("unseen", "nonfinite")),
    *(f"coalmine:{name}:ratio" for name in ("slice_rate", "demographic_parity", "equalized_odds", "drifted_outputs")),
    *(f"coalmine:feature{name}" for name in (":mean", ":variance", "_variance:baseline_ratio")),
    "coalmine:output:completeness",
    "coalmine:precision:class",
    "coalmine:recall:class",
}  # fmt: skip


def test_records_are_used_or_drawn_or_told_beside() -> None:
    texts = [query.expr for query in queries()]
    recorded = set()
    for task in get_args(Task):
        texts += (rule["expr"] for rule in rules(task))
        recorded |= {rule["record"] for rule in rules(task) if "record" in rule}
    asked = {name for text in texts for name, _ in _SELECTOR.findall(text)}
    assert recorded - asked - TOLD_BESIDE == set()
    assert TOLD_BESIDE - recorded == set()
