"""Counting a monitored request allocates nothing that stays: every counter is there before the first one."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec

from coalmine_sidecar.contract import Routing
from coalmine_sidecar.feedback.predicted import Predicted
from coalmine_sidecar.observe.observer import Observer
from coalmine_sidecar.relay.question import Question
from coalmine_sidecar.telemetry import Series, Telemetry
from coalmine_sidecar.telemetry.counters import FOLDED, KEPT_VALUES
from coalmine_sidecar.telemetry.exposition import expose

FEATURES = 20
PATH, JSON = b"/v2/models/fraud/infer", b"application/json"
#: Answers are put into the histograms FOLDED at a time, and the newest KEPT_VALUES of an output are kept.
SOME = max(FOLDED, KEPT_VALUES) * 2


def tensor(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "shape": [1, 1], "datatype": "FP64", "data": [value]}


def message(part: str, values: dict[str, float]) -> bytes:
    return json.dumps({part: [tensor(name, value) for name, value in values.items()]}).encode()


ASKED = message("inputs", {f"f{number}": number / 3 for number in range(FEATURES)} | {"sex": 1.0})
ANSWERED = message("outputs", {"score": 0.7, "margin": 1.5})


def monitored() -> Telemetry:
    """20 features and 2 outputs with a baseline, a slice, and labels."""
    bins = {"edges": [1.0, 2.0, 3.0, 4.0], "center": 2.5}
    features = [{"name": f"f{number}"} for number in range(FEATURES)]
    monitoring = {
        "features": features,
        "prediction": {"score": "score"},
        "slices": [{"attribute": "sex", "path": "sex"}],
        "feedback": {},
        "baselines": {
            "a": {
                "digest": "sha256:1",
                "features": {feature["name"]: bins for feature in features},
                "outputs": {"score": {"edges": [0.5], "center": 0.5}, "margin": bins},
                "score": {"edges": [0.5], "calibration": [0.1, 0.8]},
            }
        },
    }
    revisions = [{"name": "a", "version": "v1", "track": "stable", "weight": 100}]
    document = {
        "deployment": "fraud", "model": "fraud", "generation": 1, "revisions": revisions, "monitoring": monitoring,
    }  # fmt: skip
    telemetry = Telemetry(pod="pod", revision="a")
    telemetry.configure(msgspec.convert(document, Routing))
    return telemetry


class Requests:
    """The same one, again and again: answered, read, and labelled."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._scheduled: list[Callable[[], None]] = []
        # A clock that stands still: there is always time to read.
        self._observer = Observer(telemetry, schedule=self._scheduled.append, clock=lambda: 0.0, share=1.0)
        self.series: Series = telemetry.series("a", "ingress")
        self._cell = telemetry.epoch("a")

    def some(self) -> None:
        series, cell = self.series, self._cell
        assert series.watched is not None
        for _ in range(SOME):
            series.done(0, 200, 0.003, 0.002, len(ASKED), len(ANSWERED))
            cell.answered(200, 0.003)
            question = Question(
                [ASKED], len(ASKED), 0.0, id=b"id", given=True, content_type=JSON, json_length=None, groups=()
            )
            self._observer.offer(series, cell, PATH, JSON, None, ANSWERED, question)
            self._scheduled.pop()()
            rows = Predicted("id", "a", 0.0, [0.7], [None], [["1"]])
            series.watched.performance.labelled(rows, ["1"], 1.0)


def samples(telemetry: Telemetry) -> set[str]:
    """Names and labels of a scrape's."""
    text = b"".join(expose(telemetry, "")[1]).decode()
    return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}


def test_no_request_and_no_scrape_leaves_anything_behind() -> None:
    telemetry = monitored()
    requests = Requests(telemetry)
    tracemalloc.start()
    try:
        held = []
        for _ in range(4):
            requests.some()
            samples(telemetry)
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert requests.series.predictions == 4 * SOME
    assert requests.series.watched is not None
    assert all(feature.values == 4 * SOME for feature in requests.series.watched.features.values())
    # The first ones fill what is bounded: the newest values, and whatever Python makes once.
    assert held[3] - held[1] < SOME, "bytes"


def test_series_of_what_is_monitored_are_there_before_the_first_request() -> None:
    telemetry = monitored()
    requests = Requests(telemetry)
    before = samples(telemetry)
    requests.some()
    # Which groups there are is known from rows alone.
    assert {name for name in samples(telemetry) - before if not name.startswith("coalmine_slice_")} == set()
