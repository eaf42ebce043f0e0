"""`smpo run`: plan, run, and say what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smpo.app.distributed.environment import RankInfo, rank_from_environment
from smpo.app.distributed.launcher import launch
from smpo.app.plan.plan import make_plan
from smpo.app.run.ranks import abort_on_error, require_single_process, run_rank0, run_worker_rank
from smpo.app.run.run import Result, run
from smpo.cli.ablation import ablation_command, ablation_of
from smpo.cli.output import out, resolve_spec
from smpo.cli.plan import show_plan
from smpo.cli.tables import judges_table
from smpo.errors import MachineError
from smpo.runs.locate import named_run, whereabouts
from smpo.tracking.console import Console
from smpo.tracking.mirror import read_place

__all__ = ["run_command", "show_result"]


def run_command(
    spec: str, sets: Sequence[str], *, resume: bool, again: bool, devices: int | None = None, jobs: int = 1,
    seeds: int | None = None, quiet: bool, roots: Sequence[Path] | None, no_local_code: bool,
) -> None:  # fmt: skip
    place = rank_from_environment()
    if place is not None and not place.is_main:
        run_worker_rank(place, roots=roots or (), no_local_code=no_local_code)
        return
    with abort_on_error(place):
        begun = named_run(spec, resume=resume)
        if begun is not None:
            spec, sets = str(begun.resolved), [*whereabouts(begun), *sets]
        sets = [*sets, *_devices(devices, place)]
        resolved = resolve_spec(spec, sets, roots=roots, no_local_code=no_local_code)
        ablation = ablation_of(spec, resolved, sets, seeds=seeds, roots=roots, no_local_code=no_local_code)
        if ablation is not None:
            require_single_process(place, "an ablation", "`--jobs`")
            ablation_command(ablation, jobs=jobs, quiet=quiet)
            return
        if seeds is not None:
            raise MachineError(
                f"`--seeds` counts the seeds of an ablation, and {spec} has no `ablation:` block",
                help="for another seed of one run: --set train.seed=N",
            )
        runtime = resolved.spec.runtime
        if place is None and runtime.devices > 1:
            arguments = _arguments(spec, sets, resume, again, quiet, roots, no_local_code)
            if code := launch(arguments, runtime.devices, threads=runtime.threads):
                raise SystemExit(code)
            return
        plan = make_plan(resolved)
        if not quiet:
            show_plan(resolved, plan)
            if resolved.sweep_node is not None:
                out().print("note       its `sweep:` block is left out here; `smpo sweep` runs that")
        if plan.missing:
            first = plan.missing[0]
            raise MachineError(f"{first.where}: {first.message}", help=first.help)
    with Console(quiet=quiet) as console:
        if place is None:
            result = run(resolved, plan, console, again=again, resume=resume)
        else:
            result = run_rank0(place, resolved, plan, console, again=again, resume=resume)
    show_result(result, runtime.runs)


def _devices(asked: int | None, place: RankInfo | None) -> list[str]:
    """The number of processes as a setting: that of `--devices`, or of a launcher."""
    if place is not None and asked not in (None, place.world):
        raise MachineError(
            f"`--devices {asked}`, and {place.launcher} started {place.world} processes",
            help=f"leave `--devices` out: {place.launcher} decides",
        )
    number = asked if place is None else place.world
    return [] if number is None else [f"runtime.devices={number}"]


def _arguments(
    spec: str, sets: Sequence[str], resume: bool, again: bool, quiet: bool, roots: Sequence[Path] | None,
    no_local_code: bool,
) -> list[str]:  # fmt: skip
    """The same command once more."""
    flags = {"--resume": resume, "--again": again, "--quiet": quiet, "--no-local-code": no_local_code}
    return [
        "run",
        *(flag for flag, wanted in flags.items() if wanted),
        *(f"--set={one}" for one in sets),
        *(f"--registry={root}" for root in roots or ()),
        "--",
        spec,
    ]


def show_result(result: Result, runs: str) -> None:
    """The answer: a table of judges, a sentence, and where things are."""
    from rich.markup import escape

    console = out()
    if result.evaluation is not None:
        console.print()
        console.print(judges_table(result.evaluation.table()))
        console.print(f"\n[bold]{escape(result.evaluation.headline())}[/]")
        console.print(escape(result.evaluation.panel.verdict))
        if result.evaluation.drift is not None:
            console.print(f"drift      {escape(result.evaluation.drift.sentence())}", soft_wrap=True)
    console.print()
    if result.grid is not None:
        console.print(f"pictures   {escape(_short(result.grid))}")
    console.print(f"model      {escape(_short(result.folder / 'model'))}")
    for line in result.cost.lines() if result.cost is not None else ():
        console.print(line)
    if read_place(result.folder):
        console.print(f"browse     smpo ui{'' if runs == 'runs' else f' --runs {escape(runs)}'}")
    else:  # the run isn't in MLflow
        console.print(f"look       smpo show {escape(_short(result.folder))}")


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
