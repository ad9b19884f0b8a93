"""A model deployment drawn for a terminal, and told in plain lines. Pure: data in, renderables or text out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ..api.status import AlertStatus, Verdict
from ..web.view import DeploymentView, RevisionView
from .words import clean, clock, evidence, labels, number, took

BAR: Final = 20
_PHASE_STYLE: Final = {
    "Healthy": "green",
    "RollingBack": "bold red",
    "Degraded": "bold red",
    "InvalidSpec": "bold red",
    "Paused": "yellow",
}
_TRACK_STYLE: Final = {"stable": "green", "canary": "yellow", "fallback": "cyan"}
_VERDICT_STYLE: Final = {"Pass": "green", "Fail": "bold red", "Unknown": "dim"}


def deployment_panel(view: DeploymentView) -> RenderableType:
    """Everything that is known now, in one panel."""
    status = view.status
    title = Text.assemble(
        (view.name, "bold"), "  ", (status.phase, _PHASE_STYLE.get(status.phase, "yellow")), _step_words(view)
    )
    parts: list[RenderableType] = []
    if status.message:
        parts.append(Text(clean(status.message)))
    parts += [Text(clean(problem), style="red") for problem in view.problems]
    parts.append(_revisions(view.revisions))
    parts += [
        Text(f"{revision.version}: {clean(revision.failure)}", style="red")
        for revision in view.revisions
        if revision.failure
    ]
    if status.verdicts:
        parts.append(verdict_table(status.verdicts))
    parts += [Text(f"alert {alert_words(alert)}", style="red") for alert in firing(view)]
    if rollback := rollback_words(view):
        parts.append(Text(rollback, style="magenta"))
    subtitle = Text(view.ingress, style="dim") if view.ingress else None
    return Panel(Group(*parts), title=title, title_align="left", subtitle=subtitle, subtitle_align="right")


def plain_line(view: DeploymentView) -> str:
    """The same on one line: phase, step, weights, ready pods, requests per second, verdicts."""
    status = view.status
    parts = [f"{view.name} {status.phase}{_step_words(view)}"]
    parts += [
        f"{revision.version} {revision.track or 'retired'} {revision.weight} %"
        f" ({revision.ready}/{revision.pods} ready, {revision.rps:.0f} req/s)"
        for revision in view.revisions
    ]
    parts += [verdict_words(verdict) for verdict in status.verdicts]
    parts += [f"alert {alert_words(alert)}" for alert in firing(view)]
    return "; ".join(parts)


def plain_lines(view: DeploymentView) -> list[str]:
    """`coalmine status` where there is no terminal: the line, and below it what explains it."""
    lines = [plain_line(view)]
    if view.status.message:
        lines.append(f"  {clean(view.status.message)}")
    lines += [f"  {clean(problem)}" for problem in view.problems]
    lines += [f"  {r.version}: {clean(r.failure)}" for r in view.revisions if r.failure]
    lines += [f"  {verdict_words(v)}: {verdict_reasons(v)}" for v in view.status.verdicts]
    if rollback := rollback_words(view):
        lines.append(f"  {rollback}")
    if view.ingress:
        lines.append(f"  requests go to {view.ingress}")
    return lines


def live(views: Iterable[DeploymentView], events: Iterable[str]) -> RenderableType:
    """The live view: a panel for each model deployment and the newest events below."""
    parts: list[RenderableType] = [deployment_panel(view) for view in views]
    parts += [Text(event, style="dim", no_wrap=True, overflow="ellipsis") for event in events]
    return Group(*parts)


def verdict_table(verdicts: Iterable[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("metric", "verdict", "statistic", "why"):
        table.add_column(column, header_style="dim", overflow="fold")
    for verdict in verdicts:
        share = verdict.statistic / verdict.threshold if verdict.threshold > 0 else 0.0
        table.add_row(
            clean(verdict.metric),
            Text(verdict.verdict, style=_VERDICT_STYLE[verdict.verdict]),
            Text.assemble(_bar(share, 10, _VERDICT_STYLE[verdict.verdict]), f" {_statistic(verdict)}")
            if verdict.threshold
            else "",
            Text(verdict_reasons(verdict)),
        )
    return table


def verdict_words(verdict: Verdict) -> str:
    """`errors Unknown (statistic 1.2 of 4.38)`; `baseline Pass`, where there is nothing to compute."""
    said = f"{clean(verdict.metric)} {verdict.verdict}"
    return f"{said} (statistic {_statistic(verdict)})" if verdict.threshold else said


def verdict_reasons(verdict: Verdict) -> str:
    found = {name: value for name, value in verdict.evidence.items() if name != "logE"}  # it is the statistic
    return ", ".join(part for part in (clean(verdict.reason), evidence(found)) if part) or "no evidence yet"


def alert_words(alert: AlertStatus) -> str:
    """`ModelLatencyHigh (model=fraud, severity=critical)`."""
    shown = labels(alert.labels)
    return f"{clean(alert.name)} ({shown})" if shown else clean(alert.name)


def firing(view: DeploymentView) -> list[AlertStatus]:
    return [alert for alert in view.status.alerts if not alert.resolved_at]


def rollback_words(view: DeploymentView) -> str:
    """What the last rollback was, or nothing."""
    last = view.status.last_rollback
    if last is None:
        return ""
    done = f", done in {took(last.done_at - last.at)}" if last.done_at else ", under way"
    return (
        f"last rollback at {clock(last.at)}: {last.source_version} -> {last.target_version}{done}: "
        f"{last.reason}: {clean(last.message)}"
    )


def _revisions(revisions: Iterable[RevisionView]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("version", "track", "weight", "in force", "ready", "req/s", "answers", "errors"):
        right = column not in ("version", "track", "weight")
        table.add_column(column, header_style="dim", justify="right" if right else "left", no_wrap=True)
    for revision in revisions:
        style = _TRACK_STYLE.get(revision.track, "dim")
        table.add_row(
            Text(revision.version or revision.revision, style="bold"),
            Text(revision.track or "retired", style=style),
            Text.assemble(_bar(revision.weight / 100, BAR, style), f" {revision.weight:3} %"),
            f"{revision.in_force} %",
            f"{revision.ready}/{revision.pods}",
            f"{revision.rps:.1f}",
            str(revision.requests),
            Text(str(revision.errors), style="red" if revision.errors else ""),
        )
    return table


def _bar(share: float, width: int, style: str) -> Text:
    filled = round(min(max(share, 0.0), 1.0) * width)
    return Text.assemble(("█" * filled, style), ("░" * (width - filled), "dim"))


def _statistic(verdict: Verdict) -> str:
    return f"{number(verdict.statistic)} of {number(verdict.threshold)}"


def _step_words(view: DeploymentView) -> str:
    return f" step {view.status.step}" if view.status.step else ""
