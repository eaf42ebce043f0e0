"""`smpo plan` and `smpo check`: what a spec amounts to, and whether it is one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from smpo.app.plan.disk import in_gb
from smpo.app.plan.forward_passes import looks_every
from smpo.app.plan.plan import Plan, make_plan
from smpo.cli.ablation import ablation_of, show_variants, variants_data
from smpo.cli.output import out, print_json, resolve_spec
from smpo.experiment import EvaluateSpec, ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.spec.problems import SpecProblems

if TYPE_CHECKING:
    from rich.table import Table

    from smpo.app.plan.requirements import MissingRequirement
    from smpo.spec.problems import Problem

__all__ = ["check_command", "plan_command", "plan_data", "show_plan"]

_SLOTS = (
    "model",
    "data",
    "reward",
    "objective",
    "smoothing",
    "inversion",
    "train.optimiser",
    "evaluate.prompts",
)
_TOLD = ("steps", "batch", "lr", "schedule", "warmup", "precision", "seed")
"""What the row of `train` begins with."""


def plan_command(
    spec: str,
    sets: Sequence[str],
    *,
    full: bool,
    as_json: bool,
    roots: Sequence[Path] | None,
    no_local_code: bool,
) -> None:
    resolved = resolve_spec(spec, sets, roots=roots, no_local_code=no_local_code)
    ablation = ablation_of(spec, resolved, sets, roots=roots, no_local_code=no_local_code)
    plan = make_plan(resolved)
    if as_json:
        variants = {"ablation": variants_data(ablation)} if ablation is not None else {}
        print_json({**plan_data(resolved, plan), **variants})
    else:
        show_plan(resolved, plan, full=full)
        if ablation is not None:
            show_variants(ablation)
    if plan.missing:
        raise typer.Exit(3)


def check_command(
    specs: Sequence[str],
    sets: Sequence[str],
    *,
    as_json: bool,
    roots: Sequence[Path] | None,
    no_local_code: bool,
) -> None:
    """Checks all files, also after an error in the first. Warnings are printed and are no errors."""
    from smpo.app.plan.warnings import spec_warnings
    from smpo.cli.output import print_error
    from smpo.diagnostics.render import as_data

    problems: list[Problem] = []
    lines, warnings = list[str](), dict[str, list[str]]()
    for word in specs:
        try:
            resolved = resolve_spec(word, sets, roots=roots, no_local_code=no_local_code)
            ablation_of(word, resolved, sets, roots=roots, no_local_code=no_local_code)
        except SpecProblems as error:
            problems += error.problems
        else:
            warnings[word] = list(spec_warnings(resolved))
            lines.append(f"{word}: fine  (spec {resolved.identity.spec_hash})")
            lines += [f"  warning: {doubt}" for doubt in warnings[word]]
    if as_json:
        print_json(
            {
                "problems": [as_data(problem) for problem in problems],
                "warnings": {word: doubtful for word, doubtful in warnings.items() if doubtful},
            }
        )
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        if problems:
            print_error(SpecProblems(problems))
    if problems:
        raise typer.Exit(2)


def plan_data(resolved: Resolved[ExperimentSpec], plan: Plan) -> dict[str, Any]:
    """The plan as data, for `--json`."""
    return {
        "name": resolved.spec.name,
        "spec": resolved.identity.spec_hash,
        "group": resolved.identity.group_hash,
        "values": resolved.leaves(),
        "origins": dict(resolved.origins),
        "plan": plan.to_dict(),
    }


def show_plan(resolved: Resolved[ExperimentSpec], plan: Plan, *, full: bool = False) -> None:
    """One screen: the content of each slot and its origin, derived numbers, missing requirements, warnings."""
    from rich.markup import escape
    from rich.table import Table

    spec, console = resolved.spec, out()
    console.print(
        f"[bold]{escape(spec.name)}[/]   spec {resolved.identity.spec_hash}   group {resolved.identity.group_hash}   "
        f"{_history(resolved)}"
    )
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(style="dim", no_wrap=True)
    if full:
        for path, value in resolved.leaves().items():
            table.add_row(escape(path), escape(repr(value)), escape(resolved.origins[path]))
    else:
        for row in _rows(resolved):
            table.add_row(*(escape(cell) for cell in row))
    if resolved.local_files:
        names = ", ".join(one.path.name for one in resolved.local_files)
        console.print(f"[yellow]runs code[/]  {escape(names)} (`uses:`; --no-local-code refuses it)")
    console.print(table)
    console.print()
    for line in (*_derived(spec, plan), *_stored(plan)):
        console.print(escape(line))
    if plan.gpus:
        console.print()
        console.print(_gpus(plan, unknown=spec.evaluate is not None and plan.prompts is None))
        for words in plan.uncounted:
            console.print(escape(f"not in it: {words}"), style="dim")
        console.print()
    for warning in plan.warnings:
        console.print(f"[yellow]warning[/]  {escape(warning)}", soft_wrap=True)
    for where, obstacle in _apart(plan.missing):
        console.print(f"[red]missing[/]  {escape(where)}: {escape(obstacle.message)}", soft_wrap=True)
        console.print(f"         {escape(obstacle.help)}", soft_wrap=True)  # commands to be copied stay whole


def _apart(obstacles: Sequence[MissingRequirement]) -> list[tuple[str, MissingRequirement]]:
    """Whatever several slots lack in common, once, with the names of all of them."""
    found: dict[str, list[MissingRequirement]] = {}
    for one in obstacles:
        found.setdefault(one.message, []).append(one)
    return [(", ".join(one.where for one in some), some[0]) for some in found.values()]


def _rows(resolved: Resolved[ExperimentSpec]) -> list[tuple[str, str, str]]:
    """A line a slot: what it holds, which settings aren't the component's own, and where it was chosen."""
    leaves, origins = resolved.leaves(), resolved.origins
    components = resolved.components()
    rows = []
    judges = [path for path in components if path.startswith("evaluate.rewards.")]
    for slot in (*_SLOTS, *judges):
        if slot not in components:
            continue
        card = resolved.card_of(slot)
        inside = {path.removeprefix(f"{slot}."): path for path in leaves if path.startswith(f"{slot}.")}
        told = [
            f"{name} {leaves[path]}"
            for name, path in inside.items()
            if name != "use" and origins[path] != "default" and leaves[path] is not None
        ]
        name = f"{card.name} ({components[slot].use})" if card else components[slot].use
        rows.append((slot, "  ".join([name, *told]), origins.get(f"{slot}.use", "")))
    train = resolved.spec.train
    told = [f"{train.steps} updates × {train.batch} pairs", f"lr {train.lr:g} {train.schedule}"]
    told += [f"warm-up {train.warmup}"] if train.warmup else []
    told += [train.precision, f"seed {train.seed}", *_chosen(resolved, "train", _TOLD)]
    rows.append(("train", "  ".join(told), origins.get("train.steps", "")))
    if told := _chosen(resolved, "runtime", ()):
        named = next(origins[path] for path in leaves if path.startswith("runtime.") and origins[path] != "default")
        rows.append(("runtime", "  ".join(told), named))
    return rows


def _chosen(resolved: Resolved[ExperimentSpec], block: str, told: Sequence[str]) -> list[str]:
    """Settings of a block that aren't defaults, without those shown before and those of components in it."""
    inside = tuple(f"{path}." for path in resolved.components())
    return [
        f"{path.removeprefix(f'{block}.')} {value}"
        for path, value in resolved.leaves().items()
        if path.startswith(f"{block}.") and not path.startswith(inside) and value is not None
        and path.removeprefix(f"{block}.") not in told and resolved.origins[path] != "default"
    ]  # fmt: skip


