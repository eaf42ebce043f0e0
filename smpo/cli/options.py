"""Arguments and options of commands, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smpo.cli import complete

Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC", help="A spec file, or the name of a shipped one (quickstart).", autocompletion=complete.specs
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="PATH=VALUE",
        help="Change one value, as if written in the file. Repeatable.",
        autocompletion=complete.set_paths,
    ),
]
Roots = Annotated[
    list[Path] | None, typer.Option("--registry", metavar="DIR", help="One more folder of cards. Repeatable.")
]


def _trust(value: bool) -> bool:
    from smpo.registry.trust import trust_all

    trust_all(value)
    return value


TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", callback=_trust, help="Run the Python files that specs or runs name (`uses:`), now and later."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print data instead of prose.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run folder, the beginning of its spec hash, or an experiment's name.",
        autocompletion=complete.run_ids,
    ),
]
Runs = Annotated[Path, typer.Option(help="Folder of run folders.")]
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...", help="Runs, diffusers folders, LoRA folders, hub names; `label=` before one names it."
    ),
]
ComparisonSpec = Annotated[
    str | None, typer.Option(metavar="SPEC", help="Prompts, judges and base; default: the first run's own spec.")
]
Cache = Annotated[str, typer.Argument(metavar="SPEC|FOLDER", help="A spec, or the folder of a cache (runs/cache).")]
