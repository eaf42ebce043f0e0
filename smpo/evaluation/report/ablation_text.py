"""An ablation's outcome in words: tables for the console and documents, findings, CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from smpo.evaluation.report.model_card import harmless
from smpo.evaluation.results.ablation import AblationOutcome
from smpo.evaluation.statistics.over_seeds import Estimate

__all__ = ["as_csv", "costs", "distances", "findings", "markdown", "table"]

_COLUMNS = (
    "mean", "median", "gain on the base", "wins over base, %", "p", "gain on that variant", "wins over it, %", "p ",
    "spread",
)  # fmt: skip


def table(outcome: AblationOutcome, judge: str) -> list[dict[str, str]]:
    """A row a variant, by one judge; the same keys in each."""
    lines = []
    for row in outcome.rows:
        found = next((verdict for verdict in row.verdicts if verdict.judge == judge), None)
        seeds = f"{len(row.seeds)}" + (f" ({len(row.failures)} failed)" if row.failures else "")
        cells = {"variant": row.name, "on": row.against or "–", "seeds": seeds}
        empty = "–"
        if found is None:
            lines.append(cells | dict.fromkeys(_COLUMNS, empty))
            continue
        digits = _digits(found.against_base.gain)
        other = found.against_variant
        lines.append(
            cells
            | {
                "mean": f"{found.mean:.{digits}f}",
                "median": f"{found.median:.{digits}f}",
                "gain on the base": _gain(found.against_base.gain, digits),
                "wins over base, %": _share(found.against_base.win_rate),
                "p": _p(found.p_base),
                "gain on that variant": _gain(other.gain, digits) if other else empty,
                "wins over it, %": _share(other.win_rate) if other else empty,
                "p ": _p(found.p_variant),
                "spread": "–" if found.against_base.gain.between is None
                else f"{found.against_base.gain.between:.{digits + 1}f}",
            }
        )  # fmt: skip
    return lines


def costs(outcome: AblationOutcome) -> list[dict[str, str]]:
    """What each variant took, and what it bought by the judge that is believed."""
    lines, believed = [], outcome.believed()
    for row in outcome.rows:
        if row.cost is None:
            continue
        worth = next((v.points_per_compute for v in row.verdicts if v.judge == believed), None)
        lines.append(
            {
                "variant": row.name,
                "training": f"{row.cost.seconds:.1f} s",
                "passes": f"{row.cost.passes:,.0f}",
                "pairs": f"{row.cost.pairs:,.0f}",
                "TFLOP": "–" if row.cost.tflop is None else f"{row.cost.tflop:.3g}",
                "memory": f"{row.cost.peak_bytes / 2**30:.2f} GiB",
                "energy": "–" if row.cost.joules is None else f"{row.cost.joules / 1e3:.3g} kJ",
                "win points per million passes": "–" if worth is None else f"{worth:.3g}",
            }
        )
    return lines


def distances(outcome: AblationOutcome) -> list[dict[str, str]]:
    """How far each variant's policies have gone, means over seeds, beside their gain by the judge that is believed."""
    rows, believed = [], outcome.believed()
    for row in outcome.rows:
        if not row.drift:
            continue
        judge = next((verdict for verdict in row.verdicts if verdict.judge == believed), None)
        cells = {"variant": row.name}
        if judge is not None:
            gain = judge.against_base.gain
            cells[f"gain, {judge.judge}"] = f"{gain.value:+.{_digits(gain)}f}"
        for far in row.drift:
            spread = "" if far.between is None else f" ± {far.between:.1g}"
            cells[far.name] = f"{far.mean:.3g}{spread}"
        rows.append(cells)
    return rows


