"""The demo's own parts: a demo that can't fail would prove nothing."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from examples.load import Record
from examples.show import pager
from examples.show.coalmine import EXAMPLES, Coalmine
from examples.show.pager import Counts, Pager
from examples.show.scoreboard import RollbackScore, Scoreboard, VersionScore
from examples.show.screen import Screen
from examples.show.story import last_request
from examples.show.timeline import NotTrueError, Timeline, until
from examples.show.watch import Watch
from rich.console import Console

from coalmine_operator.api.decode import decode, read_manifests
from coalmine_operator.api.status import Status
from coalmine_operator.sources import alerts
from coalmine_operator.web.view import DeploymentView, RevisionView

PAGE = """\
# HELP coalmine_request_duration_seconds To the end of the answer.
# TYPE coalmine_request_duration_seconds histogram
coalmine_request_duration_seconds_bucket{model="m",version="v4",track="canary",role="ingress",le="0.1"} 1.0
coalmine_request_duration_seconds_bucket{model="m",version="v4",track="canary",role="ingress",le="0.25"} 3.0
coalmine_request_duration_seconds_bucket{model="m",version="v4",track="canary",role="ingress",le="+Inf"} 10.0
coalmine_request_duration_seconds_count{model="m",version="v4",track="canary",role="ingress"} 10.0
coalmine_request_duration_seconds_sum{model="m",version="v4",track="canary",role="ingress"} 2.5
coalmine_request_duration_seconds_bucket{model="m",version="v4",track="canary",role="local",le="0.25"} 0.0
coalmine_request_duration_seconds_count{model="m",version="v4",track="canary",role="local"} 70.0
coalmine_request_duration_seconds_count{model="m",version="v2",track="stable",role="ingress"} 50.0
coalmine_requests_total{model="m",version="v4",track="canary",role="ingress",outcome="ok"} 10.0
"""


async def true() -> str:
    return "a fact"


async def not_true() -> str:
    raise NotTrueError("v2 is late")


async def test_a_timeline_stops_at_the_line_that_did_not_come_true() -> None:
    told: list[str] = []
    timeline = Timeline(lambda line: told.append(line.text))
    await timeline.play([("one", true), ("two", not_true), ("three", true)])
    assert [(line.text, line.ok, line.detail) for line in timeline.lines] == [
        ("one", True, "a fact"),
        ("two", False, "v2 is late"),
        ("three", None, ""),
    ]
    assert told == ["one", "two"]
    assert not timeline.all_true


async def test_a_timeline_is_true_only_with_all_its_checks() -> None:
    timeline = Timeline()
    assert not timeline.all_true
    await timeline.play([("one", true)])
    assert timeline.all_true
    timeline.check("no errors", False, "3 errors")
    assert not timeline.all_true


async def test_waiting_ends_by_the_condition_the_deadline_or_what_is_broken() -> None:
    assert await until(lambda: 7, 1, "seven", str) == 7
    with pytest.raises(NotTrueError, match=r"^v2 comes: did not happen within 0 s$"):
        await until(lambda: None, 0, "v2 comes", str)
    with pytest.raises(NotTrueError, match=r"^v2 comes: coalmine died$"):
        await until(lambda: None, 60, "v2 comes", lambda: "coalmine died")


def test_pager_reads_histograms_at_the_ingress_only() -> None:
    assert pager.read(PAGE) == {"v4": Counts(10, 7, "canary"), "v2": Counts(50, 50, "stable")}
    assert pager.read("") == {}


def test_a_canary_is_too_slow_only_beside_a_stable_that_is_not() -> None:
    slow, few = Counts(20, 19, "canary"), Counts(9, 9, "canary")
    assert pager.too_slow({"v4": slow}) == {"v4": slow}
    assert pager.too_slow({"v4": slow, "v2": Counts(100, 40, "stable")}) == {"v4": slow}
    assert pager.too_slow({"v4": slow, "v2": Counts(100, 50, "stable")}) == {}
    assert pager.too_slow({"v4": few}) == {}
    assert pager.too_slow({"v1": Counts(100, 100, "stable"), "v9": Counts(100, 100, "retired")}) == {}


def test_pager_measures_the_increase_of_each_sidecar_within_the_window(tmp_path: Path) -> None:
    watching = Pager(Coalmine(tmp_path, 1))
    watching.look(0.0, {("a", "v4"): Counts(900, 900)})
    watching.look(2.0, {("a", "v4"): Counts(910, 901), ("b", "v4"): Counts(5, 5)})
    # The first scrape has left the window; `b` started anew and counts for nothing.
    assert watching.look(4.0, {("a", "v4"): Counts(930, 911), ("b", "v4"): Counts(1, 1)}) == {"v4": Counts(20, 10)}


async def test_the_webhook_is_one_that_coalmine_reads_and_charges_to_the_manifest(tmp_path: Path) -> None:
    coalmine = Coalmine(tmp_path, 1)
    await coalmine.edit("v4")
    documents, problems = read_manifests(coalmine.manifest.read_text(), source="manifest")
    assert not problems
    deployment = decode(documents[0].raw)
    target = alerts.Target(
        namespace=deployment.metadata.namespace,
        name=deployment.metadata.name,
        model=deployment.metadata.name,
        auto_rollback=deployment.spec.auto_rollback,
    )
    for status in ("firing", "resolved"):
        heard = alerts.decode(json.dumps(pager.webhook(status, "v4", pager.stamp(1000.0), "default")).encode())
        found = alerts.sort_out(heard, [target], now=2e9)
        (event,) = found.events["default/breast-cancer"]
        assert (event.name, event.labels["version"], event.starts_at) == ("ModelLatencyHigh", "v4", 1000.0)
        assert bool(event.resolved_at) == (status == "resolved")


async def test_editing_changes_the_version_in_both_places_and_nothing_else(tmp_path: Path) -> None:
    coalmine = Coalmine(tmp_path, 1)
    texts = []
    for version in ("v1", "v2"):
        await coalmine.edit(version)
        texts.append(coalmine.manifest.read_text())
    first, second = (decode(read_manifests(text, source="m")[0][0].raw).spec for text in texts)
    assert (first.model.version, second.model.version) == ("v1", "v2")
    (container,) = second.template["spec"]["containers"]
    assert container["command"] == [sys.executable, str(EXAMPLES / "model_server.py")]
    assert {"name": "MODEL_VERSION", "value": "v2"} in container["env"]
    assert texts[0].replace("&version v1", "&version v2") == texts[1]


def view(phase: str, **weights: int) -> DeploymentView:
    revisions = tuple(RevisionView(revision=v, version=v, in_force=w) for v, w in weights.items())
    return DeploymentView(namespace="default", name="m", at=1.0, status=Status(phase=phase), revisions=revisions)


def test_watch_keeps_changes_of_phase_and_weights(tmp_path: Path) -> None:
    changes: list[str] = []
    watch = Watch(Coalmine(tmp_path, 1), lambda v: changes.append(v.status.phase))
    for seen in (
        view("Healthy", v1=100),
        view("Healthy", v1=100),
        view("Progressing", v1=90, v2=10),
        view("Progressing", v1=90, v2=10),
        view("Baking", v2=100),
        view("Healthy", v2=100),
    ):
        watch.take(seen)
    assert changes == ["Healthy", "Progressing", "Baking", "Healthy"]
    assert watch.weights_of("v2") == [10, 100]
    assert watch.phase == "Healthy"


def test_the_last_request_is_the_latest_sent_to_a_version() -> None:
    records = [Record("a", 1.0, version="v3"), Record("b", 3.0, version="v2"), Record("c", 2.0, version="v3")]
    assert last_request(records, "v3") == 2.0
    assert last_request(records, "v9") == 0.0


async def test_the_summary_names_every_fact_without_a_terminal() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=200))
    timeline = Timeline(screen.decided)
    await timeline.play([("v1 starts", true), ("v2 starts", not_true), ("v3 starts", true)])
    evidence = {"labels": {"logE": 12.5, "threshold": 3.69, "psi": 4.2}}
    rollback = RollbackScore(
        version="v3",
        to="v2",
        decided_by="verdict",
        seconds_to_last_request=0.31,
        answered=80,
        message="verdict Fail: labels",
        evidence=evidence,
    )
    version = VersionScore(version="v3", answered=80, p50_ms=3.0, p99_ms=9.0, labels=78, accuracy=0.372)
    board = Scoreboard(
        sent=1000,
        client_errors=1,
        errors={"HTTP 503": 1},
        held_back=0,
        versions=[version],
        rollbacks=[rollback],
        fallback_seconds=2.0,
        fallback_answers=300,
    )
    with screen:
        screen.summary(timeline, board)
    text = out.getvalue()
    assert "\x1b" not in text
    for fact in ("✓", "✗", "v2 is late", "not tried", "0.31 s after the verdict", "logE=12.5", "psi=4.2", "0.372"):
        assert fact in text
    assert "requests sent: 1000   client errors: 1" in text
    assert "client error, 1 times: HTTP 503" in text