def _derived(spec: ExperimentSpec, plan: Plan) -> list[str]:
    rows = "" if plan.rows is None else f" of at most {plan.rows:,} rows"
    lines = [
        f"batch      {plan.devices} device{'s' * (plan.devices > 1)} × {_dealt(plan)} = {spec.train.batch}",
        f"pairs      {plan.pairs:,} visits{rows}",
        *_sizes(plan),
        f"passes     {plan.passes_per_pair:.4g} UNet forwards a pair ({plan.inversion_passes:.4g} an image for the "
        f"inversion; a backward counts as two), {plan.total_passes:,.0f} in all",
    ]
    if plan.training_tflop is not None:
        lines.append(f"compute    {plan.training_tflop:,.0f} TFLOP of UNet in training")
    if plan.trainable is not None:
        lines.append(f"trained    {plan.trainable:,} numbers")
    if plan.memory is not None:
        lines.append(f"memory     {plan.memory}")
    if plan.diagnosis_passes:
        lines.append(
            f"held out   {spec.train.holdout} pairs, asked every {looks_every(spec)} updates; "
            f"{plan.diagnosis_passes:,} UNet forwards"
        )
    if spec.evaluate is not None:
        e = spec.evaluate
        prompts = "prompts that aren't here yet" if plan.prompts is None else f"{plan.prompts} prompts"
        passes = "" if plan.prompts is None else f"; {plan.sampling_passes:,} UNet forwards"
        lines.append(
            f"evaluate   {prompts} ({e.prompts.role}) × {e.images} × 2 models, {e.steps} steps at "
            f"guidance {e.guidance:g}, {_drawn(e)}{len(e.rewards)} judge{'s' * (len(e.rewards) > 1)}"
            + passes
            + (f", {plan.preview_passes:,} more for previews" if plan.preview_passes else "")
        )
    return lines


def _drawn(evaluate: EvaluateSpec) -> str:
    """The sizes of pictures, where the spec has them."""
    sizes = [f"{width} × {height}" for width, height in evaluate.sizes or ()]
    return (f"in {len(sizes)} sizes, " if len(sizes) > 3 else f"{', '.join(sizes)} pixels, ") if sizes else ""


