"""Commands about pairs and what is computed from them once: data audit, score, cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smpo.cli.options import Json, NoCode, Place, Roots, Sets, Spec

__all__ = ["cache_clean", "cache_list", "cache_verify", "data_audit", "score"]


def data_audit(
    spec: Spec,
    sets: Sets = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where page and data go; default: under runs.")
    ] = None,
    no_score: Annotated[
        bool, typer.Option("--no-score", help="Compare with the reward only as far as its scores are cached.")
    ] = False,
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Find what is the matter with preference pairs before training on them."""
    from smpo.cli.data import audit_command

    audit_command(
        spec,
        sets or [],
        folder=folder,
        score=not no_score,
        as_json=json,
        roots=roots,
        no_local_code=no_local_code,
    )


def score(
    spec: Spec,
    sets: Sets = None,
    reward: Annotated[
        str | None, typer.Option("--reward", metavar="NAME", help="Another reward than the spec's.")
    ] = None,
    json: Json = False,
    roots: Roots = None,
    no_local_code: NoCode = False,
) -> None:
    """Score a spec's pairs with its reward; what is known isn't computed again."""
    from smpo.cli.data import score_command

    score_command(spec, sets or [], reward=reward, as_json=json, roots=roots, no_local_code=no_local_code)


def cache_list(place: Place, sets: Sets = None, json: Json = False) -> None:
    """What a cache holds, and how much of the disk."""
    from smpo.cli.cache import list_command

    list_command(place, sets or [], as_json=json)


def cache_verify(
    place: Place,
    sets: Sets = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Discard what is damaged; with a spec, compute it again.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare every file of a cache with what was written. Exit code 1 when something is damaged."""
    from smpo.cli.cache import verify_command

    verify_command(place, sets or [], repair=repair, as_json=json)


def cache_clean(
    place: Place,
    what: Annotated[
        list[str] | None,
        typer.Option("--what", metavar="KIND", help="latents, prompts, scores or pairs, whole. Repeatable."),
    ] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Delete what no index mentions (leftovers of killed writers), or whole kinds of entries."""
    from smpo.cli.cache import clean_command

    clean_command(place, sets or [], what=what or [], as_json=json)
