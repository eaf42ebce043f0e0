"""A figure of an ablation: a panel a judge, a line a variant, with the interval over prompts and seeds and a dot a
seed."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from smpo.evaluation.results.ablation import AblationOutcome
from smpo.evaluation.statistics.over_seeds import Estimate

__all__ = ["forest"]

INK, QUIET, RULE, PAPER = "#1a1a1a", "#6b6b6b", "#e2e2e2", "#ffffff"
ALL, OVER_PROMPTS, DOT = "#1f4e79", "#7fa8cf", "#d07a28"
LABEL, PANEL, ROW, GAP, TOP = 250, 300, 34, 36, 96
SCALE = 2
"""Drawn so much larger than laid out, for screens with fine pixels."""


def forest(outcome: AblationOutcome) -> Image.Image:
    """Gain on the base and win rate over it, by every judge."""
    panels: list[tuple[str, float, list[Estimate | None]]] = []
    for judge in outcome.judges:
        found = [next((v for v in row.verdicts if v.judge == judge), None) for row in outcome.rows]
        panels.append((f"{judge}: gain", 0.0, [v.against_base.gain if v else None for v in found]))
        panels.append((f"{judge}: win rate", 0.5, [v.against_base.win_rate if v else None for v in found]))
    width = LABEL + len(panels) * (PANEL + GAP) + GAP
    height = TOP + ROW * len(outcome.rows) + 60
    canvas = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    draw = ImageDraw.Draw(canvas)
    _text(draw, (GAP / 2, 12), outcome.name, INK, 18)
    _text(draw, (GAP / 2, 38), _legend(outcome), QUIET, 12)
    for place, row in enumerate(outcome.rows):
        middle = TOP + ROW * (place + 0.5)
        _text(draw, (GAP / 2, middle), row.name if len(row.name) < 32 else f"{row.name[:31]}…", INK, 13, "lm")
    for place, (title, zero, estimates) in enumerate(panels):
        _panel(draw, LABEL + place * (PANEL + GAP), title, zero, estimates)
    return canvas


def _panel(
    draw: ImageDraw.ImageDraw, left: float, title: str, zero: float, estimates: Sequence[Estimate | None]
) -> None:
    known = [estimate for estimate in estimates if estimate is not None]
    values = [zero, *(v for e in known for v in (e.low, e.high, *e.by_seed))]
    low, high = min(values), max(values)
    edge = 0.06 * (high - low or 1.0)
    low, high = low - edge, high + edge
    bottom = TOP + ROW * len(estimates)

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * PANEL

    _text(draw, (left, TOP - 24), title, INK, 13)
    for tick in _ticks(low, high):
        _line(draw, (at(tick), TOP, at(tick), bottom), RULE, 1)
        _text(draw, (at(tick), bottom + 8), f"{tick:g}", QUIET, 11, "ma")
    _line(draw, (at(zero), TOP, at(zero), bottom), QUIET, 1)
    for place, estimate in enumerate(estimates):
        if estimate is None:
            continue
        y = TOP + ROW * (place + 0.5)
        _line(draw, (at(estimate.low), y, at(estimate.high), y), ALL, 2)
        _line(draw, (at(estimate.prompts[0]), y, at(estimate.prompts[1]), y), OVER_PROMPTS, 6)
        for one in estimate.by_seed:
            _dot(draw, at(one), y + 9, 2, DOT)
        _dot(draw, at(estimate.value), y, 4, ALL)


def _legend(outcome: AblationOutcome) -> str:
    seeds = sorted({len(row.seeds) for row in outcome.rows})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"{outcome.prompts:,} {outcome.role} prompts, {count} seeds. Thin line: 95 % over prompts and seeds; "
        "thick: over prompts alone; small dots: seeds. Grey line: no difference from the base."
    )


def _ticks(low: float, high: float) -> list[float]:
    import math

    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(factor for factor in (5, 2, 1) if (high - low) / (factor * step) >= 3)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, fill: str, size: int, anchor: str = "la"
) -> None:
    font = ImageFont.load_default(size=size * SCALE)
    draw.text((at[0] * SCALE, at[1] * SCALE), text, fill, font, anchor=anchor)


def _line(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], fill: str, width: int) -> None:
    draw.line([SCALE * v for v in box], fill, width * SCALE)


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: str) -> None:
    r = radius * SCALE
    draw.ellipse((x * SCALE - r, y * SCALE - r, x * SCALE + r, y * SCALE + r), fill)
