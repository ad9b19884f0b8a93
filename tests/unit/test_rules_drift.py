"""Records about features and outputs, from counters of two pods, against numpy and scipy on the rows themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from scipy import stats
from scipy.spatial.distance import jensenshannon
from tests.chart.promtool import needs_promtool
from tests.unit.rulebook import (
    EVERYTHING,
    FRAUD,
    RECORDED,
    V3,
    Samples,
    Series,
    counted,
    differences,
    gauge,
    pods,
    records,
)

from coalmine_operator.api import baseline as api
from coalmine_operator.render.rules.parameters import Statistic
from coalmine_operator.render.rules.promql import chi2_rare_value

BASELINE_ROWS = 8000
#: Rows of each pod, without and with a value.
ROWS = (700, 500)
MISSING = (40, 25)


class Numbers:
    """A numeric column: what its baseline was made of, and what came to two pods."""

    def __init__(self, seed: int, shift: float) -> None:
        rng = np.random.default_rng(seed)
        past = rng.normal(40, 12, BASELINE_ROWS)
        edges = np.quantile(past, np.linspace(0.1, 0.9, 9))
        counts = np.bincount(np.searchsorted(edges, past, side="right"), minlength=10)
        self.column = api.Numeric(
            edges=tuple(edges), counts=tuple(map(int, counts)), missing=200, mean=float(past.mean()),
            stddev=float(past.std(ddof=1)), min=float(past.min()), max=float(past.max()),
        )  # fmt: skip
        self.live = [rng.normal(40 + shift, 14, rows - missing) for rows, missing in zip(ROWS, MISSING, strict=True)]

    def binned(self) -> list[np.ndarray]:
        return [np.bincount(np.searchsorted(self.column.edges, x, side="right"), minlength=10) for x in self.live]

    def counts(self) -> np.ndarray:
        """By bin, `missing` and `unseen` at the end."""
        return np.append(sum(self.binned()), [sum(MISSING), 0])

    def series(self, kind: str, name: str) -> Iterator[Series]:
        label = {kind: name}
        names = api.labels(self.column)
        for place, counts in zip(names, np.transpose(self.binned()), strict=True):
            yield from pods(f"coalmine_{kind}_bin", counts.tolist(), label, {"bin": place})
        for place, counts in zip(names, np.transpose([np.cumsum(c) for c in self.binned()]), strict=True):
            yield from pods(f"coalmine_{kind}_upto", counts.tolist(), label, {"bin": place})
        yield from pods(f"coalmine_{kind}_bin", MISSING, label, {"bin": "missing"})
        yield from pods(f"coalmine_{kind}_bin", (0, 0), label, {"bin": "unseen"})
        yield from pods(f"coalmine_{kind}_values", ROWS, label)
        yield from pods(f"coalmine_{kind}_nonfinite", (4, 2), label)
        away = [x - self.column.mean for x in self.live]
        for sign, part in (("above", lambda x: x[x >= 0].sum()), ("below", lambda x: -x[x < 0].sum())):
            yield from pods(f"coalmine_{kind}_deviation", [float(part(x)) for x in away], label, {"sign": sign})
        yield from pods(f"coalmine_{kind}_squared_deviation", [float((x**2).sum()) for x in away], label)
        parts = {"ratio": api.ratios(self.column), "upto": api.upto(self.column), "width": api.widths(self.column)}
        yield from gauges(kind, name, parts)
        who = {"namespace": "shop", "model": "fraud", "version": "v3", **label}
        yield gauge(f"coalmine_{kind}_baseline_mean", self.column.mean, who)
        yield gauge(f"coalmine_{kind}_baseline_stddev", self.column.stddev, who)


class Names:
    """A categorical one; 30 rows are of a category that the baseline has not."""

    column = api.Categorical(categories=("a", "b", "c"), counts=(4000, 3500, 480), missing=20, unseen=0)
    live = ((300, 300, 60, 30, 10), (200, 250, 20, 20, 10))  # a, b, c, unseen, missing

    def counts(self) -> np.ndarray:
        a, b, c, unseen, missing = np.sum(self.live, axis=0)
        return np.array([a, b, c, missing, unseen])

    def series(self) -> Iterator[Series]:
        for place, counts in zip(("a", "b", "c", "unseen", "missing"), np.transpose(self.live), strict=True):
            yield from pods("coalmine_feature_bin", counts.tolist(), {"feature": "sex", "bin": place})
        yield from pods("coalmine_feature_values", ROWS, {"feature": "sex"})
        yield from pods("coalmine_feature_nonfinite", (0, 0), {"feature": "sex"})
        yield from gauges("feature", "sex", {"ratio": api.ratios(self.column)})

    def as_output(self, name: str) -> Iterator[Series]:
        """As a sidecar counts names that a model answers: by class, whatever the baseline has."""
        a, b, c, unseen, missing = np.transpose(self.live).tolist()
        for place, counts in {"a": a, "b": b, "c": c, "d": [unseen[0], 0], "e": [0, unseen[1]]}.items():
            yield from pods("coalmine_output_class", counts, {"output": name, "class": place})
        yield from pods("coalmine_output_bin", missing, {"output": name, "bin": "missing"})
        yield from gauges("output", name, {"ratio": api.ratios(self.column)})


def gauges(kind: str, name: str, parts: dict[str, dict[str, float]]) -> Iterator[Series]:
    """As the operator tells them, twice: another replica of it may be on its way out."""
    for part, values in parts.items():
        for place, value in values.items():
            for pod in ("old", "new"):
                who = {"namespace": "shop", "model": "fraud", "version": "v3", kind: name, "bin": place, "pod": pod}
                yield gauge(f"coalmine_{kind}_baseline_{part}", value, who)


AGE, SEX, SCORE = Numbers(1, 3.0), Names(), Numbers(2, -2.0)


def statistics(column: Numbers | Names) -> dict[str, float]:
    c, p = column.counts(), np.array(list(api.ratios(column.column).values()))
    q, smooth = c / c.sum(), (c + 0.5) / (c + 0.5).sum()
    found = {
        "psi": float(((smooth - p) * np.log(smooth / p)).sum()),
        "js": float(jensenshannon(q, p, base=2)),
        "hellinger": float(np.linalg.norm(np.sqrt(q) - np.sqrt(p)) / math.sqrt(2)),
        "chi2": float(stats.chisquare(c, p * c.sum()).statistic),
    }
    if isinstance(column, Numbers):
        apart = np.abs(np.cumsum(c[:10]) / c[:10].sum() - np.array(list(api.upto(column.column).values())))
        widths = np.diff(column.column.edges)
        found["ks"] = float(apart.max())
        found["wasserstein"] = float((apart[1:-1] * widths).sum() / column.column.stddev)
    return found


def noise(column: Numbers | Names, statistic: str) -> float:
    c = column.counts()
    chi2 = chi2_rare_value(len(c) - 1) / c.sum()
    if statistic in ("psi", "chi2"):
        return chi2
    if statistic in ("js", "hellinger"):
        return math.sqrt(chi2 / 8 / (math.log(2) if statistic == "js" else 1))
    assert isinstance(column, Numbers)
    largest = math.sqrt(math.log(2000) / 2 / c[:10].sum())
    edges = column.column.edges
    return largest if statistic == "ks" else largest * (edges[-1] - edges[0]) / column.column.stddev


def labelled(**labels: str) -> dict[str, str]:
    return {**RECORDED, **labels}


def values(kind: str, name: str, column: Numbers) -> dict[str, tuple[dict[str, str], float]]:
    x = np.concatenate(column.live)
    of = labelled(**{kind: name})
    return {
        f"coalmine:{kind}:mean": (of, float(x.mean())),
        f"coalmine:{kind}_deviation:mean": (of, float(x.mean() - column.column.mean)),
        f"coalmine:{kind}:variance": (of, float(x.var())),
        f"coalmine:{kind}_variance:baseline_ratio": (of, float(x.var() / column.column.stddev**2)),
        f"coalmine:{kind}_numbers:increase": (of, float(len(x))),
    }


def bins(kind: str, columns: dict[str, Numbers | Names]) -> dict[str, Samples]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for name, column in columns.items():
        c = column.counts()
        for place, count in zip(api.ratios(column.column), c.tolist(), strict=True):
            of = labelled(**{kind: name, "bin": place})
            found.setdefault(f"coalmine:{kind}_bin:increase", []).append((of, count))
            found.setdefault(f"coalmine:{kind}_bin:ratio", []).append((of, count / c.sum()))
        found.setdefault(f"coalmine:{kind}_rows:increase", []).append((labelled(**{kind: name}), c.sum()))
        if isinstance(column, Numbers):
            expected = api.upto(column.column)
            for (place, upto), live in zip(expected.items(), np.cumsum(c[:10]) / c[:10].sum(), strict=True):
                of = labelled(**{kind: name, "bin": place})
                found.setdefault(f"coalmine:{kind}_upto:difference", []).append((of, abs(live - upto)))
    return found


def expected(statistic: str, warn: float) -> dict[str, Samples]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    columns: dict[str, dict[str, Numbers | Names]] = {
        "feature": {"age": AGE, "sex": SEX},
        "output": {"score": SCORE, "label": SEX},
    }
    for kind, named in columns.items():
        found |= bins(kind, named)  # type: ignore[arg-type] - lists are sequences
        drifted = []
        for name, column in named.items():
            of = labelled(**{kind: name})
            figures = statistics(column)
            for figure, value in figures.items():
                found.setdefault(f"coalmine:{kind}_{figure}:baseline", []).append((of, value))
            ordered = statistic in ("ks", "wasserstein")
            judged, limit = (statistic, warn) if not ordered or isinstance(column, Numbers) else ("psi", 0.1)
            if judged == statistic:
                found.setdefault(f"coalmine:{kind}_drift:noise", []).append((of, noise(column, statistic)))
            value = figures[judged] / (column.counts().sum() if judged == "chi2" else 1)
            assert abs(value / limit - 1) > 0.01, "too near to be told apart"
            if noise(column, judged) <= limit:
                drifted.append(value > limit)
            if isinstance(column, Numbers):
                for record, sample in values(kind, name, column).items():
                    found.setdefault(record, []).append(sample)
            c, rows = column.counts(), sum(ROWS)
            nonfinite = 6 if isinstance(column, Numbers) else 0
            if kind == "output" and not isinstance(column, Numbers):
                continue  # names have neither
            for word, count in (("missing", c[-2]), ("unseen", c[-1]), ("nonfinite", nonfinite)):
                found.setdefault(f"coalmine:{kind}_{word}:ratio", []).append((of, count / rows))
            found.setdefault(f"coalmine:{kind}:completeness", []).append((of, 1 - c[-2] / rows))
        assert drifted, "a scenario in which too few rows came tells nothing"
        found[f"coalmine:drifted_{kind}s:ratio"] = [(RECORDED, float(np.mean(drifted)))]
    return {name: [(of, float(value)) for of, value in samples] for name, samples in found.items()}


def strangers() -> Iterator[Series]:
    """Series that are none of this deployment's, and bins of a baseline that was in force before."""
    for other in ({"model": "other"}, {"namespace": "elsewhere"}, {"modeldeployment": "fraud-2"}):
        yield counted(
            "coalmine_feature_bin", 5000, {**FRAUD, **V3, "feature": "age", "bin": "missing", "pod": "x"}, other
        )
    # Whole numbers are counted as classes, too.
    yield counted("coalmine_output_class", 300, {**FRAUD, **V3, "output": "score", "class": "1", "pod": "p0"})
    for name in ("bin", "upto"):
        yield counted(
            f"coalmine_feature_{name}", 900, {**FRAUD, **V3, "feature": "age", "bin": "[1.0,2.0)", "pod": "p0"}
        )


