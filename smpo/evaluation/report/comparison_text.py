"""A comparison of models in words: tables for the console, documents and pages, and remarks for a careful reader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smpo.evaluation.report.markdown import markdown_table, plain_line
from smpo.evaluation.results.comparison import ModelComparison
from smpo.evaluation.results.format import NONE, decimals, interval, number, p_value, percent, share

__all__ = ["about", "categories", "distances", "markdown", "remarks", "table", "wins_by_category"]

_COLUMNS = ("gain [95 %]", "win rate [95 %]", "p (Holm)", "prompts for ±2 %")


def table(contest: ModelComparison, judge: str) -> list[dict[str, str]]:
    """A row a model; the base's has no comparison."""
    rows = []
    for model in contest.models:
        scores = contest.scores(model, judge).mean(axis=1)
        known = scores[np.isfinite(scores)]
        digits = _digits(contest, model, judge)
        cells = {
            "model": model,
            "mean": number(float(known.mean()), digits) if known.size else NONE,
            "median": number(float(np.median(known)), digits) if known.size else NONE,
        }
        if model == contest.base:
            cells |= dict.fromkeys(_COLUMNS, NONE)
        else:
            judgement = contest.judgement(model, judge)
            c = judgement.comparison
            figures = (
                interval(c.gain, c.gain_low, c.gain_high, digits),
                share(c.win_rate, c.win_rate_low, c.win_rate_high),
                p_value(judgement.p_holm),
                f"{c.prompts_needed(0.02):,}",
            )
            cells |= dict(zip(_COLUMNS, figures, strict=True))
        rows.append(cells)
    return rows


def categories(contest: ModelComparison, judge: str) -> list[dict[str, str]]:
    """A row a model with its mean in each category, and the mean of these; empty without categories.

    HPDv2's tables give each style's mean, GenEval's overall figure is the mean of its tasks' means.
    """
    names = list(contest.first.by_category[judge])
    digits = _digits(contest, contest.base, judge)
    rows = []
    for model in contest.models if names else ():
        scores = contest.scores(model, judge).mean(axis=1)
        means = {
            name: float(np.nanmean(part))
            for name in names
            if np.isfinite(part := scores[[p.category == name for p in contest.prompts]]).any()
        }
        cells = {_title(name): number(means.get(name), digits) for name in names}
        overall = number(float(np.mean(list(means.values()))) if means else None, digits)
        rows.append({"model": model, **cells, "mean of these": overall})
    return rows


def wins_by_category(contest: ModelComparison, judge: str) -> list[dict[str, str]]:
    """A row a model with its win rate over the base in each category; empty without categories."""
    rows = []
    for model, evaluation in contest.evaluations.items():
        shares = {
            _title(name): NONE if c.win_rate is None else f"{100 * c.win_rate:.0f} %"
            for name, c in evaluation.by_category[judge].items()
        }
        if shares:
            rows.append({"model": model, **shares})
    return rows


def _title(category: str) -> str:
    """A category may be called like a column of these tables."""
    return f"{category} (category)" if category in ("model", "mean of these") else category or "(none)"


def _digits(contest: ModelComparison, model: str, judge: str) -> int:
    """Of the model's gain; for the base, those of the first model's."""
    c = contest.judgement(contest.models[1] if model == contest.base else model, judge).comparison
    return decimals(c.gain, c.gain_low, c.gain_high)


def distances(contest: ModelComparison) -> list[dict[str, str]]:
    """A row a model: its distances from the base, beside its gain by the least doubtful judge."""
    judge = contest.believed().name
    rows = []
    for model, drift in contest.drift.items():
        gain = contest.judgement(model, judge).comparison.gain
        cell = NONE if gain is None else f"{gain:+.{_digits(contest, model, judge)}f}"
        rows.append({"model": model, f"gain, {judge}": cell, **drift.cells()})
    return rows


def markdown(contest: ModelComparison) -> str:
    count = len(contest.evaluations)
    parts = [f"# {count} models against {plain_line(contest.base)}", plain_line(about(contest))]
    for judge in contest.judges:
        mark = " (made the training labels)" if judge.made_labels else ""
        parts += [f"## {plain_line(judge.name)}{mark}", markdown_table(table(contest, judge.name))]
        if rows := categories(contest, judge.name):
            parts += ["Means by category:", markdown_table(rows), "Wins by category:"]
            parts.append(markdown_table(wins_by_category(contest, judge.name)))
    if rows := distances(contest):
        parts += ["## distance from the base", markdown_table(rows)]
    parts += [plain_line(f"{model}: {panel.verdict}") for model, panel in contest.panels.items()]
    parts += [plain_line(line) for line in remarks(contest)]
    return "\n\n".join(parts) + "\n"


def about(contest: ModelComparison) -> str:
    s = contest.settings
    name = f" of {contest.prompt_set}" if contest.prompt_set else ""
    images = "one image" if s.images == 1 else f"{s.images} images"
    return (
        f"{len(contest.prompts):,} {contest.role} prompts{name}, {images} each, guidance {s.guidance:g}, "
        f"{s.steps} steps, {_shapes(s.sizes)}the same seeds for all. "
        "Intervals are 95 % over prompts of one training run a model."
    )


def _shapes(sizes: Sequence[tuple[int, int]]) -> str:
    """Widths and heights, where they aren't the model's own."""
    return f"{', '.join(f'{width} × {height}' for height, width in sizes)} pixels, " if sizes else ""


def remarks(contest: ModelComparison) -> list[str]:
    """Limits of these figures, and how far judges agree."""
    found = []
    if all(judge.made_labels for judge in contest.judges):
        found.append("Every judge made training labels: the gains show what was optimised, not that it is better.")
    if contest.role in ("training", "tuning"):
        found.append(f"These prompts are for {contest.role}: report numbers from an untouched set.")
    found += [
        f"{row['judges'][0]} and {row['judges'][1]} prefer the same side on {percent(row['agree'])} % of "
        f"{row['prompts']:,} comparisons."
        for row in contest.agreement()
        if row["agree"] is not None
    ]
    return found
