"""A baseline drawn for a terminal, told in plain lines, and as lines of a manifest. Pure: data in, text out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from coalmine_sidecar.monitoring import MISSING, UNSEEN

from ..api.baseline import Baseline, Categorical, Column, Numeric, labels
from .words import clean, number

if TYPE_CHECKING:
    from ..analysis.reference_plan import Plan

BAR: Final = 30
#: How far beyond its edge an open bin is drawn, at most, in spans of all edges; further where these are few.
_BEYOND: Final = 0.5
#: A narrower bin, in parts of the whole, is drawn as high as one so wide: a spike would leave nothing of the others.
NARROW: Final = 1 / 40
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def plan_lines(plan: Plan, made: Baseline) -> list[str]:
    """What was made of each column, and why; then the performance."""
    lines = [f"{plan.rows} rows"]
    for role, chosen, columns in (("feature", plan.features, made.features), ("output", plan.outputs, made.outputs)):
        for one in chosen:
            column = columns.get(one.name)
            if column is None:
                lines.append(f"{role} {clean(one.name)}: left out: {one.guess.why}")
                continue
            bins = len(column.counts)
            gone = "".join(f", {n} {what}" for what, n in (("missing", column.missing), ("unseen", column.unseen)) if n)
            lines.append(f"{role} {clean(one.name)}: {_kind(column)} ({one.guess.why}), {bins} bins{gone}")
    return lines + performance_lines(made)


def performance_lines(made: Baseline) -> list[str]:
    """A line a metric: over all rows, and its mean and deviation over chunks."""
    if not made.performance:
        return ["performance: none without a label and a prediction"]
    lines = []
    for name, one in made.performance.metrics.items():
        spread = ""
        if one.mean is not None and one.stddev is not None:
            spread = f" (chunks of {made.performance.chunk_rows}: mean {one.mean:.4f}, deviation {one.stddev:.4f})"
        lines.append(f"{name} {one.value:.4f}{spread}")
    if all(one.stddev is None for one in made.performance.metrics.values()):
        lines.append(f"fewer than two chunks of {made.performance.chunk_rows} labelled rows: no deviation over chunks")
    return lines


def lines_of(made: Baseline, digest: str) -> list[str]:
    """`coalmine baseline show` where there is no terminal."""
    lines = [_title(made), digest]
    for role, name, column in _columns(made):
        lines += ["", f"{role} {clean(name)}: {_facts(column)}"]
        rows = list(_rows(column))
        width = max(len(label) for label, _, _ in rows)
        lines += [f"  {label:{width}} {share:6.1%} {'#' * round(BAR * bar)}".rstrip() for label, share, bar in rows]
    return [*lines, "", *performance_lines(made)]


def baseline_view(made: Baseline, digest: str) -> RenderableType:
    """The same with bars, for a terminal."""
    parts: list[RenderableType] = [Text(_title(made), style="bold"), Text(digest, style="dim")]
    for role, name, column in _columns(made):
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(overflow="ellipsis", no_wrap=True, max_width=40)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        for label, share, bar in _rows(column):
            table.add_row(Text(label), f"{share:.1%}", Text(_bar(bar), style="cyan"))
        title = Text.assemble((f"{role} ", "dim"), (clean(name), "bold"))
        parts.append(Panel(Group(Text(_facts(column), style="dim"), table), title=title, title_align="left"))
    parts.append(_performance(made))
    return Group(*parts)


def yaml_lines(made: Baseline, digest: str, file: str) -> list[str]:
    """What to paste under `spec` of a manifest."""
    lines = ["monitoring:", f"  task: {made.task}"]
    if made.score:
        shown = f"threshold: {json.dumps(made.score.threshold)}, positive: {_quoted(made.score.positive)}"
        lines.append(f"  prediction: {{{shown}}}  # and score: PATH, where an answer has more than one number")
    lines.append(f"  baseline: {{file: {_quoted(file)}, digest: {_quoted(digest)}}}  # in a cluster: configMap: NAME")
    if made.features:
        lines.append("  features:")
        lines += [f"    - {{name: {_quoted(name)}, type: {_kind(column)}}}" for name, column in made.features.items()]
    return lines


def _title(made: Baseline) -> str:
    at = f", made {made.created_at}" if made.created_at else ""
    source = f" of {clean(made.source)}" if made.source else ""
    return f"{clean(made.model)} {clean(made.version)}: {made.task}, {made.rows} rows{source}{at}"


def _columns(made: Baseline) -> Iterator[tuple[str, str, Column]]:
    for role, columns in (("feature", made.features), ("output", made.outputs)):
        for name, column in columns.items():
            yield role, name, column


def _facts(column: Column) -> str:
    if isinstance(column, Numeric):
        numbers = f"mean {number(column.mean)}, deviation {number(column.stddev)}"
        return f"numeric, {numbers}, from {number(column.min)} to {number(column.max)}"
    names = len(column.categories)
    return f"categorical, {names} {'names' if names > 1 else 'name'}"


def _rows(column: Column) -> Iterator[tuple[str, float, float]]:
    """Labels, shares of all rows, and lengths of bars up to 1: of numbers their density, for bins have even shares."""
    total = (sum(column.counts) + column.missing + column.unseen) or 1
    heights: list[float] = list(column.counts)
    if isinstance(column, Numeric):
        ends = ends_of(column)
        narrow = (ends[-1] - ends[0]) * NARROW or 1.0
        widths = [max(b - a, narrow) for a, b in itertools.pairwise(ends)]
        heights = [count / width for count, width in zip(column.counts, widths, strict=True)]
    most = max(heights, default=0.0) or 1.0
    for label, count, height in zip(short_labels(column), column.counts, heights, strict=True):
        yield label, count / total, height / most
    if column.missing:
        yield MISSING, column.missing / total, 0.0
    if column.unseen:
        yield UNSEEN, column.unseen / total, 0.0


def ends_of(column: Numeric) -> list[float]:
    """Where bins begin and end for the eye: the open ones at the least and the greatest value, if these are near."""
    first, last = column.edges[0], column.edges[-1]
    reach = (last - first) * max(_BEYOND, 2 / len(column.edges)) or abs(first) or 1.0
    low, high = max(column.min, first - reach), min(column.max, last + reach)
    return [min(low, first), *column.edges, max(high, last)]


def short_labels(column: Column) -> list[str]:
    """Labels for eyes: four digits, where neighbours still differ by them."""
    if isinstance(column, Categorical):
        return [clean(name, 40) for name in column.categories]
    shown = [number(edge) for edge in column.edges]
    if len(set(shown)) < len(shown):
        return labels(column)
    return [f"< {shown[0]}", *(f"{a} – {b}" for a, b in itertools.pairwise(shown)), f"≥ {shown[-1]}"]


def _performance(made: Baseline) -> RenderableType:
    if not made.performance:
        return Text(performance_lines(made)[0], style="dim")
    table = Table(box=None, pad_edge=False)
    for name in ("metric", "all rows", "mean", "deviation"):
        table.add_column(name, header_style="dim", justify="left" if name == "metric" else "right")
    for name, one in made.performance.metrics.items():
        spread = [f"{value:.4f}" if value is not None else "–" for value in (one.mean, one.stddev)]
        table.add_row(name, f"{one.value:.4f}", *spread)
    title = Text(f"performance, chunks of {made.performance.chunk_rows} rows", style="bold")
    return Panel(table, title=title, title_align="left")


def _kind(column: Column) -> str:
    return "numeric" if isinstance(column, Numeric) else "categorical"


def _bar(share: float) -> str:
    eighths = round(share * BAR * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _quoted(text: str) -> str:
    """As YAML reads it, which reads JSON's text."""
    return json.dumps(text, ensure_ascii=False)
