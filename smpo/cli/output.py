"""How the command line speaks: errors on standard error, results on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.errors import MachineError, SmpoError
from smpo.spec.shipped import find_spec, shipped_specs

if TYPE_CHECKING:
    from rich.console import Console

    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import Resolved

__all__ = ["card_folders", "find_spec", "out", "print_error", "print_json", "resolve_spec", "shipped_specs"]


def print_error(error: SmpoError) -> None:
    """The error in words; problems of a spec with frames, and as annotations too where CI shows them.

    With `--json` the error is JSON too: `{"problems": [...]}` for a spec, else `{"error": ..., "help": ...}`, on
    standard output; the text goes to standard error as always.
    """
    from smpo.spec.problems import SpecProblems

    as_json = "--json" in sys.argv[1:]
    if isinstance(error, SpecProblems):
        from smpo.diagnostics.render import as_data, github, render

        sys.stderr.write(render(error.problems) + "\n")
        if os.environ.get("GITHUB_ACTIONS") == "true":
            (sys.stderr if as_json else sys.stdout).write(github(error.problems) + "\n")
        if as_json:
            print_json({"problems": [as_data(problem) for problem in error.problems]})
        return
    if as_json:
        print_json({"error": error.message, **({"help": error.help} if error.help else {})})
    sys.stderr.write(f"error: {error.message}\n")
    if error.help:
        sys.stderr.write(f"help: {error.help}\n")


def print_json(value: Any) -> None:
    """As it is where the reader takes UTF-8, else escaped: data must not become question marks."""
    plain = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=plain, default=str) + "\n")


def out() -> Console:
    """Standard output with tables; as wide as its content where it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def card_folders(roots: Sequence[Path] | None) -> Sequence[Path]:
    """What `--registry` names. Raises `MachineError` where there is no such folder: its cards would be missed."""
    for root in roots or ():
        if not root.is_dir():
            raise MachineError(f"`--registry {root}`: there is no such folder")
    return roots or ()


def resolve_spec(
    word: str, sets: Sequence[str], *, roots: Sequence[Path] | None = None, no_local_code: bool = False
) -> Resolved[ExperimentSpec]:
    """The spec that a command is about. Raises `SpecProblems`."""
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    return resolve(
        find_spec(word),
        skeleton=ExperimentSpec,
        sets=sets,
        extra_roots=card_folders(roots),
        no_local_code=no_local_code,
    )
