"""A manifest and the file of its baseline, as `coalmine run` would find it: whether they speak of the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..api.baseline import Baseline, Numeric
from ..api.monitoring import Feature, Prediction
from ..api.problems import index_path, show
from ..api.spec import ModelDeployment
from ..engine.baselines import wanted_baselines
from ..platforms.local.baselines import Baselines


def baseline_warnings(deployment: ModelDeployment, folder: Path) -> Iterator[str]:
    """A line for each thing that is wrong. `folder`: the manifest's own."""
    monitoring = deployment.spec.monitoring
    if monitoring is None:
        return
    files = Baselines(folder)
    files.look(wanted_baselines(deployment.metadata, deployment.spec, ()))
    for state in files.states.values():
        if state.problem:
            yield f"spec.monitoring.baseline: {state.message}"
        elif state.baseline is not None:
            yield from differences(state.baseline, monitoring.prediction)
            yield from lacking(state.baseline, monitoring.features)


def differences(baseline: Baseline, prediction: Prediction) -> Iterator[str]:
    """Where a prediction is read otherwise than in the baseline, with whose performance it is to be compared."""
    score, path = baseline.score, "spec.monitoring.prediction"
    if score is None:
        return
    # A model that chooses the class itself has no threshold.
    if not prediction.label and score.threshold != prediction.threshold:
        own, other = show(prediction.threshold), show(score.threshold)
        yield f"{path}.threshold: {own}, and the baseline's is {other}: write that, or build it with --threshold {own}"
    if score.positive != prediction.positive:
        own, other = show(prediction.positive), show(score.positive)
        yield f"{path}.positive: {own}, and the baseline's is {other}: write that, or build it with --positive {own}"


def lacking(baseline: Baseline, features: Iterable[Feature]) -> Iterator[str]:
    """Features that the baseline has no bins for: drift is told of none of them."""
    for index, one in enumerate(features):
        path = index_path("spec.monitoring.features", index)
        found = baseline.features.get(one.name)
        if found is None:
            yield f"{path}: {show(one.name)} is not in the baseline: no drift is told of it until it is built with it"
        elif (kind := "numeric" if isinstance(found, Numeric) else "categorical") != one.type:
            yield f"{path}.type: {show(one.name)} is {one.type}, and {kind} in the baseline: write that, or build anew"
