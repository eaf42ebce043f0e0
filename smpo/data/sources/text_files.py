"""One reader of text that other people wrote: byte order marks, encodings, line ends, quotes, lone surrogates."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smpo.errors import MachineError

__all__ = ["HALF", "json_lines", "lines_of", "read_text", "table_rows", "unencodable"]

HALF = "half a character (a lone surrogate)"
_LARGEST = 64 * 2**20
"""Bytes; the largest published set of prompts has a hundredth of it."""
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark, its line ends as they are. Raises `MachineError`."""
    try:
        if (size := file.stat().st_size) > _LARGEST:
            raise MachineError(f"{file} has {size / 2**20:.0f} MiB: too much for a list of prompts")
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise MachineError(
            f"{file}, line {number} is not UTF-8 (byte {error.object[error.start]:#04x})",
            help="save the file as UTF-8, for example by `iconv -f latin1 -t utf-8`",
        ) from error
    except OSError as error:
        raise MachineError(f"{file} can't be read: {error}", help="give the path of a copy") from error


def lines_of(text: str) -> Iterator[str]:
    """Lines end in a line feed, with or without a carriage return; other separators of Unicode belong to a line."""
    return (line.removesuffix("\r") for line in text.split("\n"))


def unencodable(text: str) -> bool:
    """Whether a text can't be written as UTF-8: JSON can hold half of a character (a lone surrogate, `\\ud800`)."""
    return any("\ud800" <= char <= "\udfff" for char in text)


def json_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl file, one a line. Raises `MachineError` with the line."""
    for number, line in enumerate(lines_of(read_text(file)), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MachineError(f"{file}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise MachineError(f'{file}, line {number} should be an object such as {{"prompt": "a dog"}}')
        if any(isinstance(value, str) and unencodable(value) for value in row.values()):
            raise MachineError(f"{file}, line {number} holds {HALF}")
        yield row


def table_rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """`(columns, rows)` of a .csv or .tsv file with a header. Raises `MachineError` for a row with more fields than the
    header, with its line. A cell of a .csv may hold line breaks in quotes; of a .tsv, quotes that don't end on their
    line are text."""
    text, delimiter = read_text(file), _DELIMITERS[file.suffix.lower()]
    limit = csv.field_size_limit(max(len(text), 1))
    try:
        records = list(_records(text, delimiter, csv.QUOTE_MINIMAL))
        if delimiter == "\t" and any("\n" in cell for _, row in records for cell in row):
            records = list(_records(text, delimiter, csv.QUOTE_NONE))
    except csv.Error as error:
        raise MachineError(f"{file} is not a table: {error}", help="save it again as .csv, or as .jsonl") from error
    finally:
        csv.field_size_limit(limit)
    if not records:
        return [], []
    names = records[0][1]
    for number, row in records[1:]:
        if len(row) > len(names):
            raise MachineError(
                f"{file}, line {number} has {len(row)} fields, and the header {len(names)}",
                help=f"a text that holds {delimiter!r} stands in quotes",
            )
    return names, [dict(zip(names, row, strict=False)) for _, row in records[1:] if row]


def _records(text: str, delimiter: str, quoting: Any) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
    yield from ((reader.line_num, row) for row in reader)
