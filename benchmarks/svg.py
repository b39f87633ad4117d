"""Plots as SVG, drawn with nothing but strings, readable on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import Any

from benchmarks.results import Plot

_WIDTH, _LEFT, _RIGHT, _TOP = 720, 190, 90, 44
_BAR, _GAP, _PLOT_HEIGHT = 18, 8, 220
_COLOURS = ("#3b7dd8", "#d9822b", "#4a9c5d", "#b04a8f", "#8c6bc8", "#888888")
_INK, _GRID = "#777777", "#99999955"


def draw(plot: Plot) -> str:
    """The plot as the text of an SVG file."""
    parts, height = {"bars": _bars, "line": _line, "histogram": _histogram}[plot.kind](plot)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{_INK}">'
    )
    body = [_text(8, 20, plot.title, size=14, weight="bold"), *_legend(plot), *parts]
    return "\n".join([head, *body, "</svg>\n"])


def _bars(plot: Plot) -> tuple[list[str], int]:
    """A group of horizontal bars for each x, a bar a series."""
    most = max([*(value for values in plot.y.values() for value in values), plot.mark or 0]) or 1
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    parts, y = [], _TOP
    for at, label in enumerate(plot.x):
        middle = y + _BAR * len(plot.y) / 2 + 4
        parts.append(_text(_LEFT - 8, middle, str(label), anchor="end"))
        for series, (name, values) in enumerate(plot.y.items()):
            width = values[at] * scale
            parts.append(_rect(_LEFT, y, width, _BAR - 2, _COLOURS[series % len(_COLOURS)], f"{label} {name}"))
            parts.append(_text(_LEFT + width + 6, y + _BAR - 6, f"{number(values[at])}"))
            y += _BAR
        y += _GAP
    if plot.mark is not None:
        x = _LEFT + plot.mark * scale
        parts.append(_stroke([(x, _TOP - 4), (x, y)], _INK, dashed=True))
    parts.append(_text(_LEFT, y + 12, plot.y_unit))
    return parts, round(y + 22)


def _line(plot: Plot) -> tuple[list[str], int]:
    """A line a series over numbers; x is on a logarithmic scale when it spans two decades or more."""
    xs = [float(x) for x in plot.x]
    is_log = min(xs) > 0 and max(xs) / min(xs) >= 100
    places = [math.log10(x) if is_log else x for x in xs]
    across, most = _scale(places), max([*(v for values in plot.y.values() for v in values), plot.mark or 0]) or 1
    parts = _grid(most, plot)
    for series, values in enumerate(plot.y.values()):
        points = [(across(place), _down(value, most)) for place, value in zip(places, values, strict=True)]
        colour = _COLOURS[series % len(_COLOURS)]
        parts.append(_stroke(points, colour))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    for place, x in _thinned(list(zip(places, xs, strict=True)), 8):
        parts.append(_text(across(place), _TOP + _PLOT_HEIGHT + 16, number(x), anchor="middle"))
    parts.append(_text(_WIDTH - _RIGHT, _TOP + _PLOT_HEIGHT + 34, plot.x_unit, anchor="end"))
    return parts, _TOP + _PLOT_HEIGHT + 44


def _histogram(plot: Plot) -> tuple[list[str], int]:
    """Columns side by side, one for each x, which are the upper ends of the classes; counts on a square-root scale."""
    most = max([v for values in plot.y.values() for v in values]) or 1
    slot = (_WIDTH - 60 - 20) / max(1, len(plot.x))
    width = max(1.0, slot / len(plot.y) - 1)
    parts = []
    for series, (name, values) in enumerate(plot.y.items()):
        for at, value in enumerate(values):
            tall = _PLOT_HEIGHT * math.sqrt(value / most)
            left = 60 + at * slot + series * (width + 1)
            top = _TOP + _PLOT_HEIGHT - tall
            label = f"{name}, up to {number(float(plot.x[at]))} {plot.x_unit}: {number(value)}"
            parts.append(_rect(left, top, width, tall, _COLOURS[series % len(_COLOURS)], label))
    for at, x in _thinned(list(enumerate(plot.x)), 14):
        parts.append(_text(60 + (at + 0.5) * slot, _TOP + _PLOT_HEIGHT + 16, number(float(x)), anchor="middle"))
    parts.append(_text(_WIDTH - 20, _TOP + _PLOT_HEIGHT + 34, f"up to, {plot.x_unit}", anchor="end"))
    parts.append(_text(8, _TOP + 8, number(most)))
    parts.append(_text(8, _TOP + 24, plot.y_unit))
    return parts, _TOP + _PLOT_HEIGHT + 44


def _legend(plot: Plot) -> list[str]:
    if len(plot.y) < 2:
        return []
    parts, x = [], 8.0
    for series, name in enumerate(plot.y):
        parts.append(_rect(x, 28, 10, 10, _COLOURS[series % len(_COLOURS)], name))
        parts.append(_text(x + 14, 37, name))
        x += 30 + 7 * len(name)
    return parts


def _grid(most: float, plot: Plot) -> list[str]:
    parts = []
    for quarter in range(5):
        value = most * quarter / 4
        y = _down(value, most)
        parts.append(_stroke([(_LEFT, y), (_WIDTH - _RIGHT, y)], _GRID))
        parts.append(_text(_LEFT - 8, y + 4, number(value), anchor="end"))
    parts.append(_text(8, _TOP + 4, plot.y_unit))
    if plot.mark is not None:
        y = _down(plot.mark, most)
        parts.append(_stroke([(_LEFT, y), (_WIDTH - _RIGHT, y)], _INK, dashed=True))
    return parts


def _scale(places: list[float]) -> Any:
    low, high = min(places), max(places)
    width = _WIDTH - _LEFT - _RIGHT
    return lambda place: _LEFT + (place - low) / ((high - low) or 1) * width


def _down(value: float, most: float) -> float:
    return _TOP + _PLOT_HEIGHT * (1 - value / most)


def _thinned(items: list[Any], count: int) -> list[Any]:
    return items[:: max(1, math.ceil(len(items) / count))]


def number(value: float) -> str:
    """A number with about four digits that count."""
    if value == round(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start", weight: str = "normal") -> str:
    style = f'font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}"'
    return f'<rect {place} fill="{colour}"><title>{escape(title)}</title></rect>'


def _stroke(points: Iterable[tuple[float, float]], colour: str, *, dashed: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dashes}/>'
