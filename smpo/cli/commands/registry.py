"""`smpo registry`: everything a spec can name."""

from __future__ import annotations

from typing import Annotated

import typer

from smpo.cli import complete
from smpo.cli.options import Json, Roots

__all__ = ["registry_check", "registry_list", "registry_show"]


def registry_list(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[KIND]", help="Only this kind, such as reward.", autocompletion=complete.kinds),
    ] = None,
    json: Json = False,
    roots: Roots = None,
) -> None:
    """Everything a spec can name, with a line about each."""
    from smpo.cli.registry import list_command

    list_command(kind, as_json=json, roots=roots)


def registry_check(json: Json = False, roots: Roots = None) -> None:
    """Look at every card: is it sound, and does what it names exist?"""
    from smpo.cli.registry import check_command

    check_command(as_json=json, roots=roots)


def registry_show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A card or component, such as renoise.", autocompletion=complete.names),
    ],
    json: Json = False,
    roots: Roots = None,
) -> None:
    """One card or component: formula, fields, defaults, source."""
    from smpo.cli.registry import show_command

    show_command(name, as_json=json, roots=roots)
