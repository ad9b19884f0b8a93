"""Records about groups of people, against fairlearn on the rows themselves, and scipy's intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from fairlearn import metrics
from msgspec.structs import replace
from numpy.typing import NDArray
from scipy import stats
from scipy.stats.contingency import relative_risk
from sklearn.metrics import precision_score
from tests.chart.promtool import needs_promtool
from tests.unit.rulebook import EVERYTHING, RECORDED, Samples, Series, differences, pods, records

#: (actual, predicted): 1 is the positive class.
CELLS = ((1, 1), (1, 0), (0, 1), (0, 0))
#: Rows by group, in the order of CELLS. Half of the predictions have no label.
GROUPS = {
    "sex": {"f": (80, 30, 25, 120), "m": (150, 35, 50, 110), "x": (4, 2, 1, 5), "_missing": (90, 90, 90, 90)},
    "race": {"white": (120, 30, 40, 160), "black": (60, 45, 80, 70), "asian": (30, 21, 24, 60)},
}
#: As EVERYTHING has them: 1 is favourable by sex, 0 by race, where white is privileged.
FAVOURABLE = {"sex": 1, "race": 0}
LEAST = 50
Array = NDArray[np.int64]


def series() -> Iterator[Series]:
    for attribute, groups in GROUPS.items():
        for group, cells in groups.items():
            where = {"attribute": attribute, "group": group}
            for (actual, predicted), n in zip(CELLS, cells, strict=True):
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


class Rows:
    """Labelled rows of some groups, as fairlearn takes them."""

    def __init__(self, attribute: str, groups: Sequence[str]) -> None:
        cells = [(group, *cell) for group in groups for cell in CELLS]
        counts = [n for group in groups for n in GROUPS[attribute][group]]
        names, truth, chosen = (np.repeat(column, counts) for column in zip(*cells, strict=True))
        self._truth, self._chosen, self._groups = truth, chosen, {"sensitive_features": names}
        #: Whether a row's prediction is what people want.
        self._favoured = (chosen == FAVOURABLE[attribute]).astype(int)

    def rates(self) -> dict[str, metrics.MetricFrame]:
        performance = {
            "tpr": metrics.true_positive_rate, "fpr": metrics.false_positive_rate, "precision": precision_score,
        }  # fmt: skip
        found = {name: self._frame(metric, self._chosen) for name, metric in performance.items()}
        return {"selection": self._frame(metrics.selection_rate, self._favoured), **found}

    def _frame(self, metric: Callable[..., float], predicted: Array) -> metrics.MetricFrame:
        return metrics.MetricFrame(metrics=metric, y_true=self._truth, y_pred=predicted, **self._groups)

    def demographic_parity(self) -> tuple[float, float]:
        """Difference and ratio."""
        rows = (self._truth, self._favoured)
        return (
            metrics.demographic_parity_difference(*rows, **self._groups),
            metrics.demographic_parity_ratio(*rows, **self._groups),
        )

    def equalized_odds(self) -> tuple[float, float]:
        """Difference and ratio."""
        rows = (self._truth, self._chosen)
        return (
            metrics.equalized_odds_difference(*rows, **self._groups),
            metrics.equalized_odds_ratio(*rows, **self._groups),
        )


def expected(*, labels: bool = True) -> dict[str, Samples]:
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}

    def add(name: str, value: float, **more: str) -> None:
        found.setdefault(name, []).append(({**RECORDED, **more}, float(value)))

    def add_both(name: str, both: tuple[float, float], **more: str) -> None:
        for of, value in zip(("difference", "ratio"), both, strict=True):
            add(f"{name}:{of}", value, **more)

    for attribute, groups in GROUPS.items():
        enough = [group for group in groups if rates(attribute, group)]
        by_rate = {name: frame.by_group for name, frame in Rows(attribute, enough).rates().items()}
        for group in enough:
            for rate, (hits, trials) in rates(attribute, group).items():
                if not labels and rate != "selection":
                    continue
                of = {"attribute": attribute, "group": group, "rate": rate}
                add("coalmine:slice_hits:increase", hits, **of)
                add("coalmine:slice_trials:increase", trials, **of)
                add("coalmine:slice:rate", by_rate[rate][group], **of)
                low, high = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
                add("coalmine:slice:lower", low, **of)
                add("coalmine:slice:upper", high, **of)
        # Rows without a group are nobody's to be compared with.
        compared = Rows(attribute, [group for group in enough if not group.startswith("_")])
        for rate, frame in compared.rates().items():
            if labels or rate == "selection":
                add_both("coalmine:slice_rate", (frame.difference(), frame.ratio()), attribute=attribute, rate=rate)
        add_both("coalmine:demographic_parity", compared.demographic_parity(), attribute=attribute)
        if labels:
            add_both("coalmine:equalized_odds", compared.equalized_odds(), attribute=attribute)
        selection = compared.rates()["selection"].by_group
        reference = "white" if attribute == "race" else selection.idxmax()
        for group in selection.index.drop(reference):
            risk = relative_risk(*rates(attribute, group)["selection"], *rates(attribute, reference)["selection"])
            interval = risk.confidence_interval(0.95)
            for name, value in (("ratio", risk.relative_risk), ("lower", interval.low), ("upper", interval.high)):
                add(f"coalmine:disparate_impact:{name}", value, attribute=attribute, group=group)
    return found  # type: ignore[return-value] - lists are sequences


def test_the_scenario_has_groups_that_are_too_small() -> None:
    assert "x" in GROUPS["sex"]
    assert rates("sex", "x") == {}
    assert "selection" in rates("sex", "_missing")
    # Of all other groups each rate is told: fairlearn compares all that it is given.
    assert {len(rates(attribute, group)) for attribute, groups in GROUPS.items() for group in groups} == {0, 4}
    assert np.isclose(sum(2 * sum(cells) for cells in GROUPS["sex"].values()), 2 * 972)


@needs_promtool
def test_against_fairlearn_and_scipy(tmp_path: Path) -> None:
    assert set(expected()) == records(EVERYTHING, "fairness")
    assert differences(tmp_path, EVERYTHING, "fairness", series(), expected()) == ""


@needs_promtool
def test_without_labels_only_selection_is_told(tmp_path: Path) -> None:
    parameters = replace(EVERYTHING, feedback=False)
    assert set(expected(labels=False)) == records(parameters, "fairness")
    assert differences(tmp_path, parameters, "fairness", series(), expected(labels=False)) == ""
