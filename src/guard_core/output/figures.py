"""Small inline SVG figures: where rows lie, how values spread, how CPU time divides.

Colours are CSS classes of the page, never inline styles, because the page's Content-Security-Policy
allows only its one hashed style sheet. Each figure states itself in words to a screen reader. Text is
put in with ``Markup.format``, which escapes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

STRIP_CELLS = 240
"""Horizontal resolution of a row strip: each cell stands for ``ceil(rows / cells)`` rows or less."""

_NOTHING = Markup("")
_RECT = Markup('<rect class="{c}" x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}"/>')
_STRIP = Markup(
    '<svg class="strip" viewBox="0 0 722.4 20" preserveAspectRatio="none" role="img" '
    'shape-rendering="crispEdges" aria-label="{label}">'
    '<rect class="track" x="0" y="7" width="722.4" height="6" rx="3"/>{marks}</svg>'
)
_BARS = Markup(
    '<svg class="bars" viewBox="0 0 120 28" preserveAspectRatio="none" role="img" aria-label="{label}">'
    "{marks}</svg>"
)
_SHARE = Markup(
    '<svg class="share" viewBox="0 0 60 6" role="img" aria-label="{label}">'
    '<rect class="track" width="60" height="6" rx="3"/>'
    '<rect class="fill {kind}" width="{filled:.2f}" height="6" rx="3"/></svg>'
)
_STACKED = Markup(
    '<svg class="stacked" viewBox="0 0 720 16" preserveAspectRatio="none" role="img" aria-label="{label}">'
    "{marks}</svg>"
)


def row_strip(ranges: Iterable[tuple[int, int]], total: int, *, kind: str, label: str) -> Markup:
    """A strip as wide as the data, marked where ``ranges`` (inclusive row numbers) lie.

    Density within a cell is shown by height, never less than a third, so that one row in a million is
    still seen. ``kind`` is a CSS class, e.g. a severity.
    """
    cells = min(STRIP_CELLS, max(total, 1))
    width = 720 / cells
    marks = []
    for cell, share in enumerate(_densities(ranges, total, cells)):
        if share > 0:
            height = 6 + 12 * min(1.0, share)
            marks.append(
                _RECT.format(
                    c=f"mark {kind}", x=cell * width, y=(20 - height) / 2, w=max(width + 0.3, 2.4), h=height
                )
            )
    return _STRIP.format(label=label, marks=_NOTHING.join(marks))


def _densities(ranges: Iterable[tuple[int, int]], total: int, cells: int) -> list[float]:
    """Share of each cell's rows that lie in ``ranges``; a row may lie in two cells when they divide it."""
    counts = [0.0] * cells
    if total <= 0:
        return counts
    per_cell = total / cells
    for first, last in ranges:
        low, high = float(max(first, 0)), float(min(last + 1, total))
        cell = int(low / per_cell)
        while low < high and cell < cells:
            edge = (cell + 1) * per_cell
            counts[cell] += max(min(high, edge) - low, 0.0)
            low, cell = max(low, edge), cell + 1
    return [count / per_cell for count in counts]


def bars(counts: Sequence[float], *, label: str) -> Markup:
    """A histogram of ``counts``, tallest bar full height; nothing when all are zero."""
    top = max(counts, default=0)
    if top <= 0:
        return _NOTHING
    width = 120 / len(counts)
    gap = 1.0 if width > 4 else 0.2
    marks = []
    for i, count in enumerate(counts):
        if count > 0:
            height = max(26 * count / top, 1.0)
            marks.append(_RECT.format(c="bar", x=i * width, y=28 - height, w=max(width - gap, 0.4), h=height))
    return _BARS.format(label=label, marks=_NOTHING.join(marks))


def share_bar(share: float, *, kind: str, label: str) -> Markup:
    """A thin bar filled to ``share`` (0 to 1)."""
    return _SHARE.format(label=label, kind=kind, filled=60 * min(max(share, 0.0), 1.0))


_GRID = Markup(
    '<svg class="grid" viewBox="0 0 {side} {side}" role="img" aria-label="{label}">'
    '<rect class="track" width="{side}" height="{side}"/>{marks}</svg>'
)


def pixel_grid(pixels: Iterable[int], side: int, *, kind: str, label: str) -> Markup:
    """A ``side`` x ``side`` image with some pixels (row-major numbers) marked; says where, not what."""
    marks = [_RECT.format(c=f"mark {kind}", x=p % side, y=p // side, w=1, h=1) for p in sorted(set(pixels))]
    return _GRID.format(side=side, label=label, marks=_NOTHING.join(marks))


def stacked(parts: Sequence[tuple[str, float]], kinds: Sequence[str] = ()) -> Markup:
    """One bar divided in proportion to ``parts`` (name, amount), in the page's eight series colours.

    ``kinds``: a CSS class for each part instead, where its colour has a meaning elsewhere on the page.
    """
    total = sum(amount for _, amount in parts)
    if total <= 0:
        return _NOTHING
    x, marks = 0.0, []
    for i, (_, amount) in enumerate(parts):
        width = 720 * amount / total
        colour = kinds[i] if kinds else f"series{i % 8}"
        marks.append(_RECT.format(c=colour, x=x, y=0, w=max(width - 1.5, 0.5), h=16))
        x += width
    label = ", ".join(f"{name} {100 * amount / total:.0f}%" for name, amount in parts)
    return _STACKED.format(label=label, marks=_NOTHING.join(marks))


_SHIELD = Markup(
    '<svg class="shield {verdict}" viewBox="0 0 32 32" aria-hidden="true">'
    '<path class="body" d="M16 2 4 6.5v8.6C4 22.6 9 28 16 30c7-2 12-7.4 12-14.9V6.5z"/>'
    '<path class="sign" d="{mark}"/></svg>'
)
_MARKS = {
    "allow": "M10 16.2l4.2 4.2L22.5 12",
    "warn": "M16 9v8.5M16 22.2v.3",
    "quarantine": "M12.5 10.5v11M19.5 10.5v11",
    "deny": "M11.5 11.5l9 9M20.5 11.5l-9 9",
}


def shield(verdict: str) -> Markup:
    """The verdict's badge: a shield whose mark differs by shape as well as by colour."""
    return _SHIELD.format(verdict=verdict, mark=_MARKS.get(verdict, _MARKS["warn"]))


_ICON = Markup('<svg class="icon" viewBox="0 0 12 12" aria-hidden="true"><path d="{shape}"/></svg>')
_SHAPES = {
    "critical": "M6 .2 11.8 6 6 11.8.2 6z",
    "warning": "M6 .8l5.6 10.2H.4z",
    "info": "M6 1a5 5 0 1 0 .01 0z",
}


def severity_icon(severity: str) -> Markup:
    """Diamond, triangle or circle: severity without colour."""
    return _ICON.format(shape=_SHAPES.get(severity, _SHAPES["info"]))
