"""Prompts out of published files: tables with a header, objects a line, lists of texts."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smpo.errors import MachineError

__all__ = ["read_list", "read_table"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LARGEST = 64 * 2**20
"""Bytes; the largest published set has a hundredth of it, so more is another file."""


def read_table(file: Path, column: str, category: str | None) -> list[tuple[str, str]]:
    """`(text, category)` of each row whose text isn't empty, in the file's order; no category is "".

    Raises `MachineError` for files that can't be read, kinds that aren't known, and columns that aren't there.
    """
    text, kind = _text(file), file.suffix.lower()
    if kind in _DELIMITERS:
        reader = csv.DictReader(text.splitlines(), delimiter=_DELIMITERS[kind])
        names, rows = list(reader.fieldnames or ()), list[Mapping[str, Any]](reader)
    elif kind == ".jsonl":
        rows = list(_objects(file, text))
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
        found = json.loads(_text(file))
    except ValueError as error:
        raise MachineError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise MachineError(f"{file} should be a list of prompts")
    return [text.strip() for text in found if text.strip()]


def _objects(file: Path, text: str) -> Iterable[Mapping[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise MachineError(f"{file}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise MachineError(f'{file}, line {number} should be an object such as {{"prompt": "a dog"}}')
        yield row


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value).strip()


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST:
            raise MachineError(f"{file} has {file.stat().st_size / 2**20:.0f} MiB: too much for a list of prompts")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(
            f"the prompts in {file} can't be read: {error}", help="point `evaluate.prompts.path` at a copy"
        ) from error
