"""An ablation's outcome in words: tables for the console and documents, findings, CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from smpo.evaluation.report.markdown import markdown_table, plain_line
from smpo.evaluation.results.ablation import AblationOutcome
from smpo.evaluation.results.format import NONE, decimals, interval, number, p_value, share
from smpo.evaluation.statistics.over_seeds import Contrast, Estimate

__all__ = ["as_csv", "costs", "distances", "findings", "markdown", "table"]

_COLUMNS = (
    "mean", "median", "gain on the base", "wins over base, %", "p", "gain on that variant", "wins over it, %", "p ",
    "spread",
)  # fmt: skip


def table(outcome: AblationOutcome, judge: str) -> list[dict[str, str]]:
    """A row a variant, by one judge; the same keys in each."""
    lines = []
    for row in outcome.rows:
        seeds = f"{len(row.seeds)}" + (f" ({len(row.failures)} failed)" if row.failures else "")
        cells = {"variant": row.name, "on": row.against or NONE, "seeds": seeds} | dict.fromkeys(_COLUMNS, NONE)
        if (verdict := row.verdict(judge)) is not None:
            gain = verdict.against_base.gain
            digits = _digits(gain)
            figures = (
                number(verdict.mean, digits),
                number(verdict.median, digits),
                *_against(verdict.against_base, digits),
                p_value(verdict.p_base_holm),
                *_against(verdict.against_variant, digits),
                p_value(verdict.p_variant_holm),
                number(gain.between, digits + 1),
            )
            cells |= dict(zip(_COLUMNS, figures, strict=True))
        lines.append(cells)
    return lines


def _against(found: Contrast | None, digits: int) -> tuple[str, str]:
    """Gain and win rate."""
    if found is None:
        return NONE, NONE
    gain, rate = found.gain, found.win_rate
    return interval(gain.value, gain.low, gain.high, digits), share(rate.value, rate.low, rate.high, sign="")


def costs(outcome: AblationOutcome) -> list[dict[str, str]]:
    """The cost of each variant, and what it bought by the least doubtful judge."""
    lines, believed = [], outcome.believed()
    for row in outcome.rows:
        if row.cost is None:
            continue
        verdict = row.verdict(believed)
        worth = verdict.win_points_per_million_passes if verdict else None
        lines.append(
            {
                "variant": row.name,
                "training": f"{row.cost.seconds:.1f} s",
                "passes": f"{row.cost.passes:,.0f}",
                "pairs": f"{row.cost.pairs:,.0f}",
                "TFLOP": NONE if row.cost.tflop is None else f"{row.cost.tflop:.3g}",
                "memory": f"{row.cost.peak_bytes / 2**30:.2f} GiB",
                "energy": NONE if row.cost.joules is None else f"{row.cost.joules / 1e3:.3g} kJ",
                "win points per million passes": NONE if worth is None else f"{worth:.3g}",
            }
        )
    return lines


def distances(outcome: AblationOutcome) -> list[dict[str, str]]:
    """Distances of each variant's policies, means over seeds, beside their gain by the least doubtful judge."""
    rows, believed = [], outcome.believed()
    for row in outcome.rows:
        if not row.drift:
            continue
        cells = {"variant": row.name}
        if (verdict := row.verdict(believed)) is not None:
            gain = verdict.against_base.gain
            cells[f"gain, {verdict.judge}"] = f"{gain.value:+.{_digits(gain)}f}"
        for distance in row.drift:
            spread = "" if distance.between is None else f" ± {distance.between:.1g}"
            cells[distance.name] = f"{distance.mean:.3g}{spread}"
        rows.append(cells)
    return rows


def findings(outcome: AblationOutcome) -> list[str]:
    """In words: which steps are resolved, and which aren't. Never more than the intervals say."""
    lines = []
    for judge in outcome.judges:
        steps: dict[str, list[str]] = {"better": [], "worse": [], "not resolved": []}
        for row in outcome.rows:
            verdict = row.verdict(judge)
            if verdict is None or verdict.against_variant is None:
                continue
            gain, p = verdict.against_variant.gain, verdict.p_variant_holm
            sure = p is not None and p < 0.05 and gain.excludes(0.0)
            word = "not resolved" if not sure else "better" if gain.value > 0 else "worse"
            steps[word].append(f"{row.name} over {row.against}")
        if parts := [f"{word}: {'; '.join(names)}" for word, names in steps.items() if names]:
            lines.append(f"{judge}: {'. '.join(parts)}.")
    least = min((len(row.seeds) for row in outcome.rows), default=5)
    if least < 2:
        lines.append("Some variant has fewer than two seeds: its intervals say nothing about another training run.")
    elif least < 5:
        lines.append(f"With {least} seeds the spread between seeds is itself known only roughly.")
    return lines


def markdown(outcome: AblationOutcome) -> str:
    """Tables and findings as a document."""
    parts = [
        f"# {plain_line(outcome.name)}",
        f"{outcome.prompts:,} {outcome.role} prompts. Intervals are 95 % over prompts and seeds together; `p` is "
        "corrected by Holm over variants and judges; `spread` is the standard deviation of the gain between seeds.",
    ]
    for judge in outcome.judges:
        parts += [f"## {plain_line(judge)}", markdown_table(table(outcome, judge))]
    if far := distances(outcome):
        note = "Means over seeds; ± is the standard deviation between them."
        parts += ["## distance from the base", note, markdown_table(far)]
    parts += ["## cost", markdown_table(costs(outcome)), *findings(outcome)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_csv(outcome: AblationOutcome) -> str:
    """One line for each variant and judge, all figures in full."""
    lines: list[dict[str, Any]] = []
    for row in outcome.rows:
        for verdict in row.verdicts:
            base, other = verdict.against_base, verdict.against_variant
            lines.append({
                "variant": row.name, "against": row.against, "judge": verdict.judge, "seeds": len(row.seeds),
                "prompts": base.prompts, "mean": verdict.mean, "median": verdict.median,
                "mean_base": verdict.mean_base, "median_base": verdict.median_base,
                **_flat("gain", base.gain), **_flat("win_rate", base.win_rate), "p_holm": verdict.p_base_holm,
                **_flat("gain_on_variant", other.gain if other else None),
                **_flat("win_rate_over_variant", other.win_rate if other else None),
                "p_variant_holm": verdict.p_variant_holm,
                **(vars(row.cost) if row.cost else {}),
                "win_points_per_million_passes": verdict.win_points_per_million_passes,
            })  # fmt: skip
    buffer = io.StringIO()
    if lines:
        writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    return buffer.getvalue()


def _flat(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    parts = {"": "value", "_low": "low", "_high": "high", "_between_seeds": "between"}
    return {f"{name}{end}": getattr(estimate, field, None) for end, field in parts.items()}


def _digits(estimate: Estimate) -> int:
    return decimals(estimate.value, estimate.low, estimate.high)
