"""Commands about models and runs that are there: eval, compare, show, ui, track sync."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smpo.cli import complete
from smpo.cli.options import Json, Models, OptionalModels, Roots, Sets

__all__ = ["compare", "evaluate", "show", "track_sync", "ui"]


def evaluate(
    models: Models,
    spec: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Prompts, judges and base; default: the first run's own spec."),
    ] = None,
    sets: Sets = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the table goes; default: under the runs."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    json: Json = False,
    roots: Roots = None,
) -> None:
    """Compare any models with their base: the same prompts and seeds, every judge, intervals."""
    from smpo.cli.eval import eval_command

    eval_command(models, spec=spec, sets=sets or [], runs=runs, folder=folder, roots=roots, as_json=json, quiet=quiet)


def compare(
    models: OptionalModels = None,
    spec: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Prompts, judges and base; default: the first run's own spec."),
    ] = None,
    sets: Sets = None,
    page: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page.")] = Path("compare.html"),
    prompts: Annotated[int, typer.Option(min=1, help="Prompts whose pictures are on the page.")] = 60,
    votes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Convert votes that were downloaded from a page.")
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Where they go, as parquet.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
    roots: Roots = None,
) -> None:
    """Look at models side by side, or vote blindly: one HTML file that needs nothing else."""
    from smpo.cli.compare import compare_command, votes_command

    if votes is not None:
        votes_command(votes, to)
        return
    compare_command(
        models or [],
        spec=spec,
        sets=sets or [],
        runs=runs,
        file=page,
        prompts=prompts,
        roots=roots,
        quiet=quiet,
    )


def show(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run folder, the beginning of its spec hash, or an experiment's name; nothing lists all.",
            autocompletion=complete.run_ids,
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    json: Json = False,
) -> None:
    """Show a run: its state, its result, and the spec it ran. Without a name, list all runs."""
    from smpo.cli.show import list_command, show_command

    if run is None:
        list_command(runs, as_json=json)
    else:
        show_command(run, runs, as_json=json)


def ui(
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
) -> None:
    """Browse runs in the MLflow UI."""
    from smpo.cli.show import ui_command

    ui_command(runs, port)


def track_sync(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the beginning of its spec hash.")],
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    uri: Annotated[str | None, typer.Option(help="MLflow tracking URI; default as for `smpo run`.")] = None,
) -> None:
    """Send a run's own log to MLflow: for runs whose server was away. Safe to repeat."""
    from smpo.cli.show import sync_command

    sync_command(run, runs, uri)
