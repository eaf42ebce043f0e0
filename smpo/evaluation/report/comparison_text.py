"""A contest in words: tables for the console, documents and pages, and what a careful reader should know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from smpo.evaluation.report.model_card import harmless
from smpo.evaluation.results.comparison import ModelComparison
from smpo.evaluation.results.evaluation import decimals, percent

__all__ = ["about", "categories", "distances", "markdown", "remarks", "table", "wins_by_category"]


def table(contest: ModelComparison, judge: str) -> list[dict[str, str]]:
    """A row a model; the base's has no comparison."""
    rows = []
    for model in contest.models:
        scores = contest.scores[model][judge].mean(axis=1)
        known = scores[np.isfinite(scores)]
        cells = {"model": model}
        if model == contest.base:
            digits = (
                decimals(contest.result(contest.models[1], judge).comparison)
                if len(contest.models) > 1
                else 4
            )
        else:
            digits = decimals(contest.result(model, judge).comparison)
        cells["mean"] = f"{known.mean():.{digits}f}" if known.size else "–"
        cells["median"] = f"{np.median(known):.{digits}f}" if known.size else "–"
        if model == contest.base:
            cells |= {
                "gain [95 %]": "–",
                "win rate [95 %]": "–",
                "p (Holm)": "–",
                "prompts for ±2 %": "–",
            }
        else:
            one = contest.result(model, judge)
            c, p = one.comparison, one.p_holm
            cells["gain [95 %]"] = _span(c.gain, c.gain_low, c.gain_high, f"+.{digits}f")
            cells["win rate [95 %]"] = (
                "–"
                if c.win_rate is None or c.win_rate_low is None or c.win_rate_high is None
                else f"{percent(c.win_rate)} % [{percent(c.win_rate_low)}, {percent(c.win_rate_high)}]"
            )
            cells["p (Holm)"] = "–" if p is None else "<0.0001" if p < 1e-4 else f"{p:.2g}"
            cells["prompts for ±2 %"] = f"{c.prompts_needed(0.02):,}"
        rows.append(cells)
    return rows


def categories(contest: ModelComparison, judge: str) -> list[dict[str, str]]:
    """A row a model with its mean in each category, and the mean of these; empty without categories.

    HPDv2's tables give each style's mean, GenEval's overall figure is the mean of its tasks' means.
    """
    named = sorted({name for one in contest.results if one.judge == judge for name in one.categories})
    rows = []
    for model in contest.models if named else ():
        scores = contest.scores[model][judge].mean(axis=1)
        means = {
            name: float(np.nanmean(part))
            for name in named
            if np.isfinite(part := scores[[p.category == name for p in contest.prompts]]).any()
        }
        digits = decimals(contest.result(contest.models[1], judge).comparison)
        shown = {_title(name): f"{means[name]:.{digits}f}" if name in means else "–" for name in named}
        overall = f"{np.mean(list(means.values())):.{digits}f}" if means else "–"
        rows.append({"model": model, **shown, "mean of these": overall})
    return rows


def wins_by_category(contest: ModelComparison, judge: str) -> list[dict[str, str]]:
    """A row a model with its win rate over the base in each category; empty without categories."""
    rows = []
    for model in contest.models[1:]:
        found = contest.result(model, judge).categories
        shares = {
            _title(name): "–" if c.win_rate is None else f"{100 * c.win_rate:.0f} %"
            for name, c in sorted(found.items())
        }
        if shares:
            rows.append({"model": model, **shares})
    return rows


def _title(category: str) -> str:
    """A category may be called like one of our own columns."""
    return f"{category} (category)" if category in ("model", "mean of these") else category or "(none)"


def distances(contest: ModelComparison) -> list[dict[str, str]]:
    """A row a model: how far it has gone, beside what it gained by the judge that is believed first."""
    judge = contest.believed().name
    rows = []
    for model in contest.models[1:]:
        if model in contest.drift:
            c = contest.result(model, judge).comparison
            gain = "–" if c.gain is None else f"{c.gain:+.{decimals(c)}f}"
            rows.append({"model": model, f"gain, {judge}": gain, **contest.drift[model].cells()})
    return rows


def markdown(contest: ModelComparison) -> str:
    parts = [f"# {len(contest.models) - 1} models against {harmless(contest.base)}", harmless(about(contest))]
    for judge in contest.judges:
        mark = " (made the training labels)" if judge.made_labels else ""
        parts += [f"## {harmless(judge.name)}{mark}", _grid(table(contest, judge.name))]
        if rows := categories(contest, judge.name):
            parts += ["Means by category:", _grid(rows), "Wins by category:"]
            parts.append(_grid(wins_by_category(contest, judge.name)))
    if rows := distances(contest):
        parts += ["## distance from the base", _grid(rows)]
    parts += [harmless(f"{model}: {panel.verdict}") for model, panel in contest.panels.items()]
    parts += [harmless(line) for line in remarks(contest)]
    return "\n\n".join(parts) + "\n"


def about(contest: ModelComparison) -> str:
    s = contest.settings
    name = f" of {contest.prompt_set}" if contest.prompt_set else ""
    images = "one image" if s["images"] == 1 else f"{s['images']} images"
    return (
        f"{len(contest.prompts):,} {contest.role} prompts{name}, {images} each, guidance {s['guidance']:g}, "
        f"{s['steps']} steps, {_shapes(s.get('sizes') or ())}the same seeds for all. "
        "Intervals are 95 % over prompts of one training run a model."
    )


def _shapes(sizes: Sequence[Sequence[int]]) -> str:
    """Widths and heights, where they aren't the model's own."""
    return f"{', '.join(f'{width} × {height}' for width, height in sizes)} pixels, " if sizes else ""


def remarks(contest: ModelComparison) -> list[str]:
    """What a careful reader should know."""
    found = []
    if contest.judges and all(judge.made_labels for judge in contest.judges):
        found.append(
            "Every judge made training labels: the gains show what was optimised, not that it is better."
        )
    if contest.role in ("training", "tuning"):
        found.append(f"These prompts are for {contest.role}: report numbers from an untouched set.")
    for row in contest.agreement():
        if row["agree"] is not None:
            found.append(
                f"{row['judges'][0]} and {row['judges'][1]} prefer the same side on {percent(row['agree'])} % of "
                f"{row['prompts']:,} comparisons."
            )
    return found


def _grid(rows: Sequence[Mapping[str, str]]) -> str:
    """A markdown table; bars inside cells would end them."""
    head, *body = ([harmless(cell) for cell in line] for line in (rows[0], *(row.values() for row in rows)))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))


def _span(value: float | None, low: float | None, high: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:{form}}" + ("" if low is None or high is None else f" [{low:{form}}, {high:{form}}]")
