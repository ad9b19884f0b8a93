"""Rollouts that ended, with what decided them: drawn, and told in plain lines. Pure."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..api.status import HistoryEntry
from ..web.view import DeploymentView
from .views import alert_words, verdict_reasons, verdict_table, verdict_words
from .words import clean, took, when

_INDENT = (0, 0, 0, 3)
_RESULT_STYLE = {"Promoted": "green", "RolledBack": "bold red", "Withdrawn": "yellow"}


def history_lines(view: DeploymentView) -> list[str]:
    """Oldest first; the evidence of each rollout is indented below it."""
    if not view.status.history:
        return [f"{view.name}: no rollout has ended yet"]
    lines = []
    for entry in sorted(view.status.history, key=lambda entry: entry.id):
        lines.append(f"{view.name} rollout {entry.id}: {_versions(entry)} {entry.result} {_why(entry)}; {_time(entry)}")
        lines += [f"  {verdict_words(verdict)}: {verdict_reasons(verdict)}" for verdict in entry.verdicts]
        if entry.alert:
            lines.append(f"  alert {alert_words(entry.alert)} since {when(entry.alert.starts_at)}")
    return lines


def history_view(view: DeploymentView) -> RenderableType:
    if not view.status.history:
        return Text(f"{view.name}: no rollout has ended yet")
    parts: list[RenderableType] = [Text(view.name, style="bold")]
    for entry in sorted(view.status.history, key=lambda entry: entry.id):
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(f"{entry.id}", style="dim"),
            Text(_versions(entry)),
            Text(entry.result, style=_RESULT_STYLE.get(entry.result, "")),
            Text(_why(entry)),
            Text(_time(entry), style="dim"),
        )
        parts.append(head)
        if entry.verdicts:
            parts.append(Padding(verdict_table(entry.verdicts), _INDENT))
        if entry.alert:
            alert = f"alert {alert_words(entry.alert)} since {when(entry.alert.starts_at)}"
            parts.append(Padding(Text(alert, style="red"), _INDENT))
    return Group(*parts)


def _versions(entry: HistoryEntry) -> str:
    return f"{entry.previous_version} -> {entry.version}" if entry.previous_version else entry.version


def _why(entry: HistoryEntry) -> str:
    actor = f"by {clean(entry.actor)}" if entry.actor and entry.actor not in entry.message else ""
    return ": ".join(part for part in (entry.reason, clean(entry.message), actor) if part)


def _time(entry: HistoryEntry) -> str:
    return f"{when(entry.started_at)}, took {took(entry.ended_at - entry.started_at)}"