def _sizes(plan: Plan) -> list[str]:
    """Of buckets: how many, from which to which, and what they do to micro-batches."""
    if not plan.caches.buckets:
        return []
    (h0, w0), (h1, w1) = plan.caches.buckets[0], plan.caches.buckets[-1]
    held = f", {len(plan.caches.filled)} of which hold pairs" if plan.caches.filled else ""
    dealt = f"; about {plan.portions:.3g} micro-batches of one size per update" if plan.portions is not None else ""
    return [f"buckets    {len(plan.caches.buckets)} sizes, {w0} x {h0} to {w1} x {h1}{held}{dealt}"]


def _dealt(plan: Plan) -> str:
    if plan.ragged:
        return f"({plan.accumulate - 1} × micro {plan.micro_batch} + {plan.ragged})"
    return f"micro {plan.micro_batch} × accumulate {plan.accumulate}"


def _stored(plan: Plan) -> list[str]:
    """What the caches hold and what will be written: words for numbers that may be unknown."""
    c, d, lines = plan.caches, plan.disk, []
    if c.scores is not None or c.scores_stored:
        wanted = "" if c.scores is None else f" of at most {c.scores:,}"
        lines.append(
            f"scores     all cached ({c.scores_stored:,} of this reward)"
            if c.scores_complete
            else f"scores     {c.scores_stored:,}{wanted} cached"
        )
    lines += _prepared(plan)
    if c.images is not None:
        lines.append(_encoded("latents", c.images_stored, c.images, d.latents))
    if c.prompts is not None:
        lines.append(_encoded("prompts", c.prompts_stored, c.prompts, d.prompts))
    if d.pictures:
        lines.append(f"pictures   at most {in_gb(d.pictures)} for the base's, which other runs draw on")
    if d.inversions:
        lines.append(f"inversions at most {in_gb(d.inversions)}, which other runs draw on")
    if d.checkpoint is not None and d.checkpoints is not None:
        kept = d.checkpoints // max(d.checkpoint, 1)
        model = "" if d.model is None else f"; the finished model {in_gb(d.model)}"
        lines.append(f"disk       {kept} × {in_gb(d.checkpoint)} for checkpoints{model}")
    if d.total and d.free is not None:
        lines.append(f"           {in_gb(d.total)} at most in all, {in_gb(d.free)} free")
    for place, size in d.downloads.items():
        lines.append(f"download   {place}" + (f", {size:g} GB" if size else ""))
    return lines


def _prepared(plan: Plan) -> list[str]:
    """What is still to be scored and encoded, what that takes, and how long the first update waits for it."""
    p, c = plan.preparation, plan.caches
    if not p.scored and not p.encoded:
        return []
    which = "all pairs" if c.scores_of == "all" else "the visited pairs alone"
    parts = [f"{p.scored:,} images to score ({which})"] * (p.scored > 0)
    parts += [f"{p.encoded:,} to encode"] * (p.encoded > 0)
    tflop = p.score_tflop + (p.encode_tflop or 0.0)
    compute = f", {tflop:,.0f} TFLOP" if tflop >= 1 else ""
    waits = f"; in {p.portions} portions, the first before the first update" if p.portions > 1 else ""
    hours = f"{p.core_hours:.3g} core-hours" if p.core_hours >= 0.1 else f"{3600 * p.core_hours:.0f} core-seconds"
    return [f"prepare    {', '.join(parts)}: at most {hours} to decode and lay out{compute}{waits}"]


def _encoded(what: str, stored: int, wanted: int, size: int | None) -> str:
    more = "" if not size or stored >= wanted else f", at most {in_gb(size)} to write"
    return f"{what:<10} {min(stored, wanted):,} of at most {wanted:,} cached{more}"


def _gpus(plan: Plan, *, unknown: bool) -> Table:
    """`unknown`: whether the cost of the evaluation is unknown."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(f"{plan.network}, ± 25 %", no_wrap=True)
    for title in ("GPU-hours", "training", "caches", "evaluation", "s a pair", "memory"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for one in plan.gpus:
        most = one.largest_micro_batch
        room = (
            "too large even for one pair"
            if most is None
            else f"fits; micro_batch {most} too"
            if one.fits and most > plan.micro_batch
            else "fits"
            if one.fits
            else f"too large; micro_batch {most} fits"
        )
        times = [f"{value:,.3g}" for value in (one.hours, one.training_hours, one.preparing_hours)]
        times += ["?" if unknown else f"{one.judging_hours:,.3g}", f"{one.seconds_per_pair:.2g}"]
        if most is None:  # no time on a GPU on which the run can't be
            times = ["–"] * len(times)
        table.add_row(one.gpu, *times, f"{one.memory_gb:.0f} GB", room)
    return table


def _history(resolved: Resolved[ExperimentSpec]) -> str:
    from smpo.runs.store import find_runs

    runs = find_runs(Path(resolved.spec.runtime.runs), resolved.spec.name, resolved.identity.spec_hash)
    return f"{runs[-1].summary()} before: {runs[-1].path}" if runs else "not run before"
