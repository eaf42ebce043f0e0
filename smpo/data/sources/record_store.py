"""What records state of pictures, on disk while a process lives: a million of them are gigabytes as Python objects."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from smpo.data.sources.formats import Shown
from smpo.data.sources.source import Stated

__all__ = ["RecordStore"]

_TABLE = """
CREATE TABLE shown (
    number INTEGER PRIMARY KEY, prompt BLOB, first BLOB NOT NULL, second BLOB NOT NULL,
    share REAL, votes INTEGER NOT NULL, defect TEXT NOT NULL, detail BLOB NOT NULL
)
"""
PORTION = 1000


class RecordStore:
    """Statements by number, in the order in which they came. The file goes with the object."""

    def __init__(self, statements: Iterable[Shown]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="smpo-spool-")
        self._lock = threading.Lock()
        self._file = sqlite3.connect(Path(self._folder.name) / "shown.db", check_same_thread=False)
        self._file.execute("PRAGMA journal_mode=OFF")  # the file is of no use after a crash
        self._file.execute("PRAGMA synchronous=OFF")
        self._file.execute(_TABLE)
        self._size, coming = 0, iter(statements)
        while some := list(islice(coming, PORTION)):
            self._file.executemany(
                "INSERT INTO shown VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(self._size + i, *_row(one)) for i, one in enumerate(some)],
            )
            self._size += len(some)
        self._file.commit()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, number: int) -> Shown:
        found = self._ask("SELECT * FROM shown WHERE number = ?", number)
        if not found:
            raise IndexError(number)
        return _shown(found[0])

    def portions(self, size: int) -> Iterator[list[tuple[int, Shown]]]:
        """All of them with their numbers, so many at a time."""
        for start in range(0, self._size, size):
            rows = self._ask(
                "SELECT * FROM shown WHERE number >= ? AND number < ? ORDER BY number", start, start + size
            )
            yield [(row[0], _shown(row)) for row in rows]

    def names(self) -> Iterator[str]:
        """Every picture's once, in the order of their letters."""
        last = b""
        question = (
            "SELECT name FROM (SELECT first AS name FROM shown UNION SELECT second FROM shown) "
            "WHERE name > ? ORDER BY name LIMIT ?"
        )
        with self._lock:
            self._file.execute("CREATE INDEX IF NOT EXISTS by_first ON shown (first)")
            self._file.execute("CREATE INDEX IF NOT EXISTS by_second ON shown (second)")
        if self._ask("SELECT 1 FROM shown WHERE first = x'' OR second = x'' LIMIT 1"):
            yield ""
        while found := self._ask(question, last, PORTION * 100):
            yield from (name.decode("utf-8", "surrogatepass") for (name,) in found)
            last = found[-1][0]

    def _ask(self, question: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._file.execute(question, values).fetchall()


def _row(one: Shown) -> tuple[Any, ...]:
    """Texts as bytes: JSON may hold lone surrogates, which sqlite refuses."""
    prompt = one.prompt.encode("utf-8", "surrogatepass") if isinstance(one.prompt, str) else None
    first, second = (name.encode("utf-8", "surrogatepass") for name in one.images)
    said = one.stated
    return (
        prompt,
        first,
        second,
        said.share,
        said.votes,
        said.defect,
        said.detail.encode("utf-8", "surrogatepass"),
    )


def _shown(row: tuple[Any, ...]) -> Shown:
    _, prompt, first, second, share, votes, defect, detail = row
    texts = [None if one is None else one.decode("utf-8", "surrogatepass") for one in (prompt, first, second, detail)]
    return Shown(texts[0], (texts[1] or "", texts[2] or ""), Stated(share, votes, defect, texts[3] or ""))
