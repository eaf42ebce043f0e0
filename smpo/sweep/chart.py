"""Small charts as SVG text: points, lines and bars. No plotting library, so a report is one file of some kilobytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Axis", "Chart", "bars"]

WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 28, 44
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568")


@dataclass
class Axis:
    """One direction: numbers, on a logarithmic scale if wanted, or words."""

    label: str
    log: bool = False
    words: Sequence[str] = ()
    marks: Sequence[float] = ()
    """Where its numbers are written; empty leaves that to the chart."""
    low: float = math.inf
    high: float = -math.inf

    def see(self, value: float) -> None:
        if math.isfinite(value):
            self.low, self.high = min(self.low, value), max(self.high, value)

    def place(self, value: float) -> float:
        """0 to 1 along the axis."""
        low, high, at = self._scaled(self.low), self._scaled(self.high), self._scaled(value)
        return 0.5 if high <= low else 0.04 + 0.92 * (at - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        if self.words:
            return [(float(index), word) for index, word in enumerate(self.words)]
        if self.marks:
            return [(one, f"{one:.4g}") for one in self.marks if self.low <= one <= self.high]
        if not self.low < self.high:
            return [(self.low, f"{self.low:.4g}")] if math.isfinite(self.low) else []
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            some = [m * 10.0**e for e in exponents for m in ((1,) if len(exponents) > 3 else (1, 2, 5))]
        else:
            step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
            step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (m * step) <= 6)
            first = math.ceil(self.low / step)
            some = [k * step for k in range(first, first + 10)]
        return [(value, f"{value:.4g}") for value in some if self.low <= value <= self.high]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log and value > 0 else value


@dataclass
class Chart:
    """One picture. Add points and lines, then `svg()`."""

    title: str
    x: Axis
    y: Axis
    _points: list[tuple[float, float, str, str, str]] = field(default_factory=list)
    _lines: list[tuple[list[tuple[float, float]], str, str]] = field(default_factory=list)

    def point(self, x: float, y: float, note: str = "", colour: str = COLOURS[0], shape: str = "o") -> None:
        """`note` is shown when the mouse rests on it; shape `o`, or `x` for what was given up."""
        if math.isfinite(x) and math.isfinite(y):
            self.x.see(x)
            self.y.see(y)
            self._points.append((x, y, note, colour, shape))

    def line(self, points: Sequence[tuple[float, float]], note: str = "", colour: str = COLOURS[0]) -> None:
        kept = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for x, y in kept:
            self.x.see(x)
            self.y.see(y)
        if kept:
            self._lines.append((kept, note, colour))

    def svg(self) -> str:
        if self.x.words:
            self.x.low, self.x.high = -0.5, len(self.x.words) - 0.5
        parts = [_head(self.title, WIDTH, HEIGHT)]
        for value, label in self.y.ticks():
            at = self._down(value)
            parts.append(
                f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{WIDTH - _RIGHT}" y2="{at:.1f}" stroke="#e2e8f0"/>'
            )
            parts.append(_text(_LEFT - 6, at + 4, label, anchor="end"))
        for value, label in self.x.ticks():
            at = self._across(value)
            parts.append(
                f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{HEIGHT - _BOTTOM}" stroke="#edf2f7"/>'
            )
            parts.append(_text(at, HEIGHT - _BOTTOM + 16, label[:18], anchor="middle"))
        for points, note, colour in self._lines:
            path = " ".join(f"{self._across(x):.1f},{self._down(y):.1f}" for x, y in points)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4" stroke-opacity="0.7">'
                f"<title>{escape(note)}</title></polyline>"
            )
        for x, y, note, colour, shape in self._points:
            parts.append(_mark(self._across(x), self._down(y), note, colour, shape))
        parts.append(_text((WIDTH + _LEFT) / 2, HEIGHT - 8, self.x.label, anchor="middle", colour="#4a5568"))
        parts.append(
            f'<text transform="translate(14 {HEIGHT / 2}) rotate(-90)" text-anchor="middle" '
            f'fill="#4a5568">{escape(self.y.label)}</text>'
        )
        return "\n".join([*parts, "</svg>"])

    def _across(self, value: float) -> float:
        return _LEFT + self.x.place(value) * (WIDTH - _LEFT - _RIGHT)

    def _down(self, value: float) -> float:
        return HEIGHT - _BOTTOM - self.y.place(value) * (HEIGHT - _TOP - _BOTTOM)


def bars(title: str, values: Mapping[str, float]) -> str:
    """Shares by name, the largest on top."""
    row, left = 24, 230
    height = _TOP + row * len(values) + 12
    parts = [_head(title, WIDTH, height)]
    most = max(values.values(), default=1.0) or 1.0
    for index, (name, value) in enumerate(sorted(values.items(), key=lambda item: -item[1])):
        top = _TOP + index * row
        wide = max(1.0, value / most * (WIDTH - left - 70))
        parts.append(_text(left - 8, top + 15, name[:36], anchor="end"))
        parts.append(f'<rect x="{left}" y="{top + 3}" width="{wide:.1f}" height="15" fill="{COLOURS[0]}"/>')
        parts.append(_text(left + wide + 6, top + 15, f"{value:.2f}"))
    return "\n".join([*parts, "</svg>"])


def _head(title: str, width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#2d3748">'
        f'<rect width="{width}" height="{height}" fill="white"/>'
        f'<text x="{_LEFT}" y="16" font-size="13" font-weight="600">{escape(title)}</text>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#2d3748") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _mark(x: float, y: float, note: str, colour: str, shape: str) -> str:
    title = f"<title>{escape(note)}</title>"
    if shape == "x":
        return (
            f'<path d="M{x - 3:.1f},{y - 3:.1f}l6,6m0,-6l-6,6" stroke="{colour}" stroke-width="1.4" fill="none">'
            f"{title}</path>"
        )
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}" fill-opacity="0.75">{title}</circle>'
