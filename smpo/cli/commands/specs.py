"""Commands about specs, which run nothing: plan, check, new, diff, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smpo.cli import complete
from smpo.cli.options import Json, NoCode, Roots, Sets, Spec

__all__ = ["check", "diff", "new", "plan", "schema"]


def plan(
    spec: Spec,
    sets: Sets = None,
    full: Annotated[bool, typer.Option("--full", help="Every value, with who set it.")] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="What the whole of its `sweep:` block would cost.")] = False,
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Show what a spec amounts to; run nothing."""
    if sweep:
        from smpo.cli.sweep_plan import plan_sweep_command

        plan_sweep_command(spec, sets or [], as_json=json, roots=roots, no_local_code=no_local_code)
        return
    from smpo.cli.plan import plan_command

    plan_command(spec, sets or [], full=full, as_json=json, roots=roots, no_local_code=no_local_code)


def check(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="Spec files.", autocompletion=complete.specs)],
    sets: Sets = None,
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Validate specs, many at once; for commits and CI."""
    from smpo.cli.plan import check_command

    check_command(specs, sets or [], as_json=json, roots=roots, no_local_code=no_local_code)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it; NAME.yaml is written here.")],
    start: Annotated[
        str,
        typer.Option("--from", metavar="SPEC", help="A spec to start from.", autocompletion=complete.specs),
    ] = "quickstart",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write a commented spec to start from."""
    from smpo.cli.new import new_command

    new_command(name, start, force=force, as_json=json)


def diff(
    before: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A spec, a run folder, or a run's hash.", autocompletion=complete.specs_or_runs
        ),
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one.", autocompletion=complete.specs_or_runs)],
    runs: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Compare two experiments, value by value."""
    from smpo.cli.diff import diff_command

    diff_command(before, after, runs, as_json=json, roots=roots, no_local_code=no_local_code)


def schema(
    write: Annotated[Path | None, typer.Option("--write", help="Write to this file instead of printing.")] = None,
    shipped: Annotated[
        bool, typer.Option("--shipped", help="Only what comes with smpo, whatever else is installed.")
    ] = False,
    roots: Roots = None,
) -> None:
    """JSON Schema of the language as installed here, for editors."""
    from smpo.cli.registry import schema_command

    schema_command(write, roots, shipped=shipped)
