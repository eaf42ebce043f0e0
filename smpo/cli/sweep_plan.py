"""`smpo plan --sweep`: what a sweep would cost, before it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from smpo.app.sweep.cost import estimate
from smpo.app.sweep.request import SweepRequest, resolve_sweep
from smpo.cli.output import find_spec, out, print_json
from smpo.cli.sweep_table import clock

__all__ = ["plan_sweep_command"]


def plan_sweep_command(
    spec: str, sets: Sequence[str], *, as_json: bool, roots: Sequence[Path] | None, no_local_code: bool
) -> None:
    """What the sweep would cost; runs nothing."""
    prepared = resolve_sweep(SweepRequest(find_spec(spec), tuple(sets), tuple(roots or ()), no_local_code))
    cost = estimate(prepared)
    if as_json:
        space = {param.name: str(param) for param in prepared.sweep.space.every()}
        print_json({"study": f"{prepared.name}-{prepared.id}", "search": space, **asdict(cost)})
        return
    console, block = out(), prepared.sweep.spec
    console.print(f"[bold]{escape(prepared.name)}[/]   study {prepared.name}-{prepared.id}")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for param in prepared.sweep.space.every():
        table.add_row(escape(param.name), escape(str(param)))
    console.print(table)
    aims = ", ".join(f"{goal.verb} {goal.metric}" for goal in prepared.sweep.goals)
    pruner = f"prune {block.prune.use}" if block.prune else "no pruning"
    console.print(f"\naim        {escape(aims)}; sampler {block.sampler.use}, {pruner}")
    console.print(f"sound      {cost.corners} corners of the space, each a valid spec")
    done = f", {cost.finished} of them finished" if cost.finished else ""
    console.print(f"trials     {cost.trials}{done}, and {cost.confirming} runs on fresh seeds")
    least, mean, most = cost.passes
    console.print(f"a trial    {mean:,.0f} forwards on average ({least:,.0f} to {most:,.0f}), without caches")
    if cost.tflop is not None:
        console.print(f"compute    about {cost.tflop:,.0f} TFLOP of training in all")
    for gpu, hours in cost.gpu_hours.items():
        console.print(f"           about {hours:,.1f} hours of {escape(gpu)}")
    if cost.seconds_per_trial is None:
        console.print("time       unknown here: after one trial (`smpo sweep --trials 1`) this is a measurement")
    else:
        left = clock(cost.left * cost.seconds_per_trial)
        console.print(
            f"time       {cost.seconds_per_trial:.0f} s a trial (mean of {cost.measured}): {left} left "
            "with --jobs 1, less with more jobs and with pruning"
        )
    for remark in prepared.remarks:
        console.print(f"note       {escape(remark)}")
