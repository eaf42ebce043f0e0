"""Prompts out of published files: tables with a header, objects a line, lists of texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smpo.data.sources.text_files import HALF, json_lines, read_text, table_rows, unencodable
from smpo.errors import MachineError

__all__ = ["read_list", "read_table"]


def read_table(file: Path, column: str, category: str | None) -> list[tuple[str, str]]:
    """`(text, category)` of each row whose text isn't empty, in the file's order; no category is "".

    Raises `MachineError` for files that can't be read, kinds that aren't known, and columns that aren't there.
    """
    kind, rows = file.suffix.lower(), list[Mapping[str, Any]]()
    if kind in (".csv", ".tsv"):
        names, rows[:] = table_rows(file)
    elif kind == ".jsonl":
        rows = list(json_lines(file))
        names = sorted({name for row in rows for name in row})
    else:
        raise MachineError(
            f"{file} is not a table of prompts", help="it should end in .csv, .tsv or .jsonl; for one prompt a line "
            "there is `use: text`, for parquet `use: parquet-prompts`",
        )  # fmt: skip
    for setting, name in (("column", column), ("category", category)):
        if name is not None and name not in names:
            raise MachineError(
                f"{file} has no column `{name}`, only {', '.join(map(str, names)) or 'none'}",
                help=f"say which with `evaluate.prompts.{setting}`",
            )
    found = [(_cell(row, column), _cell(row, category) if category else "") for row in rows]
    return [row for row in found if row[0]]


def read_list(file: Path) -> list[str]:
    """The texts of a JSON list. Raises `MachineError` when it is something else."""
    try:
        found = json.loads(read_text(file))
    except ValueError as error:
        raise MachineError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise MachineError(f"{file} should be a list of prompts")
    if any(map(unencodable, found)):
        raise MachineError(f"{file} holds {HALF}")
    return [text.strip() for text in found if text.strip()]


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value).strip()
