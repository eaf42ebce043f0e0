"""`smpo run`: plan, train, evaluate and print the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smpo.cli.options import Quiet, Roots, Sets, Spec, TrustCode
from smpo.errors import MachineError

if TYPE_CHECKING:
    from smpo.app.ablation.spec import Ablation
    from smpo.app.distributed.environment import RankInfo
    from smpo.app.run.run import Result

__all__ = ["run", "show_result"]


def run(
    spec: Spec,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted run of this spec, or in this folder, stopped.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Run a spec that has already been run once more.")] = False,
    devices: Annotated[int | None, typer.Option(min=1, help="Processes, one a device (runtime.devices).")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs of an `ablation:` at once.")] = 1,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of an `ablation:`, instead of the file's.")] = None,
    quiet: Quiet = False,
    roots: Roots = None,
    trust_code: TrustCode = False,
) -> None:
    """Train, evaluate and track what a spec describes."""
    from smpo.app.distributed.environment import rank_from_environment
    from smpo.app.distributed.launcher import launch
    from smpo.app.plan.plan import make_plan
    from smpo.app.run import run as training
    from smpo.app.run.ranks import abort_on_error, require_single_process, run_rank0, run_worker_rank
    from smpo.cli.ablation import ablation_of
    from smpo.cli.exit_codes import ignore_broken_pipe
    from smpo.cli.output import out, resolve_spec
    from smpo.cli.plan import show_plan
    from smpo.runs.locate import named_run, whereabouts
    from smpo.tracking.console import Console

    rank, sets = rank_from_environment(), sets or []
    with ignore_broken_pipe():
        if rank is not None and not rank.is_main:
            run_worker_rank(rank, roots=roots or ())
            return
        with abort_on_error(rank):
            if earlier := named_run(spec, resume=resume):
                spec, sets = str(earlier.resolved), [*whereabouts(earlier), *sets]
            sets = [*sets, *_devices(devices, rank)]
            resolved = resolve_spec(spec, sets, roots=roots)
            if ablation := ablation_of(spec, resolved, sets, seeds=seeds, roots=roots):
                require_single_process(rank, "an ablation", "`--jobs`")
                _run_ablation(ablation, jobs=jobs, quiet=quiet)
                return
            if seeds is not None:
                raise MachineError(
                    f"`--seeds` counts the seeds of an ablation, and {spec} has no `ablation:` block",
                    help="for another seed of one run: --set train.seed=N",
                )
            runtime = resolved.spec.runtime
            if rank is None and runtime.devices > 1:
                flags = {"--resume": resume, "--again": again, "--quiet": quiet}
                arguments = _command_line(spec, sets, roots or (), flags)
                raise SystemExit(launch(arguments, runtime.devices, threads=runtime.threads))
            plan = make_plan(resolved)
            if not quiet:
                show_plan(resolved, plan)
                if resolved.sweep_node is not None:
                    out().print("note       its `sweep:` block is left out here; `smpo sweep` runs that")
            if plan.missing:
                first = plan.missing[0]
                raise MachineError(f"{first.where}: {first.message}", help=first.help)
        with Console(quiet=quiet) as console:
            if rank is None:
                result = training.run(resolved, plan, console, again=again, resume=resume)
            else:
                result = run_rank0(rank, resolved, plan, console, again=again, resume=resume)
        show_result(result, runtime.runs)


def _run_ablation(ablation: Ablation, *, jobs: int, quiet: bool) -> None:
    from smpo.app.ablation.ablation import check_machine, run_ablation
    from smpo.cli.ablation import show_outcome, show_variants
    from smpo.tracking.console import Console

    check_machine(ablation)
    if not quiet:
        show_variants(ablation)
    with Console(quiet=quiet) as console:
        result = run_ablation(ablation, console, jobs=jobs)
    show_outcome(result)


def _devices(number: int | None, rank: RankInfo | None) -> list[str]:
    """The number of processes as a setting: that of `--devices`, or of a launcher."""
    if rank is not None:
        if number not in (None, rank.world):
            raise MachineError(
                f"`--devices {number}`, and {rank.launcher} started {rank.world} processes",
                help=f"leave `--devices` out: {rank.launcher} decides",
            )
        number = rank.world
    return [] if number is None else [f"runtime.devices={number}"]


def _command_line(spec: str, sets: Sequence[str], roots: Sequence[Path], flags: dict[str, bool]) -> list[str]:
    """The same command once more, for each process of several."""
    return [
        "run",
        *(flag for flag, given in flags.items() if given),
        *(f"--set={change}" for change in sets),
        *(f"--registry={root}" for root in roots),
        "--",
        spec,
    ]


def show_result(result: Result, runs: str) -> None:
    """The answer: a table of judges, a sentence, and where things are."""
    from rich.markup import escape

    from smpo.cli.output import out, records_table, relative
    from smpo.tracking.mirror import read_place

    console = out()
    if result.evaluation is not None:
        console.print()
        console.print(records_table(result.evaluation.table()))
        console.print(f"\n[bold]{escape(result.evaluation.headline())}[/]")
        console.print(escape(result.evaluation.panel.verdict))
        if result.evaluation.drift is not None:
            console.print(f"drift      {escape(result.evaluation.drift.sentence())}", soft_wrap=True)
    console.print()
    if result.grid is not None:
        console.print(f"pictures   {escape(relative(result.grid))}")
    console.print(f"model      {escape(relative(result.folder / 'model'))}")
    for line in result.cost.lines() if result.cost is not None else ():
        console.print(line)
    if read_place(result.folder):
        console.print(f"browse     smpo ui{'' if runs == 'runs' else f' --runs {escape(runs)}'}")
    else:  # the run isn't in MLflow
        console.print(f"look       smpo show {escape(relative(result.folder))}")
