"""The picture people look at first: base beside policy, on prompts that were not picked to flatter.

Rows are taken evenly over the sorted gains of one judge, from the largest gain to the largest loss, as a line of the
picture states. A grid of favourites would prove nothing but patience.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smpo.errors import RunError
from smpo.evaluation.report.plots import point_sheet, scatter
from smpo.evaluation.results.evaluation import Evaluation
from smpo.evaluation.results.format import decimals, share

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["before_after", "chosen_prompts", "contact_sheet"]

SIDE = 192
"""Pixels of a picture's longer edge in the grid. Small pictures are enlarged without smoothing: their pixels show."""
GAP = 16
CAPTION = 270
CELL = 2 * (SIDE + GAP) + CAPTION
LEAST = 120
"""Height of a row at least, so that captions of wide pictures find room."""
INK, QUIET, RULE, PAPER = "#1a1a1a", "#6b6b6b", "#dddddd", "#ffffff"
BETTER, WORSE = "#17693a", "#a3262a"


def before_after(evaluation: Evaluation, *, title: str = "", reward: str | None = None, rows: int = 8) -> Image.Image:
    """Base against policy as one RGB picture: a grid for images, a scatter plot for points in the plane.

    `title`: usually the method; the win rates of every judge are put under it. `reward`: whose gains sort the
    rows; None takes the least doubtful judge. Raises `RunError` when no pictures were kept.
    """
    if not evaluation.kept_policy or not evaluation.kept_base:
        raise RunError("there are no pictures to lay out: none were kept", help="evaluate with `keep` above 0")
    first = next(iter(evaluation.kept_policy.values()))[0]
    if isinstance(first, np.ndarray):
        return scatter(evaluation, title=title, lines=_win_rates(evaluation))
    return _rows(evaluation, title, evaluation.judgement(reward).name, rows)


