"""`smpo doctor`: is all well with this machine, or with a run?"""

from __future__ import annotations

from pathlib import Path

import typer

from smpo.app.checks.machine import Check, checkup, worst
from smpo.cli.output import out, print_json

__all__ = ["doctor_command"]

_COLOURS = {"fine": "green", "note": "cyan", "warning": "yellow", "broken": "red"}


def doctor_command(word: str | None, runs: Path, *, as_json: bool) -> None:
    """Exit code 1 when something is broken; warnings leave it at 0."""
    if word is None:
        about, checks = "machine", checkup(runs)
    else:
        from smpo.app.checks.run_health import examine
        from smpo.cli.show import find_run

        run = find_run(word, runs)
        about, checks = str(run.path), examine(run)
    if as_json:
        print_json({"about": about, "state": worst(checks), "checks": [check.to_dict() for check in checks]})
    else:
        _show(about, checks)
    if worst(checks) == "broken":
        raise typer.Exit(1)


def _show(about: str, checks: list[Check]) -> None:
    from rich.markup import escape

    console = out()
    console.print(f"[bold]{escape(about)}[/]", soft_wrap=True)
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        colour = _COLOURS[check.state]
        console.print(
            f"[{colour}]{check.state:<8}[/] {escape(check.name):<{width}}  {escape(check.message)}",
            soft_wrap=True,
        )
        if check.help:
            console.print(f"{'':8} {'':<{width}}  → {escape(check.help)}", soft_wrap=True)
    count = {state: sum(check.state == state for check in checks) for state in ("warning", "broken")}
    if not any(count.values()):
        console.print("all is well")
    else:
        console.print(f"{count['broken']} broken, {count['warning']} warnings")
