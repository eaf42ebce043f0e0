"""How the command line prints: errors on standard error, results on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.errors import MachineError, SmpoError
from smpo.spec.shipped import find_spec, shipped_specs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import Resolved

__all__ = [
    "card_folders", "find_spec", "make_table", "out", "print_error", "print_json", "print_line", "records_table",
    "relative", "resolve_spec", "shipped_specs",
]  # fmt: skip


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
    """JSON in UTF-8 where standard output takes it, else escaped: data must not become question marks."""
    plain = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=plain, default=str) + "\n")


def out() -> Console:
    """Standard output with tables; as wide as its content where it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


def print_line(text: str) -> None:
    """A line as it is: no markup, and not folded, so that paths and commands can be copied."""
    out().print(text, markup=False, soft_wrap=True)


def make_table(*columns: str, right: Sequence[str] = (), no_wrap: Sequence[str] = ()) -> Table:
    """An empty table without lines; without `columns` it has no header. `right` names columns of numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_header=bool(columns))
    for title in columns:
        table.add_column(title, justify="right" if title in right else "left", no_wrap=title in no_wrap)
    return table


def records_table(rows: Sequence[Mapping[str, object]]) -> Table:
    """Rows that share their keys, which become the header; the first column to the left, the others to the right."""
    from rich.markup import escape

    columns = list(rows[0]) if rows else []
    table = make_table(*columns, right=columns[1:])
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row.values()))
    return table


def relative(path: Path) -> str:
    """A path from the working directory where it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def card_folders(roots: Iterable[Path] | None) -> Sequence[Path]:
    """The folders of `--registry`. Raises `MachineError` where one doesn't exist: its cards would be missed."""
    folders = tuple(roots or ())
    for folder in folders:
        if not folder.is_dir():
            raise MachineError(f"`--registry {folder}`: there is no such folder")
    return folders


def resolve_spec(
    word: str, sets: Sequence[str] | None = None, *, roots: Sequence[Path] | None = None
) -> Resolved[ExperimentSpec]:
    """The spec that a command is about. Raises `SpecProblems`."""
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    return resolve(
        find_spec(word),
        skeleton=ExperimentSpec,
        sets=sets or (),
        extra_roots=card_folders(roots),
    )
