"""Records about groups of people, against numpy and scipy.

The figures are those of fairlearn's `MetricFrame`, `demographic_parity_*` and `equalized_odds_*`
(fairlearn.org, API reference, fairlearn.metrics), written out here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from scipy import stats
from scipy.stats.contingency import relative_risk
from tests.chart.promtool import needs_promtool
from tests.unit.rulebook import EVERYTHING, RECORDED, Samples, Series, differences, pods, records

#: Rows by group: (actual, predicted) 11, 10, 01, 00. Half of the predictions have no label.
GROUPS = {
    "sex": {"f": (80, 30, 25, 120), "m": (150, 35, 50, 110), "x": (4, 2, 1, 5), "_missing": (90, 90, 90, 90)},
    "race": {"white": (120, 30, 40, 160), "black": (60, 45, 80, 70), "asian": (30, 21, 24, 60)},
}
#: As EVERYTHING has them: 1 is favourable by sex, 0 by race, where white is privileged.
FAVOURABLE = {"sex": 1, "race": 0}
LEAST = 50


def series() -> Iterator[Series]:
    for attribute, groups in GROUPS.items():
        for group, cells in groups.items():
            where = {"attribute": attribute, "group": group}
            for (actual, predicted), n in zip(((1, 1), (1, 0), (0, 1), (0, 0)), cells, strict=True):
                cell = {"actual": str(actual), "predicted": str(predicted)}
                yield from pods("coalmine_slice_labels", (n * 0.75, n * 0.25), where, cell)
            for predicted, n in ((1, cells[0] + cells[2]), (0, cells[1] + cells[3])):
                yield from pods("coalmine_slice_predictions", (1.5 * n, 0.5 * n), where, {"predicted": str(predicted)})


def rates(attribute: str, group: str) -> dict[str, tuple[int, int]]:
    """Hits and trials of each rate, where these are enough."""
    tp, fn, fp, tn = GROUPS[attribute][group]
    selected = tp + fp if FAVOURABLE[attribute] else fn + tn
    found = {
        "selection": (2 * selected, 2 * (tp + fn + fp + tn)),
        "tpr": (tp, tp + fn),
        "fpr": (fp, fp + tn),
        "precision": (tp, tp + fp),
    }
    return {rate: pair for rate, pair in found.items() if pair[1] >= LEAST}


def expected(*, labels: bool = True) -> dict[str, Samples]:
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}

    def add(name: str, value: float, **more: str) -> None:
        found.setdefault(name, []).append(({**RECORDED, **more}, float(value)))

    for attribute, groups in GROUPS.items():
        by_rate: dict[str, dict[str, float]] = {}
        for group in groups:
            for rate, (hits, trials) in rates(attribute, group).items():
                if not labels and rate != "selection":
                    continue
                of = {"attribute": attribute, "group": group, "rate": rate}
                add("coalmine:slice_hits:increase", hits, **of)
                add("coalmine:slice_trials:increase", trials, **of)
                add("coalmine:slice:rate", hits / trials, **of)
                low, high = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
                add("coalmine:slice:lower", low, **of)
                add("coalmine:slice:upper", high, **of)
                if not group.startswith("_"):
                    by_rate.setdefault(rate, {})[group] = hits / trials
        gaps = {rate: max(of.values()) - min(of.values()) for rate, of in by_rate.items()}
        shares = {rate: min(of.values()) / max(of.values()) for rate, of in by_rate.items()}
        for rate in by_rate:
            add("coalmine:slice_rate:difference", gaps[rate], attribute=attribute, rate=rate)
            add("coalmine:slice_rate:ratio", shares[rate], attribute=attribute, rate=rate)
        add("coalmine:demographic_parity:difference", gaps["selection"], attribute=attribute)
        add("coalmine:demographic_parity:ratio", shares["selection"], attribute=attribute)
        if labels:
            add("coalmine:equalized_odds:difference", max(gaps["tpr"], gaps["fpr"]), attribute=attribute)
            add("coalmine:equalized_odds:ratio", min(shares["tpr"], shares["fpr"]), attribute=attribute)
        selection = by_rate["selection"]
        reference = "white" if attribute == "race" else max(selection, key=selection.__getitem__)
        for group in selection.keys() - {reference}:
            risk = relative_risk(*rates(attribute, group)["selection"], *rates(attribute, reference)["selection"])
            interval = risk.confidence_interval(0.95)
            for name, value in (("ratio", risk.relative_risk), ("lower", interval.low), ("upper", interval.high)):
                add(f"coalmine:disparate_impact:{name}", value, attribute=attribute, group=group)
    return found  # type: ignore[return-value] - lists are sequences


def test_the_scenario_has_groups_that_are_too_small() -> None:
    assert "x" in GROUPS["sex"]
    assert rates("sex", "x") == {}
    assert "selection" in rates("sex", "_missing")
    assert np.isclose(sum(2 * sum(cells) for cells in GROUPS["sex"].values()), 2 * 972)


@needs_promtool
def test_against_numpy_and_scipy(tmp_path: Path) -> None:
    assert set(expected()) == records(EVERYTHING, "fairness")
    assert differences(tmp_path, EVERYTHING, "fairness", series(), expected()) == ""


@needs_promtool
def test_without_labels_only_selection_is_told(tmp_path: Path) -> None:
    parameters = replace(EVERYTHING, feedback=False)
    assert set(expected(labels=False)) == records(parameters, "fairness")
    assert differences(tmp_path, parameters, "fairness", series(), expected(labels=False)) == ""
