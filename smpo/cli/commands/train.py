"""`smpo run` and `smpo sweep`: commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from smpo.cli.options import NoCode, Roots, Sets, Spec
from smpo.errors import RunError

__all__ = ["run", "sweep"]


def run(
    spec: Spec,
    sets: Sets = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where an interrupted run of this spec, or in this folder, stopped."),
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Run a spec that has already been run once more.")] = False,
    devices: Annotated[int | None, typer.Option(min=1, help="Processes, one a device (runtime.devices).")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs of an `ablation:` at once.")] = 1,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds of an `ablation:`, instead of the file's.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Train, evaluate and track what a spec describes."""
    from smpo.cli.closed_streams import ignore_broken_pipe
    from smpo.cli.run import run_command

    with ignore_broken_pipe():
        run_command(
            spec,
            sets or [],
            resume=resume,
            again=again,
            devices=devices,
            jobs=jobs,
            seeds=seeds,
            quiet=quiet,
            roots=roots,
            no_local_code=no_local_code,
        )


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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    sets: Sets = None,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Search the settings that a spec's `sweep:` block names."""
    from smpo.cli.closed_streams import ignore_broken_pipe
    from smpo.cli.sweep import show_command, sweep_command

    show, *rest = [*(words or []), ""] if words and words[0] == "show" else ["", *(words or []), ""]
    spec = rest[0] or "sweep"
    if show:
        show_command(spec, sets or [], storage=storage, roots=roots, no_local_code=no_local_code)
        return
    if options and workers is None:
        raise RunError("`--option` is for workers on a cluster", help="add `--workers N`")
    with ignore_broken_pipe():
        sweep_command(
            spec,
            sets or [],
            trials=trials,
            jobs=jobs,
            workers=workers,
            on=on,
            options=options or [],
            timeout=timeout,
            trial_timeout=trial_timeout,
            gpu_hours=gpu_hours,
            storage=storage,
            quiet=quiet,
            best=best,
            confirm=not no_confirm,
            roots=roots,
            no_local_code=no_local_code,
        )
