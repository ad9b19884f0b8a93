"""A baseline as an SVG picture: a small histogram for each column, the calibration, the performance. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from html import escape
from typing import Final

from ..api.baseline import Baseline, Categorical, Column, Numeric, Score
from .tables import NARROW, ends_of
from .words import clean, number

_ACROSS: Final = 3
_WIDTH: Final = 360
_HEIGHT: Final = 220
_GAP: Final = 16
_HEAD: Final = 76
#: Of a panel: room for its title, and for the axis below.
_TOP: Final = 66
_BOTTOM: Final = 26
_SIDE: Final = 14
#: Names of a category that are written, and their characters.
_NAMES: Final = 12
_NAME: Final = 14

_INK, _DIM, _LINE, _FILL, _ODD = "#1c2733", "#64748b", "#dbe2ea", "#2f7f9e", "#d98a29"
_STYLE: Final = (
    f"text{{font:12px system-ui,sans-serif;fill:{_DIM}}}.t{{font-size:14px;font-weight:600;fill:{_INK}}}"
    f".h{{font-size:20px;font-weight:700;fill:{_INK}}}.n{{font-variant-numeric:tabular-nums;fill:{_INK}}}"
    f".s{{font-size:10px}}"
)


def picture(made: Baseline, digest: str) -> str:
    """The whole document. Numbers are drawn as densities (a bar's area is its share), names as shares."""
    panels = [_column(role, name, column) for role, name, column in _columns(made)]
    if made.score:
        panels.append(_calibration(made.score))
    if made.performance:
        panels.append(_performance(made))
    down = -(-len(panels) // _ACROSS)
    width = _GAP + _ACROSS * (_WIDTH + _GAP)
    height = _HEAD + down * (_HEIGHT + _GAP)
    body = [f'<rect width="{width}" height="{height}" fill="#f5f7fa"/>']
    body.append(_text(_GAP, 32, f"{clean(made.model, 60)} {clean(made.version, 40)}", "h"))
    told = [made.task, f"{made.rows:,} rows", clean(made.source, 60), made.created_at, digest]
    body.append(_text(_GAP, 56, " · ".join(filter(None, told))))
    for i, panel in enumerate(panels):
        x, y = _GAP + i % _ACROSS * (_WIDTH + _GAP), _HEAD + i // _ACROSS * (_HEIGHT + _GAP)
        card = f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="#fff" stroke="{_LINE}"/>'
        body.append(f'<g transform="translate({x} {y})">{card}{"".join(panel)}</g>')
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>'
    return "\n".join([head, *body, "</svg>", ""])


def _columns(made: Baseline) -> Iterator[tuple[str, str, Column]]:
    for role, columns in (("", made.features), ("output ", made.outputs)):
        for name, column in columns.items():
            yield role, name, column


def _column(role: str, name: str, column: Column) -> list[str]:
    total = (sum(column.counts) + column.missing + column.unseen) or 1
    gone = [f"{n / total:.1%} {what}" for what, n in (("missing", column.missing), ("unseen", column.unseen)) if n]
    parts = [_text(_SIDE, 24, role + clean(name, 36), "t")]
    if isinstance(column, Numeric):
        told = [f"mean {number(column.mean)}", f"deviation {number(column.stddev)}"]
        bars = _densities(column)
    else:
        told = [f"{len(column.categories)} {'names' if len(column.categories) > 1 else 'name'}"]
        bars = _shares(column)
    return [*parts, _text(_SIDE, 42, " · ".join([*told, *gone])), *bars]


def _densities(column: Numeric) -> list[str]:
    """Bars between the edges, whose areas are the shares."""
    ends = ends_of(column)
    room, floor = _WIDTH - 2 * _SIDE, _HEIGHT - _BOTTOM
    scale = room / ((ends[-1] - ends[0]) or 1)
    widths = [(b - a) * scale for a, b in itertools.pairwise(ends)]
    heights = [count / max(width, room * NARROW) for count, width in zip(column.counts, widths, strict=True)]
    unit = (floor - _TOP) / (max(heights) or 1)
    bars = []
    for start, width, height in zip(ends, widths, heights, strict=False):
        x, h = _SIDE + (start - ends[0]) * scale, height * unit
        bars.append(_rect(x, floor - h, max(width - 1, 0.75), h))
    left, right = number(column.min), number(column.max)
    return [
        *bars,
        _axis(),
        _text(_SIDE, _HEIGHT - 9, ("…" if ends[0] > column.min else "") + left),
        _text(_WIDTH - _SIDE, _HEIGHT - 9, right + ("…" if ends[-1] < column.max else ""), anchor="end"),
    ]


def _shares(column: Categorical) -> list[str]:
    """Bars side by side, with their names where there is room for these."""
    floor = _HEIGHT - _BOTTOM
    step = (_WIDTH - 2 * _SIDE) / len(column.categories)
    unit = (floor - _TOP) / (max(column.counts) or 1)
    total = sum(column.counts) + column.missing + column.unseen
    parts = []
    for i, (name, count) in enumerate(zip(column.categories, column.counts, strict=True)):
        x = _SIDE + i * step
        parts.append(_rect(x + step * 0.1, floor - count * unit, step * 0.8, count * unit))
        if len(column.categories) <= _NAMES:
            most = max(2, min(_NAME, int(step / 6.5)))
            parts.append(_text(x + step / 2, _HEIGHT - 9, clean(name, most), "s", anchor="middle"))
            share = f"{count / (total or 1):.0%}"
            parts.append(_text(x + step / 2, floor - count * unit - 4, share, "s", anchor="middle"))
    if len(column.categories) > _NAMES:
        ends = f"{clean(column.categories[0], 20)} … {clean(column.categories[-1], 20)}"
        parts.append(_text(_WIDTH / 2, _HEIGHT - 9, ends, anchor="middle"))
    return [*parts, _axis()]


def _calibration(score: Score) -> list[str]:
    """Share of positives by bin of the score (points by how many rows), and what is made of it (the line)."""
    floor, room = _HEIGHT - _BOTTOM, _WIDTH - 2 * _SIDE
    inside = all(0 <= edge <= 1 for edge in score.edges)
    low, high = (0.0, 1.0) if inside else (score.edges[0], score.edges[-1])
    scale = room / ((high - low) or 1)

    def at(x: float, y: float) -> str:
        return f"{_SIDE + (x - low) * scale:.1f},{floor - y * (floor - _TOP):.1f}"

    ends = [low, *score.edges, high]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(ends)]
    parts = [_text(_SIDE, 24, "calibration", "t")]
    parts.append(_text(_SIDE, 42, f"share of {clean(score.positive, 20)} by score, {len(score.counts)} bins"))
    if inside:
        parts.append(f'<polyline points="{at(0, 0)} {at(1, 1)}" stroke="{_LINE}" stroke-dasharray="4 4" fill="none"/>')
    line = " ".join(at(x, y) for x, y in zip(middles, score.calibration, strict=True))
    parts.append(f'<polyline points="{line}" stroke="{_FILL}" stroke-width="2" fill="none"/>')
    for x, count, positives in zip(middles, score.counts, score.positives, strict=True):
        if count:
            cx, cy = at(x, positives / count).split(",")
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="2" fill="{_ODD}"/>')
    parts.append(_text(_SIDE, _HEIGHT - 9, number(low)))
    parts.append(_text(_WIDTH - _SIDE, _HEIGHT - 9, number(high), anchor="end"))
    return [*parts, _axis()]


def _performance(made: Baseline) -> list[str]:
    """Realised figures and, beside them, those estimated without labels."""
    assert made.performance  # noqa: S101 - the caller has looked
    metrics = made.performance.metrics
    parts = [_text(_SIDE, 24, "performance", "t")]
    parts.append(_text(_SIDE, 42, f"± deviation over chunks of {made.performance.chunk_rows:,} rows"))
    realised = [name for name in metrics if not name.endswith("_estimated")]
    estimated = any(name.endswith("_estimated") for name in metrics)
    for x, title in ((210, "with labels"), (_WIDTH - _SIDE, "estimated" if estimated else "")):
        parts.append(_text(x, 58, title, "s", anchor="end"))
    for i, name in enumerate(realised[:10]):
        y = 74 + i * 14.5
        parts.append(_text(_SIDE, y, name))
        for x, key in ((210, name), (_WIDTH - _SIDE, f"{name}_estimated")):
            if one := metrics.get(key):
                spread = "" if one.stddev is None else f" ± {one.stddev:.4f}"
                parts.append(_text(x, y, f"{one.value:.4f}{spread}", "n", anchor="end"))
    return parts


def _rect(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{_FILL}"/>'


def _axis() -> str:
    y = _HEIGHT - _BOTTOM
    return f'<path d="M{_SIDE} {y + 0.5}H{_WIDTH - _SIDE}" stroke="{_DIM}"/>'


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}"' + (f' class="{kind}"' if kind else "")
    side = f' text-anchor="{anchor}"' if anchor else ""
    return f"<text {where}{side}>{escape(text)}</text>"
