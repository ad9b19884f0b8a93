"""What a model deployment looks like: drawn, in plain lines, and never able to drive the terminal."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from rich.console import Console, RenderableType

from coalmine_operator.api.status import AlertStatus, HistoryEntry, LastRollback, Status, Verdict
from coalmine_operator.cli import history, views, words
from coalmine_operator.web.view import DeploymentView, RevisionView

AT = 1_795_300_000.0

VERDICT = Verdict(
    metric="errors",
    verdict="Fail",
    reason="CanaryWorse",
    statistic=9.125,
    threshold=4.382,
    evidence={
        "canary": {"errors": 31, "requests": 600},
        "stable": {"errors": 12, "requests": 1800},
        "excess": 0.045,
        "logE": 9.125,
    },
)
ALERT = AlertStatus(
    fingerprint="aa",
    name="ModelLatencyHigh",
    labels={"alertname": "ModelLatencyHigh", "severity": "critical", "model": "fraud"},
    starts_at=AT - 30,
    received_at=AT - 20,
)
VIEW = DeploymentView(
    namespace="default",
    name="fraud",
    at=AT,
    status=Status(
        phase="Progressing",
        message="waits for 500 canary requests",
        step="2/5",
        verdicts=(VERDICT,),
        alerts=(ALERT, AlertStatus(fingerprint="bb", name="Old", resolved_at=AT - 5)),
        last_rollback=LastRollback(
            source="fraud-3",
            target="fraud-2",
            source_version="v3",
            target_version="v2",
            reason="AnalysisFailed",
            message="scores drifted",
            at=AT - 60,
            done_at=AT - 58,
        ),
    ),
    revisions=(
        RevisionView(
            revision="fraud-2",
            version="v2",
            track="stable",
            weight=75,
            in_force=75,
            pods=2,
            ready=2,
            rps=149.6,
            requests=9000,
        ),
        RevisionView(
            revision="fraud-4",
            version="v4",
            track="canary",
            weight=25,
            in_force=20,
            pods=1,
            ready=0,
            rps=50.2,
            requests=700,
            errors=3,
            failure="exited with 1: \x1b[31mno such file\x1b[0m\nmodel.bin",
        ),
        RevisionView(revision="fraud-1", version="v1"),
    ),
    problems=("spec.strategy.canary.steps[1].setWeight: 140 is over 100",),
    ingress="http://127.0.0.1:8008",
)
ENTRY = HistoryEntry(
    id=3,
    revision="fraud-3",
    version="v3",
    previous="fraud-2",
    previous_version="v2",
    started_at=AT - 100,
    ended_at=AT - 60,
    result="RolledBack",
    reason="AlertFiring",
    message="ModelLatencyHigh fires",
    verdicts=(VERDICT,),
    alert=ALERT,
)
FIRST = HistoryEntry(
    id=1,
    revision="fraud-1",
    version="v1",
    previous="",
    previous_version="",
    started_at=AT - 500,
    ended_at=AT - 499.6,
    result="Promoted",
    reason="FirstRevision",
    message="v1 is stable",
    actor="ada@lab",
)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def drawn(renderable: RenderableType, width: int = 120, *, color: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=color, color_system="standard" if color else None)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above


def test_the_panel_holds_everything_that_is_known() -> None:
    text = drawn(views.deployment_panel(VIEW))
    for part in (
        "fraud  Progressing step 2/5",
        "waits for 500 canary requests",
        "spec.strategy.canary.steps[1].setWeight: 140 is over 100",
        "v4: exited with 1: [31mno such file [0m model.bin",
        "alert ModelLatencyHigh (model=fraud, severity=critical)",
        "last rollback at 22:25:40: v3 -> v2, done in 2s: AnalysisFailed: scores drifted",
        "http://127.0.0.1:8008",
        "9.125 of 4.382",
        "canary.errors=31 canary.requests=600",
    ):
        assert part in text
    stable, canary, retired = (
        next(line for line in text.splitlines() if f"│ {v}  " in line) for v in ("v2", "v4", "v1")
    )
    assert stable.count("█") == 15
    assert canary.count("█") == 5
    assert [*canary.split()[-6:-1]] == ["%", "0/1", "50.2", "700", "3"]
    assert "retired" in retired
    assert "Old" not in text


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_panel_fits_any_terminal(width: int) -> None:
    assert {len(line) for line in drawn(views.deployment_panel(VIEW), width).splitlines()} == {width}


def test_text_from_strangers_cannot_drive_the_terminal_or_the_markup() -> None:
    nasty = "\x1b]0;owned\x07[bold red]x[/]\r\n\u202e" * 50
    view = DeploymentView(
        namespace="default",
        name="fraud",
        at=AT,
        status=Status(message=nasty, alerts=(AlertStatus(fingerprint="a", name=nasty, labels={"l": nasty}),)),
        revisions=(RevisionView(revision="r", version="v", failure=nasty),),
        problems=(nasty,),
    )
    for text in (drawn(views.deployment_panel(view)), "\n".join(views.plain_lines(view))):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        assert "[bold red]x[/]" in text
    assert len(views.plain_lines(view)) == 4


def test_colours_only_where_they_are_wanted() -> None:
    assert "\x1b[" in drawn(views.deployment_panel(VIEW), color=True)
    assert "\x1b[" not in drawn(views.deployment_panel(VIEW))


def test_one_plain_line() -> None:
    assert views.plain_line(VIEW) == (
        "fraud Progressing step 2/5; v2 stable 75 % (2/2 ready, 150 req/s); v4 canary 25 % (0/1 ready, 50 req/s); "
        "v1 retired 0 % (0/0 ready, 0 req/s); errors Fail (statistic 9.125 of 4.382); "
        "alert ModelLatencyHigh (model=fraud, severity=critical)"
    )


def test_a_deployment_of_which_nothing_is_known_yet() -> None:
    view = DeploymentView(namespace="default", name="fraud", at=AT, status=Status())
    assert views.plain_lines(view) == ["fraud Pending"]
    assert "fraud  Pending" in drawn(views.deployment_panel(view))


def test_a_verdict_without_a_statistic_shows_none() -> None:
    found = Verdict(
        metric="baseline", verdict="Unknown", reason="BaselineMissing", evidence={"problem": "is not there"}
    )
    view = replace(VIEW, status=replace(VIEW.status, verdicts=(found,)))
    assert "  baseline Unknown: BaselineMissing, problem=is not there" in views.plain_lines(view)
    (row,) = (line for line in drawn(views.deployment_panel(view)).splitlines() if "baseline" in line)
    assert " 0" not in row
    assert "█" not in row


def test_history_tells_result_reason_and_evidence_oldest_first() -> None:
    view = DeploymentView(namespace="default", name="fraud", at=AT, status=Status(history=(ENTRY, FIRST)))
    assert history.history_lines(view) == [
        "fraud rollout 1: v1 Promoted FirstRevision: v1 is stable: by ada@lab; 2026-11-21T22:18:20+00:00, took <1s",
        "fraud rollout 3: v2 -> v3 RolledBack AlertFiring: ModelLatencyHigh fires; 2026-11-21T22:25:00+00:00, took 40s",
        "  errors Fail (statistic 9.125 of 4.382): CanaryWorse, canary.errors=31 canary.requests=600 stable.errors=12 "
        "stable.requests=1800 excess=0.045",
        "  alert ModelLatencyHigh (model=fraud, severity=critical) since 2026-11-21T22:26:10+00:00",
    ]
    text = drawn(history.history_view(view))
    for part in ("RolledBack", "AlertFiring: ModelLatencyHigh fires", "9.125 of 4.382", "severity=critical"):
        assert part in text


def test_no_history() -> None:
    view = DeploymentView(namespace="default", name="fraud", at=AT, status=Status())
    assert history.history_lines(view) == ["fraud: no rollout has ended yet"]
    assert drawn(history.history_view(view)) == "fraud: no rollout has ended yet\n"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (31, "31"), (0.0451234, "0.04512"), (1e20, "1e+20"), (12.0, "12"), (-3.5, "-3.5")]
)
def test_numbers(value: float, text: str) -> None:
    assert words.number(value) == text


def test_evidence_is_flat_and_bounded() -> None:
    assert words.evidence({"a": {"b": [1, 2.5]}, "c": "why", "d": True}) == "a.b=1,2.5 c=why d=True"
    assert len(words.evidence({str(i): i for i in range(1000)})) == words.SHOWN
