"""The screen of `smpo plan`: what a spec amounts to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from smpo.app.plan.disk import in_gb
from smpo.app.plan.forward_passes import looks_every
from smpo.app.plan.plan import Plan
from smpo.cli.output import make_table, out
from smpo.experiment import EvaluateSpec, ExperimentSpec
from smpo.registry.resolve import Resolved
from smpo.runs.store import find_runs

if TYPE_CHECKING:
    from smpo.app.plan.requirements import MissingRequirement

__all__ = ["plan_data", "show_plan"]

_SLOTS = ("model", "data", "reward", "objective", "smoothing", "inversion", "train.optimiser", "evaluate.prompts")
_IN_TRAIN_ROW = ("steps", "batch", "lr", "schedule", "warmup", "precision", "seed")
"""What the row of `train` begins with."""


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
        console.print(f"[yellow]runs code[/]  {escape(names)} (`uses:`, trusted)")
    console.print(table)
    console.print()
    for line in (*_training(spec, plan), *_evaluation(spec, plan), *_stored(plan)):
        console.print(escape(line))
    if plan.gpus:
        console.print()
        console.print(_gpus(plan, unknown=spec.evaluate is not None and plan.prompts is None))
        for words in plan.uncounted:
            console.print(escape(f"not in it: {words}"), style="dim")
        console.print()
    for warning in plan.warnings:
        console.print(f"[yellow]warning[/]  {escape(warning)}", soft_wrap=True)
    for where, requirement in _by_message(plan.missing):
        console.print(f"[red]missing[/]  {escape(where)}: {escape(requirement.message)}", soft_wrap=True)
        console.print(f"         {escape(requirement.help)}", soft_wrap=True)  # commands to be copied stay whole


def _by_message(missing: Sequence[MissingRequirement]) -> list[tuple[str, MissingRequirement]]:
    """A requirement that several slots share, once, with the names of all of them."""
    groups: dict[str, list[MissingRequirement]] = {}
    for requirement in missing:
        groups.setdefault(requirement.message, []).append(requirement)
    return [(", ".join(one.where for one in group), group[0]) for group in groups.values()]


def _rows(resolved: Resolved[ExperimentSpec]) -> list[tuple[str, str, str]]:
    """A row for each slot: its component, the settings that aren't defaults, and where it was chosen."""
    leaves, origins, components = resolved.leaves(), resolved.origins, resolved.components()
    rows = []
    judges = [path for path in components if path.startswith("evaluate.rewards.")]
    for slot in (*_SLOTS, *judges):
        if slot not in components:
            continue
        card, use = resolved.card_of(slot), components[slot].use
        settings = [
            f"{path.removeprefix(f'{slot}.')} {value}"
            for path, value in leaves.items()
            if path.startswith(f"{slot}.") and path != f"{slot}.use"
            and origins[path] != "default" and value is not None
        ]  # fmt: skip
        name = f"{card.name} ({use})" if card else use
        rows.append((slot, "  ".join([name, *settings]), origins.get(f"{slot}.use", "")))
    train = resolved.spec.train
    cells = [f"{train.steps} updates × {train.batch} pairs", f"lr {train.lr:g} {train.schedule}"]
    cells += [f"warm-up {train.warmup}"] * bool(train.warmup)
    cells += [train.precision, f"seed {train.seed}", *_chosen(resolved, "train", _IN_TRAIN_ROW)]
    rows.append(("train", "  ".join(cells), origins.get("train.steps", "")))
    if cells := _chosen(resolved, "runtime", ()):
        origin = next(origins[path] for path in leaves if path.startswith("runtime.") and origins[path] != "default")
        rows.append(("runtime", "  ".join(cells), origin))
    return rows


def _chosen(resolved: Resolved[ExperimentSpec], block: str, shown: Sequence[str]) -> list[str]:
    """Settings of a block that aren't defaults, but for those `shown` already and those of its components."""
    inside = tuple(f"{path}." for path in resolved.components())
    return [
        f"{path.removeprefix(f'{block}.')} {value}"
        for path, value in resolved.leaves().items()
        if path.startswith(f"{block}.") and not path.startswith(inside) and value is not None
        and path.removeprefix(f"{block}.") not in shown and resolved.origins[path] != "default"
    ]  # fmt: skip