CASES: list[tuple[Statistic, float]] = [
    ("psi", 0.1), ("js", 0.1), ("hellinger", 0.11), ("ks", 0.1), ("wasserstein", 0.25), ("chi2", 0.1),
]  # fmt: skip


@needs_promtool
@pytest.mark.parametrize(("statistic", "warn"), CASES)
def test_against_numpy_and_scipy(statistic: Statistic, warn: float, tmp_path: Path) -> None:
    parameters = replace(EVERYTHING, statistic=statistic, warn=warn)
    series = [*AGE.series("feature", "age"), *SEX.series(), *SCORE.series("output", "score"), *strangers()]
    series += SEX.as_output("label")
    assert differences(tmp_path, parameters, "data", series, expected(statistic, warn)) == ""


def test_every_record_is_held_against_an_oracle() -> None:
    assert records(EVERYTHING, "data") == set(expected("psi", 0.1))


def test_rare_chi_square_is_never_too_small() -> None:
    for df in range(1, 70):
        exact = stats.chi2.ppf(0.999, df)
        assert 1 <= chi2_rare_value(df) / exact < 1 + 0.06 / df


@pytest.mark.parametrize(
    ("noise_of", "rows"), [("psi", 279), ("js", 503)], ids=["PSI under 0.1 by chance", "JS under 0.1 by chance"]
)
def test_rows_that_a_drift_needs(noise_of: str, rows: int) -> None:
    """Ten bins: so many rows keep chance under 0.1 in 999 of 1000 windows."""
    chi2 = stats.chi2.ppf(0.999, 9)
    needed = chi2 / 0.1 if noise_of == "psi" else chi2 / (8 * math.log(2) * 0.1**2)
    assert math.ceil(needed) == rows
    ours = chi2_rare_value(9) / 0.1 if noise_of == "psi" else chi2_rare_value(9) / (8 * math.log(2) * 0.1**2)
    assert needed <= ours < 1.01 * needed
