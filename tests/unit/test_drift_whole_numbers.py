"""Sidecars count a whole number twice, in a bin and as a class: a request must still weigh once."""

from __future__ import annotations

from coalmine_operator.analysis import Looked, judge
from coalmine_operator.api.spec import Analysis, Metric
from coalmine_operator.api.status import Verdict
from coalmine_sidecar.contract import EpochCounts, OutputCounts

EDGES = (0.5,)
LABELS = Analysis(min_requests=10, metrics=(Metric(name="labels", preset="outputDrift", output="label"),))


def whole(zeros: int, ones: int) -> OutputCounts:
    return OutputCounts(edges=EDGES, bins=[zeros, ones], classes={"0": zeros, "1": ones})


def floats(zeros: int, ones: int) -> OutputCounts:
    return OutputCounts(edges=EDGES, bins=[zeros, ones])


def verdict(canary: OutputCounts, stable: OutputCounts, requests: int = 40) -> Verdict:
    counts = (EpochCounts(requests=requests, outputs={"label": output}) for output in (canary, stable))
    (found,) = judge(LABELS, Looked(canary=next(counts), stable=next(counts), weight=50, age=1000.0), ())
    return found


def test_whole_numbers_are_evidence_as_floats_are() -> None:
    assert verdict(whole(14, 26), whole(26, 14)) == verdict(floats(14, 26), floats(26, 14))
    assert verdict(whole(0, 40), whole(26, 14)).verdict == "Fail"
    assert verdict(whole(25, 15), whole(26, 14)).verdict == "Pass"


def test_names_in_place_of_numbers_are_a_drift() -> None:
    names = OutputCounts(classes={"benign": 26, "malignant": 14})
    assert verdict(names, whole(26, 14)).verdict == "Fail"
    assert verdict(whole(26, 14), names).verdict == "Fail"
    assert verdict(names, names).verdict == "Pass"
