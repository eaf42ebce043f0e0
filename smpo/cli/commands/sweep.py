"""`smpo sweep`: search the settings of a spec, here or on a cluster, or show what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from smpo.cli.options import Quiet, Roots, Sets, TrustCode
from smpo.errors import RunError

if TYPE_CHECKING:
    from smpo.app.sweep.request import ResolvedSweep, SweepRequest

__all__ = ["sweep"]


def sweep(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[show] [SPEC]", help="A spec with a `sweep:` block (default: sweep); `show` only looks."
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Finished trials in all; the same command again goes on.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Trials at once, one a GPU or core.")] = 1,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Begin no trial after 90s, 15m, 2h.")] = None,
    trial_timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="End a trial that takes longer; it counts as failed.")
    ] = None,
    gpu_hours: Annotated[
        float | None, typer.Option(min=0, help="Begin no trial after so many hours of trials in all.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Database for many machines; default: a file.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Submit so many workers to a cluster, and return.")] = None,
    on: Annotated[Literal["slurm", "local"], typer.Option(help="Where `--workers` work.")] = "slurm",
    options: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="KEY=VALUE", help="For Slurm: partition, time… Repeatable."),
    ] = None,
    best: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the best spec goes.")] = None,
    no_confirm: Annotated[bool, typer.Option("--no-confirm", help="Don't run the best again on fresh seeds.")] = False,
    quiet: Quiet = False,
    sets: Sets = None,
    roots: Roots = None,
    trust_code: TrustCode = False,
) -> None:
    """Search the settings that a spec's `sweep:` block names."""
    from smpo.app.distributed.environment import rank_from_environment
    from smpo.app.run.ranks import require_single_process
    from smpo.app.sweep import worker
    from smpo.app.sweep.finish import conclude
    from smpo.app.sweep.request import SweepRequest, resolve_sweep
    from smpo.cli.exit_codes import ignore_broken_pipe
    from smpo.cli.output import find_spec
    from smpo.cli.sweep_table import Screen, seconds_of, show_ending

    words = words or []
    show = words[:1] == ["show"]
    spec = find_spec(next(iter(words[show:]), "sweep"))
    request = SweepRequest(
        spec=spec,
        sets=tuple(sets or ()),
        roots=tuple(roots or ()),
        trials=trials,
        timeout=seconds_of(timeout) if timeout else None,
        gpu_hours=gpu_hours,
        jobs=jobs,
        storage=storage,
        trial_timeout=seconds_of(trial_timeout) if trial_timeout else None,
    )
    if show:
        _show(request)
        return
    if options and workers is None:
        raise RunError("`--option` is for workers on a cluster", help="add `--workers N`")
    with ignore_broken_pipe():
        require_single_process(rank_from_environment(), "a sweep", "`--jobs`")
        prepared = resolve_sweep(request)
        if workers is not None:
            arguments = _command_line(request, best, no_confirm)
            _submit(prepared, workers, on, options or [], arguments)
            return
        with Screen(prepared, quiet=quiet) as screen:
            ending = worker.sweep(
                prepared,
                screen,
                then=lambda one, coordinator: conclude(one, coordinator, screen, best=best, confirm=not no_confirm),
            )
        show_ending(ending)


def _command_line(request: SweepRequest, best: Path | None, no_confirm: bool) -> list[str]:
    """The command of a worker on another machine: the same options, with absolute paths."""
    given = {
        "--trials": request.trials, "--timeout": request.timeout, "--gpu-hours": request.gpu_hours,
        "--storage": request.storage, "--trial-timeout": request.trial_timeout, "--best": best,
    }  # fmt: skip
    return [
        *("sweep", str(request.spec.absolute()), "--quiet", "--jobs", str(request.jobs)),
        *(str(part) for option, value in given.items() if value is not None for part in (option, value)),
        *(part for change in request.sets for part in ("--set", change)),
        *(part for root in request.roots for part in ("--registry", str(root.absolute()))),
        *["--no-confirm"] * no_confirm,
    ]


def _submit(
    prepared: ResolvedSweep,
    workers: int,
    on: Literal["slurm", "local"],
    options: Sequence[str],
    arguments: Sequence[str],
) -> None:
    """Create the study here, so that its mistakes are seen here and no two workers create it; then submit workers."""
    from rich.markup import escape

    from smpo.app.sweep.study import open_prepared
    from smpo.app.sweep.workers.slurm import submit, worker_command
    from smpo.cli.output import out

    wrong = next((option for option in options if "=" not in option.strip("=")), None)
    if wrong is not None:
        raise RunError(f"`{wrong}` is not an option", help="options are `-o partition=gpu`")
    study, _ = open_prepared(prepared)
    folder = prepared.folder / "cluster"
    jobs = submit(
        worker_command(arguments), workers=workers, on=on, folder=folder, name=prepared.name,
        options=dict(option.split("=", 1) for option in options),
    )  # fmt: skip
    console = out()
    console.print(f"study {escape(study.id)} in {escape(prepared.storage_shown)}")
    if "://" not in prepared.storage:
        console.print("           a file: every worker must see it at this path, and the `runs` folder as well")
    console.print(f"submitted  {workers} workers to {on}: {jobs[0]}{f' … {jobs[-1]}' if workers > 1 else ''}")
    console.print(f"their words {escape(str(folder))}/*.out")
    console.print(f"watch      smpo sweep show {escape(str(prepared.request.spec))}")


def _show(request: SweepRequest) -> None:
    """The study of a spec as it stands: all trials, what they cost, what matters; and the report, written anew."""
    from rich.markup import escape

    from smpo.app.sweep.display import SweepResult
    from smpo.app.sweep.finish import write_report
    from smpo.app.sweep.request import resolve_sweep
    from smpo.app.sweep.study import find_study
    from smpo.app.sweep.workers.messages import read_json
    from smpo.cli.output import out
    from smpo.cli.sweep_table import show_ending, trials_table
    from smpo.sweep.chart import importance

    prepared = resolve_sweep(request)
    study = find_study(prepared)
    trials = study.trials()
    ending = SweepResult("finished", study, trials, prepared, read_json(prepared.folder / "confirmed.json"))
    console = out()
    console.print(f"[bold]{escape(study.id)}[/]  {escape(prepared.storage_shown)}")
    console.print(trials_table(trials, prepared))
    if shares := importance(study):
        console.print("\nimportance  " + "  ".join(f"{escape(name)} {share:.2f}" for name, share in shares.items()))
    if ending.counts.running:
        console.print(f"{ending.counts.running} running")
    ending.files = write_report(ending)
    show_ending(ending, table=False)
