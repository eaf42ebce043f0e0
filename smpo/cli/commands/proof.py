"""Commands that check a machine or a run: rerun, verify, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smpo.cli import complete
from smpo.cli.options import Json, Run, Runs

__all__ = ["doctor", "rerun", "verify"]


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
) -> None:
    """Run a finished run once more, beside it, and say whether it came out the same."""
    from smpo.cli.verify import rerun_command

    rerun_command(run, runs, sets or [], anyway=anyway, strict=strict, quiet=quiet, as_json=json)


def verify(
    run: Run,
    files_only: Annotated[bool, typer.Option("--files-only", help="Check hashes; don't evaluate again.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Evaluate only so many prompts again, evenly over the set.")
    ] = None,
    json: Json = False,
    runs: Runs = Path("runs"),
) -> None:
    """Check a finished run: its files, and whether its model still gets the recorded scores."""
    from smpo.cli.verify import verify_command

    verify_command(run, runs, files_only=files_only, limit=limit, as_json=json)


def doctor(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run to look at; without one, this machine.",
            autocompletion=complete.run_ids,
        ),
    ] = None,
    json: Json = False,
    runs: Runs = Path("runs"),
) -> None:
    """Is all well? With this machine, or with a run. Exit code 1 when something is broken."""
    from smpo.cli.doctor import doctor_command

    doctor_command(run, runs, as_json=json)