def _training(spec: ExperimentSpec, plan: Plan) -> list[str]:
    rows = "" if plan.rows is None else f" of at most {plan.rows:,} rows"
    micro = f"micro {plan.micro_batch} × accumulate {plan.accumulate}"
    if plan.ragged:
        micro = f"({plan.accumulate - 1} × micro {plan.micro_batch} + {plan.ragged})"
    lines = [
        f"batch      {plan.devices} device{'s' * (plan.devices > 1)} × {micro} = {spec.train.batch}",
        f"pairs      {plan.pairs:,} visits{rows}",
    ]
    if buckets := plan.caches.buckets:
        (h0, w0), (h1, w1) = buckets[0], buckets[-1]
        filled = f", {len(plan.caches.filled)} of which hold pairs" if plan.caches.filled else ""
        portions = "" if plan.portions is None else f"; about {plan.portions:.3g} micro-batches of one size per update"
        lines.append(f"buckets    {len(buckets)} sizes, {w0} x {h0} to {w1} x {h1}{filled}{portions}")
    lines.append(
        f"passes     {plan.passes_per_pair:.4g} UNet forwards a pair ({plan.inversion_passes:.4g} an image for the "
        f"inversion; a backward counts as two), {plan.total_passes:,.0f} in all"
    )
    if plan.training_tflop is not None:
        lines.append(f"compute    {plan.training_tflop:,.0f} TFLOP of UNet in training")
    if plan.trainable is not None:
        lines.append(f"trained    {plan.trainable:,} numbers")
    if plan.memory is not None:
        lines.append(f"memory     {plan.memory}")
    return lines


def _evaluation(spec: ExperimentSpec, plan: Plan) -> list[str]:
    lines = []
    if plan.diagnosis_passes:
        lines.append(
            f"held out   {spec.train.holdout} pairs, asked every {looks_every(spec)} updates; "
            f"{plan.diagnosis_passes:,} UNet forwards"
        )
    if (e := spec.evaluate) is not None:
        prompts = "prompts that aren't here yet" if plan.prompts is None else f"{plan.prompts} prompts"
        passes = "" if plan.prompts is None else f"; {plan.sampling_passes:,} UNet forwards"
        previews = f", {plan.preview_passes:,} more for previews" if plan.preview_passes else ""
        lines.append(
            f"evaluate   {prompts} ({e.prompts.role}) × {e.images} × 2 models, {e.steps} steps at guidance "
            f"{e.guidance:g}, {_drawn(e)}{len(e.rewards)} judge{'s' * (len(e.rewards) > 1)}{passes}{previews}"
        )
    return lines


def _drawn(evaluate: EvaluateSpec) -> str:
    """The sizes of pictures, where the spec has them."""
    sizes = [f"{width} × {height}" for width, height in evaluate.sizes or ()]
    return (f"in {len(sizes)} sizes, " if len(sizes) > 3 else f"{', '.join(sizes)} pixels, ") if sizes else ""


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
    network = f"{plan.network}, ± 25 %"
    numbers = ("GPU-hours", "training", "caches", "evaluation", "s a pair", "memory")
    table = make_table(network, *numbers, "", right=numbers, no_wrap=(network, *numbers))
    for gpu in plan.gpus:
        most = gpu.largest_micro_batch
        times = [f"{value:,.3g}" for value in (gpu.hours, gpu.training_hours, gpu.preparing_hours)]
        times += ["?" if unknown else f"{gpu.judging_hours:,.3g}", f"{gpu.seconds_per_pair:.2g}"]
        if most is None:
            room, times = "too large even for one pair", ["–"] * len(times)
        elif not gpu.fits:
            room = f"too large; micro_batch {most} fits"
        else:
            room = f"fits; micro_batch {most} too" if most > plan.micro_batch else "fits"
        table.add_row(gpu.gpu, *times, f"{gpu.memory_gb:.0f} GB", room)
    return table


def _history(resolved: Resolved[ExperimentSpec]) -> str:
    runs = find_runs(Path(resolved.spec.runtime.runs), resolved.spec.name, resolved.identity.spec_hash)
    return f"{runs[-1].summary()} before: {runs[-1].path}" if runs else "not run before"
