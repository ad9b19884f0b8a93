"""What holds for bins of any data, and between those who count in them."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from coalmine_operator.analysis.performance import isotonic, roc_auc
from coalmine_operator.analysis.reference import Value, guess, names, quantile_edges, score_edges
from coalmine_operator.analysis.reference_columns import CategoryCounter, NumericCounter
from coalmine_operator.api.baseline import Baseline, decode_baseline, encode_baseline
from coalmine_sidecar.monitoring import MISSING, UNSEEN, Bins, Feature
from coalmine_sidecar.telemetry.features import FeatureCounter

MODEST = settings(max_examples=150, deadline=None)

finite = st.floats(-1e6, 1e6)
lumpy = st.lists(st.one_of(st.integers(-5, 5).map(float), finite), min_size=1, max_size=300)
#: NaN is no name in JSON, so none of a category.
name_like: st.SearchStrategy[Value] = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["a", "b", "1", "missing", "unseen", "x" * 70, ""])
)
anything: st.SearchStrategy[Value] = st.one_of(
    st.none(), st.floats(), st.integers(), st.booleans(), st.text(max_size=3), st.just(10**400), st.just(1e200)
)


@MODEST
@given(lumpy, st.integers(2, 20))
def test_edges_ascend_and_no_bin_between_them_is_empty(values: list[float], most: int) -> None:
    edges = quantile_edges(np.array(values), most)
    assert 1 <= len(edges) <= max(most - 1, 2)
    assert all(a < b for a, b in itertools.pairwise(edges))
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    if len(set(values)) > 1:
        assert counts.min() > 0
        assert counts.sum() == len(values)
    else:
        assert counts.tolist() == [0, len(values), 0]


@settings(max_examples=25, deadline=None)
@given(st.lists(finite, min_size=200, max_size=400, unique=True), st.integers(2, 10))
def test_bins_of_different_values_have_even_counts(values: list[float], most: int) -> None:
    edges = quantile_edges(np.array(values), most)
    counts = np.bincount(np.searchsorted(edges, values, side="right"))
    assert len(counts) == most
    assert max(counts) - min(counts) <= 2


@MODEST
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=300), st.integers(2, 100))
def test_a_bin_of_the_score_says_which_class_was_predicted(rows: list[tuple[float, bool]], most: int) -> None:
    scores, truth = np.array([s for s, _ in rows]), np.array([t for _, t in rows])
    edges = score_edges(scores, truth, most, 0.5)
    assert 0.5 in edges
    assert all(a < b for a, b in itertools.pairwise(edges))
    positive = np.searchsorted(edges, scores, side="right") > edges.index(0.5)
    assert (positive == (scores >= 0.5)).all()


@MODEST
@given(st.lists(anything, max_size=60), st.lists(finite, min_size=1, max_size=8, unique=True))
def test_a_baseline_counts_numbers_as_the_sidecar_does(values: list[Value], edges: list[float]) -> None:
    edges.sort()
    ours = NumericCounter(edges)
    ours.add(values)
    theirs = FeatureCounter(Feature(name="x"), Bins(edges=tuple(edges)))
    for value in values:
        theirs.add(value)
    found, live = ours.column(), theirs.counts()
    assert (list(found.counts), found.missing, found.unseen) == (live.bins, live.missing, live.unseen)


@MODEST
@given(st.lists(name_like, max_size=60))
def test_a_baseline_counts_names_as_the_sidecar_does(values: list[Value]) -> None:
    categories = names(values)
    assert not {MISSING, UNSEEN, ""} & set(categories)
    ours = CategoryCounter(categories)
    ours.add(values)
    theirs = FeatureCounter(Feature(name="x", type="categorical"), Bins(categories=categories))
    for value in values:
        theirs.add(value)
    found, live = ours.column(), theirs.counts()
    assert (list(found.counts), found.missing, found.unseen) == (live.bins, live.missing, live.unseen)
    assert sum(found.counts) + found.missing + found.unseen == len(values)


@MODEST
@given(st.lists(finite, min_size=2, max_size=200), st.lists(st.integers(1, 199), max_size=5))
def test_moments_do_not_depend_on_how_rows_come(values: list[float], cuts: list[int]) -> None:
    counter = NumericCounter((0.0,))
    for start, end in itertools.pairwise(sorted({0, len(values), *(c for c in cuts if c < len(values))})):
        counter.add(values[start:end])
    column = counter.column()
    assert column.mean == pytest.approx(statistics.fmean(values), rel=1e-9, abs=1e-6)
    assert column.stddev == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-6)
    assert (column.min, column.max) == (min(values), max(values))


@MODEST
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 10)), min_size=1, max_size=80))
def test_pooling_is_the_least_squares_solution(pairs: list[tuple[float, float]]) -> None:
    values, weights = [v for v, _ in pairs], [w for _, w in pairs]
    assert isotonic(values, weights) == pytest.approx(isotonic_regression(values, weights=weights).x, abs=1e-9)


@MODEST
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_an_area_is_turned_over_with_the_classes(pairs: list[tuple[int, int]]) -> None:
    p, n = [a for a, _ in pairs], [b for _, b in pairs]
    area = roc_auc(p, n)
    if not sum(p) or not sum(n):
        assert math.isnan(area)
    else:
        assert 0 <= area <= 1
        assert area + roc_auc(n, p) == pytest.approx(1)
        assert area + roc_auc(p[::-1], n[::-1]) == pytest.approx(1)


@MODEST
@given(st.lists(anything, max_size=80))
def test_any_column_is_guessed_and_counted(values: list[Value]) -> None:
    """Or left out with a reason; and what is in a bin can be written to a file and read."""
    found = guess(values)
    assert found.why
    if found.type == "categorical" and (kept := names(values)):
        counter: CategoryCounter | NumericCounter = CategoryCounter(kept)
    else:
        counter = NumericCounter((0.0,))
    counter.add(values)
    column = counter.column()
    made = Baseline(schema=1, model="m", version="v", task="text", rows=len(values), features={"x": column})
    if any(column.counts):
        assert decode_baseline(encode_baseline(made)) == made
