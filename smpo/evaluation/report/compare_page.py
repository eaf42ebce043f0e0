"""One HTML file in which models can be looked at side by side, opened from a disk, with nothing fetched from anywhere.

Pictures are data URIs, charts are SVG, and the page's own policy forbids it to reach for more. Everything that comes
from outside (prompts, names, settings) reaches the page as JSON or escaped, never as markup.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from smpo.errors import RunError
from smpo.evaluation.report.comparison_text import (
    about,
    categories,
    distances,
    remarks,
    table,
    wins_by_category,
)  # fmt: skip
from smpo.evaluation.results.comparison import ModelComparison

if TYPE_CHECKING:
    from smpo.evaluation.sampling.slots import Slot
    from smpo.kinds import Picture

__all__ = ["Background", "Shown", "compare_page"]

COLOURS = ("#1f4e79", "#d07a28", "#17693a", "#a3262a", "#6a4c93", "#5f6b6d", "#b08900", "#2a9d8f")
LOSSLESS = 256
"""Pictures up to this side are embedded as they are; larger ones as JPEG, a page of them would be too heavy."""
POINTS = 200
"""Points of a learning curve."""


@dataclass(frozen=True)
class Shown:
    """A prompt on the page: its slot, and a picture of every model in the comparison's order."""

    slot: Slot
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Background:
    """Of models that are runs: curves by model and metric, settings by model."""

    curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def compare_page(
    contest: ModelComparison, shown: Sequence[Shown], background: Background | None = None, *, title: str = ""
) -> str:
    """The page's text. Raises `RunError` without anything to show."""
    if not shown:
        raise RunError("there are no pictures to compare")
    background = background or Background()
    title = title or f"{', '.join(contest.models[1:])} against {contest.base}"
    data = _data(contest, shown)
    parts = {
        "TITLE": html.escape(title),
        "HEAD": "".join(f'<p class="quiet">{html.escape(line)}</p>' for line in _head(contest, shown)),
        "SCORES": _scores(contest),
        "CURVES": _curves(background.curves),
        "SPECS": _specs(background.settings),
        # In a script element only `</` and `<!--` could end the data; without `<` neither can occur.
        "DATA": json.dumps(data, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c"),
    }
    page = files(__package__).joinpath("compare.html").read_text(encoding="utf-8")
    # In one pass: what is put in may hold another placeholder.
    return re.sub(f"%({'|'.join(parts)})%", lambda found: parts[found[1]], page)


def _data(contest: ModelComparison, shown: Sequence[Shown]) -> dict[str, Any]:
    uris: dict[str, int] = {}
    prompts = []
    small = True
    votable = not isinstance(shown[0].pictures[0], np.ndarray)
    for entry in shown:
        places = []
        for picture in entry.pictures:
            uri, side = _uri(picture)
            small = small and side <= 128
            places.append(uris.setdefault(uri, len(uris)))
        slot = entry.slot
        prompt, place = contest.prompts[slot.prompt], (slot.prompt, slot.image)
        prompts.append(
            {
                "text": prompt.text,
                "category": prompt.category,
                "seed": str(slot.seed),
                "pictures": places,
                "scores": [
                    [_number(contest.scores(model, judge.name)[place]) for model in contest.models]
                    for judge in contest.judges
                ],
            }
        )
    content = json.dumps([contest.models, prompts], sort_keys=True)
    return {
        "id": hashlib.sha256((content + "".join(uris)).encode()).hexdigest()[:12],
        "models": list(contest.models),
        "judges": [{"name": judge.name, "made_labels": judge.made_labels} for judge in contest.judges],
        "believed": contest.believed().name,
        "prompts": prompts,
        "pictures": list(uris),
        "small": small and votable,
        "votable": votable,
    }


def _uri(picture: Picture) -> tuple[str, int]:
    """`(data URI, longer side)`."""
    image = _point(picture) if isinstance(picture, np.ndarray) else picture.convert("RGB")
    side, buffer = max(image.size), io.BytesIO()
    kind, how = ("png", {"optimize": True}) if side <= LOSSLESS else ("jpeg", {"quality": 92})
    image.save(buffer, format=kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", side


def _point(point: np.ndarray[Any, Any]) -> Image.Image:
    """A point of the plane, with the axes and the unit circle for orientation."""
    side, scale = 200, 200 / 5.0
    image = Image.new("RGB", (side, side), "#ffffff")
    draw = ImageDraw.Draw(image)
    draw.line((0, side / 2, side, side / 2), "#dddddd")
    draw.line((side / 2, 0, side / 2, side), "#dddddd")
    draw.ellipse((side / 2 - scale, side / 2 - scale, side / 2 + scale, side / 2 + scale), outline="#cccccc")
    x, y = (float(v) if math.isfinite(float(v)) else 0.0 for v in np.asarray(point).reshape(-1)[:2])
    left, top = side / 2 + scale * x, side / 2 - scale * y
    draw.ellipse((left - 4, top - 4, left + 4, top + 4), "#1f4e79")
    return image


def _head(contest: ModelComparison, shown: Sequence[Shown]) -> list[str]:
    few = ""
    if len(shown) < len(contest.prompts) * contest.settings.images:
        few = f"{len(shown)} pictures a model are shown, evenly over the prompts; scores and intervals are over all. "
    return [about(contest), few + " ".join(remarks(contest))]


def _scores(contest: ModelComparison) -> str:
    parts = []
    for judge in contest.judges:
        mark = " (made the training labels)" if judge.made_labels else ""
        parts.append(f"<h2>{html.escape(judge.name + mark)}</h2>" + _table(table(contest, judge.name)))
        for title, rows in (
            ("means by category", categories(contest, judge.name)),
            ("wins by category", wins_by_category(contest, judge.name)),
        ):
            if rows:
                named = ({title if key == "model" else key: cell for key, cell in row.items()} for row in rows)
                parts.append(_table(list(named)))
    if far := distances(contest):
        parts.append("<h2>distance from the base</h2>" + _table(far))
    parts += [
        f"<p><b>{html.escape(model)}</b>: {html.escape(panel.verdict)}</p>" for model, panel in contest.panels.items()
    ]
    return "".join(parts)


def _curves(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> str:
    metrics = sorted({name for by_name in curves.values() for name in by_name})
    if not metrics:
        return '<p class="quiet">None of these models is a run with a log.</p>'
    key = "".join(
        f'<span><i class="key" style="background:{_colour(i)}"></i>{html.escape(model)}</span> '
        for i, model in enumerate(curves)
    )
    charts = [
        _chart(name, [(i, by_name[name]) for i, by_name in enumerate(curves.values()) if name in by_name])
        for name in metrics
    ]
    return f"<p>{key}</p><div class='charts'>{''.join(charts)}</div>"


def _chart(name: str, lines: Sequence[tuple[int, Sequence[tuple[int, float]]]]) -> str:
    """One metric over updates, a line a model."""
    width, height, left, bottom = 380, 200, 62, 24
    known = [(i, [(s, v) for s, v in points if math.isfinite(v)]) for i, points in lines]
    steps, values = (
        [s for _, points in known for s, _ in points],
        [v for _, points in known for _, v in points],
    )
    if not steps:
        return ""
    low, high, first, last = min(values), max(values), min(steps), max(steps)
    pad = 0.05 * (high - low or abs(high) or 1.0)
    low, high = low - pad, high + pad

    def at(step: float, value: float) -> str:
        x = left + (step - first) / (last - first or 1) * (width - left - 8)
        return f"{x:.1f},{(high - value) / (high - low) * (height - bottom - 8) + 8:.1f}"

    drawn = [
        f'<polyline fill="none" stroke="{_colour(i)}" stroke-width="1.5" '
        f'points="{" ".join(at(s, v) for s, v in _thin(points))}"/>'
        for i, points in known
    ]
    marks = [(left - 6, 14, "end", f"{high:.3g}"), (left - 6, height - bottom, "end", f"{low:.3g}")]
    marks += [(left, height - 6, "start", f"{first}"), (width - 8, height - 6, "end", f"{last}")]
    drawn += [f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in marks]
    return (
        f'<figure><figcaption>{html.escape(name)}</figcaption><svg viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{html.escape(name)}" font-size="11" fill="#63676d">'
        f'<rect x="{left}" y="8" width="{width - left - 8}" height="{height - bottom - 8}" fill="#f5f6f8"/>'
        f"{''.join(drawn)}</svg></figure>"
    )


def _specs(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """The settings in which runs differ, and the number of those that are the same; of one run all settings."""
    if not settings:
        return '<p class="quiet">None of these models is a run with a spec.</p>'
    paths = sorted({path for leaves in settings.values() for path in leaves})
    rows = [
        {"setting": path, **{model: str(leaves.get(path, "–")) for model, leaves in settings.items()}}
        for path in paths
        if len(settings) == 1 or len({repr(leaves.get(path, "–")) for leaves in settings.values()}) > 1
    ]
    if len(settings) == 1:
        return _table(rows, "left")
    same = f'<p class="quiet">{len(paths) - len(rows)} other settings are the same.</p>'
    return (_table(rows, "left") if rows else "<p>No setting differs.</p>") + same


def _table(rows: Sequence[Mapping[str, str]], kind: str = "") -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows)
    return f'<table class="{kind}"><tr>{head}</tr>{body}</table>'


def _thin(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most `POINTS` points; each stands for the mean of its stretch, so noise isn't picked for its looks."""
    if len(points) <= POINTS:
        return list(points)
    parts = np.array_split(np.array(points, dtype=np.float64), POINTS)
    return [(int(part[-1, 0]), float(part[:, 1].mean())) for part in parts]


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None
