"""COMPAS: error rates by race as ProPublica published them, counted by the sidecar and computed by Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.compas_data import RATES, compas
from tests.acceptance.nannyml_data import Scored
from tests.acceptance.story import Story, manifest, numeric, text

pytestmark = pytest.mark.timeout(300)

LABELS = "coalmine_slice_labels_total"


def test_error_rates_by_race(tmp_path: Path) -> None:
    live = compas()
    slices = [{"attribute": "race", "path": "race", "privileged": "Caucasian", "favourable": "0"}]
    story = Story(tmp_path, manifest("compas", "score", {"slices": slices}))

    def tensors(rows: Scored, part: slice) -> list[dict[str, Any]]:
        return [text("race", rows.columns["race"][part]), numeric("score", list(rows.scores[part]))]

    try:
        end = story.play(live, slice(0, len(live.scores)), tensors, "all")
        found = {labels["group"]: {"fpr": rate} for labels, rate in story.prometheus.query(of("fpr"), end)}
        for labels, rate in story.prometheus.query(of("tpr"), end):
            found[labels["group"]]["tpr"] = rate
        everybody = (
            story.one(f'sum({LABELS}{{actual="0",predicted="1"}}) / sum({LABELS}{{actual="0"}})', end),
            story.one(f'sum({LABELS}{{actual="1",predicted="0"}}) / sum({LABELS}{{actual="1"}})', end),
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
    assert impact["African-American"] < 0.8 < impact["Caucasian"] == pytest.approx(1)


def of(rate: str) -> str:
    return f'coalmine:slice:rate{{attribute="race", rate="{rate}"}}'
