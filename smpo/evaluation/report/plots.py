"""Plots: base and policy in the plane (`scatter`), and the intervals of an ablation (`forest`).

A scatter plot's left panel shows the base alone, the right one the policy over it: where the two agree, one cloud would
hide the other. Both panels share one scale, equal on both axes, so that a drift away from the data can't hide either.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smpo.evaluation.results.ablation import AblationOutcome
from smpo.evaluation.results.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from smpo.kinds import Picture

__all__ = ["forest", "point_sheet", "rendered", "scatter"]

DOTS = 4_000
"""At most so many points a model, evenly over the samples."""
NAMES = 24
"""Conditions named in the legend."""
GREY = "0.6"

Points = NDArray[np.float64]


def scatter(evaluation: Evaluation, *, title: str = "", lines: Sequence[str] = ()) -> Image.Image:
    """The kept points of base and policy as one RGB picture. A prompt's category, or else its text, is its
    condition."""
    from matplotlib.figure import Figure

    _, base = _points(evaluation, evaluation.kept_base)
    conditions, policy = _points(evaluation, evaluation.kept_policy)
    low, high = _frame(np.concatenate([base, policy]))
    lost = sum(int((~((cloud >= low) & (cloud <= high)).all(axis=1)).sum()) for cloud in (base, policy))
    figure = Figure(figsize=(11.9, 6.2), dpi=100, layout="constrained")
    head = textwrap.shorten(title or "Before and after", 90, placeholder="…")
    figure.suptitle("\n".join([head, *lines]), x=0.01, ha="left", fontsize=12, parse_math=False)
    before, after = figure.subplots(1, 2, sharex=True, sharey=True)
    before.set_title("base", fontsize=10)
    after.set_title("policy, the base behind it", fontsize=10)
    _cloud(before, base, GREY, 0.6, f"base ({len(base):,} points)")
    _cloud(after, base, GREY, 0.3)
    for name, colour in _colours(conditions).items():
        _cloud(after, policy[[condition == name for condition in conditions]], colour, 0.9, name)
    for axes in (before, after):
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    handles, labels = (
        [*first, *second]
        for first, second in zip(before.get_legend_handles_labels(), after.get_legend_handles_labels(), strict=True)
    )
    note = f"policy: {len(policy):,} points" + (f"\n{lost:,} lie outside the frame" if lost else "")
    more = len(labels) - 1 - NAMES
    note += f"\n{more} more conditions" if more > 0 else ""
    short = [textwrap.shorten(label, 26, placeholder="…") or label[:26] for label in labels[: NAMES + 1]]
    legend = figure.legend(
        handles[: NAMES + 1], short, loc="outside right upper", title=note, alignment="left", frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return rendered(figure)


def point_sheet(points: Sequence[Any], conditions: Sequence[str]) -> Image.Image:
    """One cloud of points, coloured by condition, without words: a preview while training."""
    from matplotlib.figure import Figure

    cloud = np.stack([np.asarray(point, dtype=np.float64).reshape(-1)[:2] for point in points])
    low, high = _frame(cloud)
    figure = Figure(figsize=(4.6, 4.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, colour in _colours(conditions).items():
        _cloud(axes, cloud[[condition == name for condition in conditions]], colour, 0.85)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    return rendered(figure)


def rendered(figure: Figure) -> Image.Image:
    """The figure as an RGB picture, drawn by Agg: the same figure gives the same pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _cloud(axes: Axes, points: Points, colour: Any, opacity: float, label: str | None = None) -> None:
    count = len(points)
    some = points[[k * count // min(count, DOTS) for k in range(min(count, DOTS))]]
    some = some[np.isfinite(some).all(axis=1)]
    axes.scatter(some[:, 0], some[:, 1], s=16, color=[colour], alpha=opacity, linewidths=0, zorder=2, label=label)


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
    """One range for both axes. A few runaways may fall outside it (they are counted), or the rest would be a dot."""
    finite = points[np.isfinite(points).all(axis=1)]
    if not len(finite):
        return -1.0, 1.0
    inner = np.quantile(finite, (0.005, 0.995))
    span = max(float(inner[1] - inner[0]), 1e-6)
    low = max(float(finite.min()), float(inner[0]) - 0.5 * span)
    high = min(float(finite.max()), float(inner[1]) + 0.5 * span)
    edge = 0.06 * max(high - low, 1e-6)
    return low - edge, high + edge


def _colours(conditions: Sequence[str]) -> dict[str, Any]:
    """Hues evenly round the circle; every other one darker, so that neighbours differ."""
    from matplotlib.colors import hsv_to_rgb

    names = sorted(set(conditions))
    return {name: hsv_to_rgb((k / len(names), 0.85, 0.82 if k % 2 else 0.62)) for k, name in enumerate(names)}


ALL, OVER_PROMPTS, DOT, INK = "#1f4e79", "#7fa8cf", "#d07a28", "#6b6b6b"


def forest(outcome: AblationOutcome) -> Image.Image:
    """Gain on the base and win rate over it, by every judge."""
    from matplotlib.figure import Figure

    panels = [
        (judge, figure, no_difference)
        for judge in outcome.judges
        for figure, no_difference in (("gain", 0.0), ("win rate", 0.5))
    ]
    size = (2.5 + 3.2 * len(panels), 1.7 + 0.36 * len(outcome.rows))
    picture = Figure(figsize=size, dpi=150, layout="constrained")
    seeds = sorted({len(row.seeds) for row in outcome.rows})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    note = (
        f"{outcome.prompts:,} {outcome.role} prompts, {count} seeds. Thin line: 95 % over prompts and seeds; "
        "thick: over prompts alone; small dots: seeds. Grey line: no difference from the base."
    )
    head = "\n".join([outcome.name, *textwrap.wrap(note, round(13 * size[0]))])
    picture.suptitle(head, x=0.01, ha="left", fontsize=10, parse_math=False)
    axes_of = picture.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (judge, figure, no_difference) in zip(axes_of, panels, strict=True):
        axes.set_title(f"{judge}: {figure}", fontsize=10, parse_math=False)
        axes.axvline(no_difference, color=INK, linewidth=1)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        axes.locator_params(axis="x", nbins=5)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        for y, row in enumerate(outcome.rows):
            if (verdict := row.verdict(judge)) is None:
                continue
            contrast = verdict.against_base
            estimate = contrast.gain if figure == "gain" else contrast.win_rate
            axes.plot(estimate.prompts, (y, y), color=OVER_PROMPTS, linewidth=5, solid_capstyle="butt")
            axes.plot((estimate.low, estimate.high), (y, y), color=ALL, linewidth=1.5)
            axes.plot(estimate.value, y, "o", color=ALL, markersize=6)
            axes.plot(estimate.by_seed, [y + 0.3] * len(estimate.by_seed), "o", color=DOT, markersize=3)
    names = [textwrap.shorten(row.name, 32, placeholder="…") or row.name[:32] for row in outcome.rows]
    axes_of[0].set_yticks(range(len(names)), names, parse_math=False)
    axes_of[0].set_ylim(len(names) - 0.4, -0.6)
    return rendered(picture)
