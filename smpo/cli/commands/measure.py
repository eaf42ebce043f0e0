"""Commands that measure what a setting would be worth."""

from __future__ import annotations

from typing import Annotated

import typer

from smpo.cli.options import Json, NoCode, Roots, Sets, Spec

__all__ = ["measure_rho"]


def measure_rho(
    spec: Spec,
    sets: Sets = None,
    pairs: Annotated[int, typer.Option("--pairs", min=2, help="How many pairs are looked at.")] = 64,
    levels: Annotated[int, typer.Option("--levels", min=2, max=64, help="Timesteps of each.")] = 8,
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Whether several timesteps a walk pay: how alike a pair's gradients are at two timesteps."""
    from smpo.cli.measure import rho_command

    rho_command(
        spec, sets or [], pairs=pairs, levels=levels, as_json=json, roots=roots, no_local_code=no_local_code
    )
