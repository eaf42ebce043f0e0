"""A figure of an ablation: a panel a judge and figure, a line a variant, with the interval over prompts and seeds and a
dot a seed."""

from __future__ import annotations

import textwrap

from PIL import Image

from smpo.evaluation.report.scatter import rendered
from smpo.evaluation.results.ablation import AblationOutcome

__all__ = ["forest"]

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
