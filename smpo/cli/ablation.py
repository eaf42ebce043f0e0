"""Ablations in the terminal: the variants before they run, and the tables of their results."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.markup import escape

from smpo.app.ablation.cost import ablation_cost
from smpo.app.ablation.spec import Ablation, read_ablation
from smpo.cli.output import find_spec, make_table, out, records_table, relative
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.spec.leaves import diff

if TYPE_CHECKING:
    from smpo.app.ablation.ablation import AblationResult

__all__ = ["ablation_of", "show_outcome", "show_variants", "variants_data"]


def ablation_of(
    spec: str,
    base: Resolved[ExperimentSpec],
    sets: Sequence[str] | None,
    *,
    seeds: int | None = None,
    roots: Sequence[Path] | None = None,
) -> Ablation | None:
    """The spec's ablation, if it has one. Raises `SpecProblems`."""
    if base.ablation_entry is None:
        return None
    return read_ablation(find_spec(spec), base, sets=sets or (), seeds=seeds, extra_roots=roots or ())


def show_variants(ablation: Ablation) -> None:
    """A line for each variant: its changes and its passes; then the number of runs and their cost."""
    console, by_name = out(), {variant.name: variant for variant in ablation.variants}
    console.print()
    table = make_table("variant", "spec", "changes", "passes a run", right=["passes a run"])
    costs = ablation_cost(ablation)
    for variant, passes in zip(ablation.variants, costs.passes, strict=True):
        before = by_name[variant.against].resolved if variant.against else ablation.base
        changes = [
            str(change.after) if change.path.endswith(".use") else f"{change.path.split('.')[-1]} {change.after}"
            for change in diff(before.leaves(), variant.resolved.leaves())
            if change.path != "train.seed" and variant.resolved.origins.get(change.path, "default") != "default"
        ]
        shown = (f"on {variant.against}: " if variant.against else "") + (", ".join(changes) or "the spec as it is")
        table.add_row(escape(variant.name), variant.resolved.identity.spec_hash, escape(shown), f"{passes:,.0f}")
    console.print(table)
    count = len(ablation.seeds)
    console.print(
        f"\n{len(ablation.variants)} variants × {count} seed{'s' * (count > 1)} = {costs.runs} runs, "
        f"{costs.total_passes:,.0f} passes in all"
    )
    if costs.hours:
        hours = ", ".join(f"{hours:,.0f} on {gpu}" for gpu, hours in costs.hours.items())
        more = ", and what isn't in the plan above" * costs.uncounted
        console.print(f"GPU-hours of all of them, ± 25 %: {escape(hours)}{more}")
    console.print()


def variants_data(ablation: Ablation) -> dict[str, Any]:
    """The variants and their cost, for `--json`."""
    costs = ablation_cost(ablation)
    variants = [
        {
            "name": variant.name,
            "against": variant.against,
            "spec": variant.resolved.identity.spec_hash,
            "group": variant.resolved.identity.group_hash,
            "passes": passes,
        }
        for variant, passes in zip(ablation.variants, costs.passes, strict=True)
    ]
    cost = {"runs": costs.runs, "total_passes": costs.total_passes, "gpu_hours": costs.hours}
    return {"seeds": list(ablation.seeds), "variants": variants, **cost}


def show_outcome(result: AblationResult) -> None:
    """A table for each judge, costs, resolved and unresolved differences, and where the files are."""
    from smpo.evaluation.report.ablation_text import costs, distances, findings, table

    console = out()
    # Tables of an ablation need more room than prose.
    wide = console if console.width >= 150 else RichConsole(highlight=False, width=210, soft_wrap=True)
    for judge in result.outcome.judges:
        made = any(v.made_labels for row in result.outcome.rows for v in row.verdicts if v.judge == judge)
        wide.print(f"\n[bold]{escape(judge)}[/]{'  (made the training labels)' if made else ''}")
        wide.print(records_table(table(result.outcome, judge)))
    if far := distances(result.outcome):
        wide.print("\n[bold]distance from the base[/], means over seeds, ± their standard deviation")
        wide.print(records_table(far))
    wide.print("\n[bold]cost[/], means over seeds")
    wide.print(records_table(costs(result.outcome)))
    console.print()
    for line in findings(result.outcome):
        console.print(escape(line))
    console.print(
        f"\nIntervals: 95 % over prompts and seeds together; p: Holm over variants and judges. {result.seconds:.0f} s.",
        markup=False,
    )
    console.print(f"table      {escape(relative(result.folder / 'ablation.md'))}, .json, .csv")
    if result.figure is not None:
        console.print(f"figure     {escape(relative(result.figure))}")
    if failed := [row.name for row in result.outcome.rows if row.failures]:
        sys.stderr.write(f"failed in part: {', '.join(failed)}; running the ablation again tries those again\n")
