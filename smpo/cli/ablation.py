"""`smpo run` on a spec with an `ablation:` block, and `smpo plan` of one: all variants, one table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.app.ablation.spec import Ablation, read_ablation
from smpo.cli.output import find_spec, out
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import Resolved

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from smpo.app.ablation.ablation import AblationResult

__all__ = ["ablation_command", "ablation_of", "show_variants", "variants_data"]


def ablation_of(
    spec: str,
    base: Resolved[ExperimentSpec],
    sets: Sequence[str],
    *,
    seeds: int | None = None,
    roots: Sequence[Path] | None = None,
    no_local_code: bool = False,
) -> Ablation | None:
    """The spec's ablation, if it has one. Raises `SpecProblems`."""
    if base.ablation_entry is None:
        return None
    return read_ablation(
        find_spec(spec), base, sets=sets, seeds=seeds, extra_roots=roots or (), no_local_code=no_local_code
    )


def ablation_command(ablation: Ablation, *, jobs: int, quiet: bool) -> None:
    """Run every variant and print the table."""
    from smpo.app.ablation.ablation import check_machine, run_ablation
    from smpo.tracking.console import Console

    check_machine(ablation)
    if not quiet:
        show_variants(ablation)
    with Console(quiet=quiet) as console:
        result = run_ablation(ablation, console, jobs=jobs)
    show_outcome(result)


def show_variants(ablation: Ablation) -> None:
    """What would be run: a line a variant, with what it changes."""
    from rich.markup import escape
    from rich.table import Table

    from smpo.app.ablation.cost import ablation_cost
    from smpo.spec.leaves import diff

    console, by_name = out(), {variant.name: variant for variant in ablation.variants}
    console.print()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("variant", "spec", "changes", "passes a run"):
        table.add_column(title, justify="right" if title.startswith("passes") else "left")
    costs = ablation_cost(ablation)
    for variant, passes in zip(ablation.variants, costs.passes, strict=True):
        before = by_name[variant.against].resolved if variant.against else ablation.base
        changes = [
            str(change.after) if change.path.endswith(".use") else f"{change.path.split('.')[-1]} {change.after}"
            for change in diff(before.leaves(), variant.resolved.leaves())
            if change.path != "train.seed" and variant.resolved.origins.get(change.path, "default") != "default"
        ]
        told = (f"on {variant.against}: " if variant.against else "") + (", ".join(changes) or "the spec as it is")
        table.add_row(escape(variant.name), variant.resolved.identity.spec_hash, escape(told), f"{passes:,.0f}")
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
    """What would be run, as data."""
    from smpo.app.ablation.cost import ablation_cost

    variants: list[dict[str, Any]] = [
        {
            "name": variant.name,
            "against": variant.against,
            "spec": variant.resolved.identity.spec_hash,
            "group": variant.resolved.identity.group_hash,
        }
        for variant in ablation.variants
    ]
    costs = ablation_cost(ablation)
    for variant, passes in zip(variants, costs.passes, strict=True):
        variant["passes"] = passes
    whole = {"runs": costs.runs, "total_passes": costs.total_passes, "gpu_hours": costs.hours}
    return {"seeds": list(ablation.seeds), "variants": variants, **whole}


def show_outcome(result: AblationResult) -> None:
    """One table a judge, what it cost, what is and isn't resolved, and where things are."""
    from rich.markup import escape

    from smpo.cli.tables import judges_table
    from smpo.evaluation.report.ablation_text import costs, distances, findings, table

    console = out()
    wide = console if console.width >= 150 else _wide()
    for judge in result.outcome.judges:
        made = any(v.made_labels for row in result.outcome.rows for v in row.verdicts if v.judge == judge)
        wide.print(f"\n[bold]{escape(judge)}[/]{'  (made the training labels)' if made else ''}")
        wide.print(judges_table(table(result.outcome, judge)))
    if far := distances(result.outcome):
        wide.print("\n[bold]distance from the base[/], means over seeds, ± their standard deviation")
        wide.print(judges_table(far))
    wide.print("\n[bold]cost[/], means over seeds")
    wide.print(judges_table(costs(result.outcome)))
    console.print()
    for line in findings(result.outcome):
        console.print(escape(line))
    console.print(
        f"\nIntervals: 95 % over prompts and seeds together; p: Holm over variants and judges. {result.seconds:.0f} s.",
        markup=False,
    )
    console.print(f"table      {escape(_short(result.folder / 'ablation.md'))}, .json, .csv")
    if result.figure is not None:
        console.print(f"figure     {escape(_short(result.figure))}")
    if failed := [row.name for row in result.outcome.rows if row.failures]:
        sys.stderr.write(f"failed in part: {', '.join(failed)}; running the ablation again tries those again\n")


def _wide() -> RichConsole:
    """Tables of an ablation need more room than prose."""
    from rich.console import Console as RichConsole

    return RichConsole(highlight=False, width=210, soft_wrap=True)


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