def findings(outcome: AblationOutcome) -> list[str]:
    """In words: which steps are resolved, and which aren't. Never more than the intervals say."""
    said = []
    for judge in outcome.judges:
        up, down, open_ = list[str](), list[str](), list[str]()
        for row in outcome.rows:
            for verdict in row.verdicts:
                if verdict.judge != judge or verdict.against_variant is None:
                    continue
                step, gain = f"{row.name} over {row.against}", verdict.against_variant.gain
                sure = verdict.p_variant is not None and verdict.p_variant < 0.05 and gain.excludes(0.0)
                (open_ if not sure else up if gain.value > 0 else down).append(step)
        parts = [
            f"{word}: {'; '.join(steps)}"
            for word, steps in (("better", up), ("worse", down), ("not resolved", open_))
            if steps
        ]
        if parts:
            said.append(f"{judge}: {'. '.join(parts)}.")
    seeds = {len(row.seeds) for row in outcome.rows}
    if seeds and min(seeds) < 2:
        said.append(
            "Some variant has fewer than two seeds: its intervals say nothing about another training run."
        )
    elif seeds and min(seeds) < 5:
        said.append(f"With {min(seeds)} seeds the spread between seeds is itself known only roughly.")
    return said


def markdown(outcome: AblationOutcome) -> str:
    """Tables and findings as a document."""
    parts = [
        f"# {harmless(outcome.name)}",
        f"{outcome.prompts:,} {outcome.role} prompts. Intervals are 95 % over prompts and seeds together; `p` is "
        "corrected by Holm over variants and judges; `spread` is the standard deviation of the gain between seeds.",
    ]
    for judge in outcome.judges:
        parts += [f"## {harmless(judge)}", _grid(table(outcome, judge))]
    if far := distances(outcome):
        said = "Means over seeds; ± is the standard deviation between them."
        parts += ["## distance from the base", said, _grid(far)]
    parts += ["## cost", _grid(costs(outcome)), *findings(outcome)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_csv(outcome: AblationOutcome) -> str:
    """One line for each variant and judge, all figures in full."""
    buffer = io.StringIO()
    writer = None
    for row in outcome.rows:
        for verdict in row.verdicts:
            base, other = verdict.against_base, verdict.against_variant
            line: dict[str, Any] = {
                "variant": row.name, "against": row.against, "judge": verdict.judge, "seeds": len(row.seeds),
                "prompts": base.prompts, "mean": verdict.mean, "median": verdict.median,
                "mean_base": verdict.mean_base, "median_base": verdict.median_base,
                **_flat("gain", base.gain), **_flat("win_rate", base.win_rate), "p_holm": verdict.p_base,
                **_flat("gain_on_variant", other.gain if other else None),
                **_flat("win_rate_over_variant", other.win_rate if other else None),
                "p_variant_holm": verdict.p_variant,
                **(row.cost.to_dict() if row.cost else {}),
                "win_points_per_million_passes": verdict.points_per_compute,
            }  # fmt: skip
            if writer is None:
                writer = csv.DictWriter(buffer, list(line), lineterminator="\n", restval="")
                writer.writeheader()
            writer.writerow({name: line.get(name) for name in writer.fieldnames})
    return buffer.getvalue()


def _flat(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    return {
        name: estimate.value if estimate else None,
        f"{name}_low": estimate.low if estimate else None,
        f"{name}_high": estimate.high if estimate else None,
        f"{name}_between_seeds": estimate.between if estimate else None,
    }


def _digits(estimate: Estimate) -> int:
    width = (estimate.high - estimate.low) / 2 or abs(estimate.value) or 1.0
    return max(0, min(8, 1 - math.floor(math.log10(width))))


def _gain(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:+.{digits}f} [{estimate.low:+.{digits}f}, {estimate.high:+.{digits}f}]"


def _share(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _p(value: float | None) -> str:
    return "–" if value is None else "<0.0001" if value < 1e-4 else f"{value:.2g}"


def _grid(rows: Sequence[Mapping[str, str]]) -> str:
    """A markdown table; bars inside cells would end them."""
    if not rows:
        return ""
    head, *body = ([harmless(cell) for cell in line] for line in (rows[0], *(row.values() for row in rows)))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))
