"""Commands about runs that are there: show, ui, track sync, rerun, verify, and doctor, which checks machines too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smpo.cli import complete
from smpo.cli.options import Json, Run, Runs, TrustCode

if TYPE_CHECKING:
    from smpo.app.checks.machine import Check

__all__ = ["doctor", "rerun", "show", "track_sync", "ui", "verify"]


def show(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run folder, the beginning of its spec hash, or an experiment's name; nothing lists all.",
            autocompletion=complete.run_ids,
        ),
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Show a run: its state, its result, and the spec it ran. Without a name, list all runs."""
    from smpo.cli.runs import find_run, list_runs, show_run

    if run is None:
        list_runs(runs, as_json=json)
    else:
        show_run(find_run(run, runs), as_json=json)


def ui(
    runs: Runs = Path("runs"), port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000
) -> None:
    """Browse runs in the MLflow UI."""
    from smpo.tracking.ui import run_ui, ui_command

    raise typer.Exit(run_ui(ui_command(runs, port=port), _to_stderr))


def track_sync(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or the beginning of its spec hash.")],
    runs: Runs = Path("runs"),
    uri: Annotated[str | None, typer.Option(help="MLflow tracking URI; default as for `smpo run`.")] = None,
) -> None:
    """Send a run's own log to MLflow: for runs whose server was away. Safe to repeat."""
    from smpo.cli.output import out
    from smpo.cli.runs import find_run
    from smpo.tracking.mlflow import sync

    folder = find_run(run, runs).path
    place = sync(folder, runs, uri, say=_to_stderr)
    out().print(f"{folder} is in MLflow at {place.get('uri', '')} as run {place.get('run_id', '')}", soft_wrap=True)


def _to_stderr(text: str) -> None:
    sys.stderr.write(text + "\n")


def rerun(
    run: Run,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="PATH=VALUE", help="Change a `runtime` setting. Repeatable."),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Go on though data, weights or code aren't those of the run.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail unless everything is the same bit for bit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the comparison.")] = False,
    json: Json = False,
    runs: Runs = Path("runs"),
    trust_code: TrustCode = False,
) -> None:
    """Run a finished run once more, beside it, and say whether it came out the same."""
    from smpo.app.checks import rerun as repetitions
    from smpo.cli.agreement import show_repetition
    from smpo.cli.commands.run import show_result
    from smpo.cli.output import print_json
    from smpo.cli.runs import find_run
    from smpo.tracking.console import Console

    earlier = find_run(run, runs, finished=True)
    with Console(quiet=quiet or json) as console:
        result, repetition = repetitions.rerun(earlier, console, sets=sets or [], anyway=anyway)
    if json:
        print_json(repetition.to_dict())
    else:
        if not quiet:
            show_result(result, str(earlier.path.parent.parent))
        show_repetition(repetition)
    if not (repetition.exact if strict else repetition.within):
        raise typer.Exit(1)


def verify(
    run: Run,
    files_only: Annotated[bool, typer.Option("--files-only", help="Check hashes; don't evaluate again.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Evaluate only so many prompts again, evenly over the set.")
    ] = None,
    json: Json = False,
    runs: Runs = Path("runs"),
    trust_code: TrustCode = False,
) -> None:
    """Check a finished run: its files, and whether its model still gets the recorded scores."""
    from smpo.app.checks import verify as checks
    from smpo.cli.agreement import show_verdict
    from smpo.cli.output import print_json
    from smpo.cli.runs import find_run
    from smpo.tracking.console import Console

    folder = find_run(run, runs, finished=True)
    with Console(quiet=json) as console:
        verdict = checks.verify(folder, console.progress, files_only=files_only, limit=limit)
    if json:
        print_json(verdict.to_dict())
    else:
        show_verdict(verdict)
    if not verdict.sound:
        raise typer.Exit(1)


def doctor(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="A run to look at; without one, this machine.", autocompletion=complete.run_ids
        ),
    ] = None,
    json: Json = False,
    runs: Runs = Path("runs"),
) -> None:
    """Is all well? With this machine, or with a run. Exit code 1 when something is broken."""
    from smpo.app.checks.machine import checkup, worst
    from smpo.cli.output import print_json

    if run is None:
        about, checks = "machine", checkup(runs)
    else:
        from smpo.app.checks.run_health import examine
        from smpo.cli.runs import find_run

        folder = find_run(run, runs)
        about, checks = str(folder.path), examine(folder)
    if json:
        print_json({"about": about, "state": worst(checks), "checks": [check.to_dict() for check in checks]})
    else:
        _show_checks(about, checks)
    if worst(checks) == "broken":
        raise typer.Exit(1)


def _show_checks(about: str, checks: list[Check]) -> None:
    from rich.markup import escape

    from smpo.cli.output import out

    colours = {"fine": "green", "note": "cyan", "warning": "yellow", "broken": "red"}
    lines = [f"[bold]{escape(about)}[/]"]
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        state = f"[{colours[check.state]}]{check.state:<8}[/]"
        lines.append(f"{state} {escape(check.name):<{width}}  {escape(check.message)}")
        if check.help:
            lines.append(f"{'':8} {'':<{width}}  → {escape(check.help)}")
    broken, warnings = (sum(check.state == state for check in checks) for state in ("broken", "warning"))
    lines.append(f"{broken} broken, {warnings} warnings" if broken or warnings else "all is well")
    out().print("\n".join(lines), soft_wrap=True)
