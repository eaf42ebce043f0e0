"""Before and after in the plane world: every sample is a point; the base's are grey, the policy's have a
colour for each condition.

The left panel shows the base alone, the right one the policy over it: where the two agree, one cloud would
hide the other. Both panels share one scale, equal on both axes, so that a drift away from the data can't hide
either.
"""

from __future__ import annotations

import colorsys
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from smpo.evaluation.results.evaluation import Evaluation

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["point_sheet", "scatter"]

SIDE = 460
"""Pixels of a panel's edge."""
GAP = 20
LEGEND = 200
OVERSAMPLING = 2
"""Points are drawn larger and the picture reduced: PIL draws circles without smoothing."""
RADIUS = 2.2
DOTS = 4_000
"""At most so many points a model, evenly over the samples; more would only be a blot."""
INK, QUIET, RULE, PAPER, BASE = "#1a1a1a", "#6b6b6b", "#e4e4e4", "#ffffff", (150, 150, 150)

Points = NDArray[np.float64]
Colour = tuple[int, int, int]


def scatter(evaluation: Evaluation, *, title: str = "", lines: Sequence[str] = ()) -> Image.Image:
    """The kept points of base and policy as one RGB picture. A prompt's category, or else its text, is its
    condition."""
    conditions, base = _points(evaluation, evaluation.kept_base)
    policy_conditions, policy = _points(evaluation, evaluation.kept_policy)
    colours = _colours([*conditions, *policy_conditions])
    low, high = _frame(np.concatenate([base, policy]))
    lost = sum(int((~_inside(cloud, low, high)).sum()) for cloud in (base, policy))

    greys, fills = [BASE] * len(base), [colours[name] for name in policy_conditions]
    before = _panel([(base, greys, 150)], low, high)
    after = _panel([(base, greys, 70), (policy, fills, 190)], low, high)

    shown = [part for line in lines for part in textwrap.wrap(line, 110)]
    top = GAP + 30 + 20 * len(shown) + GAP + 14
    canvas = Image.new("RGB", (2 * (GAP + SIDE) + GAP + LEGEND + GAP, top + SIDE + 2 * GAP + 8), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text(
        (GAP, GAP - 6), textwrap.shorten(title or "Before and after", 90, placeholder="…"), INK, _font(22)
    )
    for place, line in enumerate(shown):
        draw.text((GAP, GAP + 26 + 20 * place), line, INK, _font(14))
    for x, name, panel in ((GAP, "base", before), (2 * GAP + SIDE, "policy, the base behind it", after)):
        draw.text((x, top - 20), name, QUIET, _font(13))
        canvas.paste(panel, (x, top))
        draw.rectangle((x, top, x + SIDE, top + SIDE), outline=QUIET)
        for tick in _ticks(low, high):
            at = (tick - low) / (high - low) * SIDE
            draw.text((x + at, top + SIDE + 6), f"{tick:g}", QUIET, _font(12), anchor="ma")
            draw.text((x + 4, top + SIDE - at - 2), f"{tick:g}", QUIET, _font(12), anchor="ls")
    _legend(draw, (3 * GAP + 2 * SIDE, top), colours, len(base), len(policy), lost)
    return canvas


def point_sheet(points: Sequence[Any], conditions: Sequence[str]) -> Image.Image:
    """One cloud of points, coloured by condition, without words: a preview while training."""
    cloud = np.stack([np.asarray(point, dtype=np.float64).reshape(-1)[:2] for point in points])
    colours = _colours(conditions)
    low, high = _frame(cloud)
    return _panel([(cloud, [colours[name] for name in conditions], 220)], low, high)


def _panel(clouds: Sequence[tuple[Points, Sequence[Colour], int]], low: float, high: float) -> Image.Image:
    """Clouds of `(points [K, 2], a colour a point, opacity)` over a grid, the last on top."""
    edge = SIDE * OVERSAMPLING
    panel = Image.new("RGB", (edge, edge), PAPER)
    draw = ImageDraw.Draw(panel, "RGBA")
    scale = edge / (high - low)
    for tick in _ticks(low, high):
        at = (tick - low) * scale
        draw.line((at, 0, at, edge), RULE, OVERSAMPLING)
        draw.line((0, edge - at, edge, edge - at), RULE, OVERSAMPLING)
    r = RADIUS * OVERSAMPLING
    for points, fills, opacity in clouds:
        for row in _thin(len(points)):
            if not np.isfinite(points[row]).all():
                continue
            x, y = (points[row, 0] - low) * scale, edge - (points[row, 1] - low) * scale
            draw.ellipse((x - r, y - r, x + r, y + r), (*fills[row], opacity))
    return panel.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _legend(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    colours: dict[str, Colour],
    base: int,
    policy: int,
    lost: int,
) -> None:
    x, y = corner
    draw.ellipse((x, y + 3, x + 10, y + 13), BASE)
    draw.text((x + 18, y), f"base ({base:,} points)", INK, _font(14))
    draw.text((x, y + 26), f"policy ({policy:,} points):", INK, _font(14))
    y += 50
    for name, colour in list(colours.items())[:24]:
        draw.ellipse((x, y + 3, x + 10, y + 13), colour)
        draw.text((x + 18, y), textwrap.shorten(name, 24, placeholder="…"), INK, _font(13))
        y += 20
    if len(colours) > 24:
        draw.text((x + 18, y), f"and {len(colours) - 24} more", QUIET, _font(13))
        y += 20
    if lost:
        for line in textwrap.wrap(f"{lost:,} points lie outside the frame", 26):
            draw.text((x, y + 10), line, QUIET, _font(13))
            y += 18


def _points(evaluation: Evaluation, kept: Mapping[int, list[Picture]]) -> tuple[list[str], Points]:
    """`(condition of every point, points [K, 2])`. Points in more dimensions are seen from above."""
    conditions, rows = [], []
    for number, pictures in kept.items():
        prompt = evaluation.prompts[number]
        for picture in pictures:
            conditions.append(prompt.category or prompt.text)
            rows.append(np.asarray(picture, dtype=np.float64).reshape(-1)[:2])
    return conditions, np.stack(rows)


def _frame(points: Points) -> tuple[float, float]:
    """One range for both axes. A few runaways may fall outside it (they are counted), or the rest would be a
    dot."""
    finite = points[np.isfinite(points).all(axis=1)]
    if not len(finite):
        return -1.0, 1.0
    inner = np.quantile(finite, (0.005, 0.995))
    span = max(float(inner[1] - inner[0]), 1e-6)
    low = max(float(finite.min()), float(inner[0]) - 0.5 * span)
    high = min(float(finite.max()), float(inner[1]) + 0.5 * span)
    edge = 0.06 * max(high - low, 1e-6)
    return low - edge, high + edge


def _inside(points: Points, low: float, high: float) -> NDArray[np.bool_]:
    return np.asarray(((points >= low) & (points <= high)).all(axis=1))


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, four to nine of them."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (5, 2, 1) if (high - low) / (factor * step) >= 4)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _thin(count: int) -> list[int]:
    return [k * count // min(count, DOTS) for k in range(min(count, DOTS))]


def _colours(conditions: Sequence[str]) -> dict[str, Colour]:
    """Hues evenly round the circle; every other one darker, so that neighbours can be told apart."""
    names = sorted(set(conditions))
    found: dict[str, Colour] = {}
    for place, name in enumerate(names):
        rgb = colorsys.hsv_to_rgb(place / len(names), 0.85, 0.82 if place % 2 else 0.62)
        found[name] = (round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2]))
    return found


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
