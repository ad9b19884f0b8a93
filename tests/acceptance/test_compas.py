"""COMPAS: error rates by race as ProPublica published them, counted by the sidecar and computed by Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.compas_data import RATES, compas
from tests.acceptance.nannyml_data import Scored
from tests.acceptance.story import WINDOW, Story, manifest, numeric, text

pytestmark = pytest.mark.timeout(300)


def test_error_rates_by_race(tmp_path: Path) -> None:
    live = compas()
    slices = [{"attribute": "race", "path": "race", "privileged": "Caucasian", "favourable": "0"}]
    story = Story(tmp_path, manifest("compas", "score", {"slices": slices}))

    def tensors(rows: Scored, part: slice) -> list[dict[str, Any]]:
        return [text("race", rows.columns["race"][part]), numeric("score", list(rows.scores[part]))]

    try:
        # Groups have counters from their first row on, and an increase is seen from the second look at one on.
        story.play(live, slice(0, 1000), tensors, "some")
        end = story.play(live, slice(0, len(live.scores)), tensors, "all")
        found = {labels["group"]: {"fpr": rate} for labels, rate in story.prometheus.query(of("fpr"), end)}
        for labels, rate in story.prometheus.query(of("tpr"), end):
            found[labels["group"]]["tpr"] = rate
        everybody = (
            story.one(f"{rows('0', '1')} / {rows('0', '0|1')}", end),
            story.one(f"{rows('1', '0')} / {rows('1', '0|1')}", end),
        )
        shares = story.prometheus.query("coalmine:disparate_impact:ratio", end)
    finally:
        story.stop()
    rates = {group: (one["fpr"], 1 - one["tpr"]) for group, one in found.items()} | {"all": everybody}
    for group, (false_positive, false_negative) in RATES.items():
        print(f"{group}: FPR {rates[group][0]:.4f}, FNR {rates[group][1]:.4f}")
        assert rates[group] == pytest.approx((false_positive / 100, false_negative / 100), abs=0.01)
    impact = {labels["group"]: value for labels, value in shares}
    # Fewer than `minSamples` of a group: nothing is said of it.
    assert "Native American" not in found
    # Low scores are what people want: 41.2 % of the one get them, 65.2 % of those whom they are compared with.
    assert impact["African-American"] == pytest.approx(0.4118 / 0.6520, abs=0.01)
    assert "Caucasian" not in impact


def rows(actual: str, predicted: str) -> str:
    counter = f'coalmine_slice_labels_total{{actual="{actual}", predicted=~"{predicted}"}}'
    return f"sum(increase({counter}[{WINDOW}s]))"


def of(rate: str) -> str:
    return f'coalmine:slice:rate{{attribute="race", rate="{rate}"}}'