def contact_sheet(pictures: Sequence[Picture], captions: Sequence[str]) -> Image.Image:
    """Pictures of one model with their prompts, row by row: a preview while training. Points share one frame."""
    if not pictures:
        raise RunError("there are no pictures to lay out")
    if isinstance(pictures[0], np.ndarray):
        return point_sheet(pictures, captions)
    columns = min(4, len(pictures))
    deep, tall = math.ceil(len(pictures) / columns), SIDE + 2 * 16 + GAP
    canvas = Image.new("RGB", (GAP + columns * (SIDE + GAP), GAP + deep * tall), PAPER)
    draw = ImageDraw.Draw(canvas)
    for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = GAP + place % columns * (SIDE + GAP), GAP + place // columns * tall
        image = _fit(picture)
        canvas.paste(image, (x + (SIDE - image.width) // 2, y + (SIDE - image.height) // 2))
        for row, line in enumerate(textwrap.wrap(caption, 28, max_lines=2, placeholder=" …")):
            draw.text((x, y + SIDE + 2 + 16 * row), line, INK, _font(13))
    return canvas


def chosen_prompts(evaluation: Evaluation, reward: str | None = None, rows: int = 8) -> list[int]:
    """Numbers of the prompts to show, largest gain first, both extremes included; among those with kept pictures."""
    judge = evaluation.judgement(reward)
    gains = judge.policy[:, 0] - judge.base[:, 0]  # of the first image, which is the one that is shown
    kept = [p for p in evaluation.kept_policy if p in evaluation.kept_base and np.isfinite(gains[p])]
    ranked = sorted(kept, key=lambda p: (-gains[p], p))
    if len(ranked) <= rows:
        return ranked
    if rows < 2:
        return [ranked[len(ranked) // 2]]  # one row can't hold both extremes: the middle is the honest one
    return [ranked[round(k * (len(ranked) - 1) / (rows - 1))] for k in range(rows)]


def _rows(evaluation: Evaluation, title: str, reward: str, rows: int) -> Image.Image:
    numbers = chosen_prompts(evaluation, reward, rows)
    pairs = [(_fit(evaluation.kept_base[p][0]), _fit(evaluation.kept_policy[p][0])) for p in numbers]
    shown, everyone = len(evaluation.kept_policy), len(evaluation.prompts)
    note = f"chosen: evenly over the sorted gains by {reward}, largest gain first, "
    note += f"among {shown} of {everyone} prompts" if shown < everyone else f"of {everyone} prompts"

    # Two columns from five rows on: what fits a screen is looked at, what must be scrolled is not.
    columns = 2 if len(numbers) > 4 else 1
    deep = math.ceil(len(numbers) / columns)
    tall = max((max(base.height, policy.height, LEAST) for base, policy in pairs), default=LEAST)
    wrap = 90 * columns
    lines, notes = _wrapped(_win_rates(evaluation), wrap), textwrap.wrap(note, wrap)
    top = GAP + 32 + 20 * len(lines) + 18 * len(notes) + GAP + 22
    canvas = Image.new("RGB", (GAP + columns * (CELL + GAP), top + deep * (tall + GAP)), PAPER)
    draw = ImageDraw.Draw(canvas)

    head = textwrap.shorten(title or "Before and after", 60, placeholder="…")
    draw.text((GAP, GAP - 4), head, INK, _font(22))
    y = GAP + 32
    for line in lines:
        draw.text((GAP, y), line, INK, _font(14))
        y += 20
    for line in notes:
        draw.text((GAP, y), line, QUIET, _font(13))
        y += 18
    for column in range(columns):
        x = GAP + column * (CELL + GAP)
        for at, name in ((x, "base"), (x + SIDE + GAP, "policy"), (x + CELL - CAPTION, "prompt and scores")):
            draw.text((at, top - 20), name, QUIET, _font(13))
    for place, (number, pair) in enumerate(zip(numbers, pairs, strict=True)):
        x, y = GAP + place // deep * (CELL + GAP), top + place % deep * (tall + GAP)
        for left, picture in zip((x, x + SIDE + GAP), pair, strict=True):
            canvas.paste(picture, (left + (SIDE - picture.width) // 2, y + (tall - picture.height) // 2))
        _caption(draw, (x + CELL - CAPTION, y), tall, evaluation, number)
        draw.line((x, y + tall + GAP // 2, x + CELL, y + tall + GAP // 2), RULE)
    return canvas


def _caption(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], height: int, evaluation: Evaluation, number: int
) -> None:
    """The prompt, and under it the scores: a line a judge, as many as there is room for."""
    x, y = corner
    bottom = y + height
    judges = sorted(evaluation.judgements, key=lambda judge: judge.doubt)
    room = max(1, (height - 18 * (1 + min(len(judges), 4)) - 8) // 18)
    words = textwrap.wrap(evaluation.prompts[number].text, 34) or ["(empty prompt)"]
    if len(words) > room:
        words = [*words[: room - 1], words[room - 1][:31] + " …"]
    for line in words:
        draw.text((x, y), line, INK, _font(15))
        y += 18
    y += 8
    stops = (CAPTION - 116, CAPTION - 58, CAPTION)
    for stop, name in zip(stops, ("base", "policy", "gain"), strict=True):
        draw.text((x + stop, y), name, QUIET, _font(12), anchor="ra")
    for judge in judges:
        y += 18
        if y + 14 > bottom:
            break
        base, policy = float(judge.base[number, 0]), float(judge.policy[number, 0])
        gain = policy - base
        colour = BETTER if gain > 0 else WORSE if gain < 0 else QUIET
        name = judge.name if len(judge.name) <= 14 else judge.name[:13] + "…"
        draw.text((x, y), name + "*" * judge.made_labels, QUIET, _font(13))
        c = judge.comparison
        digits = decimals(c.gain, c.gain_low, c.gain_high)
        for stop, value, sign, ink in zip(
            stops, (base, policy, gain), ("", "", "+"), (QUIET, QUIET, colour), strict=True
        ):
            text = f"{value:{sign}.{digits}f}" if math.isfinite(value) else "–"
            draw.text((x + stop, y), text, ink, _font(13), anchor="ra")


def _win_rates(evaluation: Evaluation) -> list[str]:
    """A sentence a judge for the head of the picture."""
    lines = []
    for judge in evaluation.judgements:
        c = judge.comparison
        if c.win_rate is not None:
            wins = share(c.win_rate, c.win_rate_low, c.win_rate_high)
            lines.append(f"{judge.name}{'*' * judge.made_labels}: wins {wins} of {c.prompts:,} prompts")
    if any(judge.made_labels for judge in evaluation.judgements):
        lines.append("* made the training labels")
    return lines


def _fit(picture: Any) -> Image.Image:
    """The picture in a square of `SIDE`, enlarged or reduced with its proportions kept."""
    image: Image.Image = picture.convert("RGB")
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, width)]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
