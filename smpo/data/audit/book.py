"""Every row of a data set as it lies there, sound or not, and every image once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from smpo.data.index import PRINT, Progress
from smpo.data.numbering import Growing
from smpo.data.source import Source
from smpo.data.table import indexed
from smpo.imaging import decode
from smpo.kinds import PairTable

__all__ = ["Book", "Look", "Looks", "Row", "open_book", "table_book"]

BYTES = PRINT * PRINT * 3
"""Of a tiny copy."""


@dataclass(frozen=True, slots=True)
class Row:
    """`share` of `votes` went to `first`; both are content ids, empty where there is no image."""

    file: str
    row: int
    caption: str
    first: str
    second: str
    share: float | None
    votes: int
    defect: str = ""
    detail: str = ""

    @property
    def sound(self) -> bool:
        return not self.defect

    @property
    def where(self) -> str:
        return f"{self.file}, row {self.row}"

    @property
    def pair(self) -> tuple[str, str, str]:
        """What was shown, in either order."""
        return (self.caption, *sorted((self.first, self.second)))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Look:
    """An image: its size, and where its bytes are (part, then the source's own numbers)."""

    width: int
    height: int
    place: tuple[int, int, int, int]


class Looks(Mapping[str, Look]):
    """Images by their ids, in columns: a million looks as objects are a gigabyte. The tiny copies, most of it, lie in a
    file that has no name and goes with the process."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._sizes, self._places = Growing(np.int32, (2,)), Growing(np.int64, (4,))
        self._copies = tempfile.TemporaryFile(prefix="smpo-copies-")  # noqa: SIM115 -- as long as this lives

    def __len__(self) -> int:
        return len(self._number)

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __contains__(self, name: object) -> bool:
        return name in self._number

    def __getitem__(self, name: str) -> Look:
        number = self._number[name]
        width, height = self._sizes.values[number].tolist()
        part, a, b, c = self._places.values[number].tolist()
        return Look(width, height, (part, a, b, c))

    def copy_of(self, name: str) -> bytes:
        """The tiny copy (`index.fingerprint`)."""
        self._copies.seek(self._number[name] * BYTES)
        return self._copies.read(BYTES)

    def add(self, name: str, look: Look, copy: bytes) -> None:
        """Unless it is known. All are added before the first is asked for its copy."""
        if name not in self._number:
            self._number[name] = len(self._number)
            self._sizes.extend(np.array([[look.width, look.height]]))
            self._places.extend(np.array([look.place]))
            self._copies.write(copy)


@dataclass
class Book:
    """Rows in storage order; `looks` of the images that could be decoded."""

    rows: list[Row] = field(default_factory=list)
    looks: Looks = field(default_factory=Looks)
    parts: list[dict[str, Any]] = field(default_factory=list)
    picture: Callable[[str], Image.Image] | None = None
    """An image by its id; None where the data has no pictures."""


def open_book(source: Source, *, cache: Path | None = None, progress: Progress | None = None) -> Book:
    """Read everything; what is remembered of the files isn't decoded again."""
    book = Book()
    known: dict[Any, Any] = {}  # texts and numbers that recur, so that there is one of each

    def same(value: Any) -> Any:
        return known.setdefault(value, value)

    batches = indexed(source, book.parts, cache=cache, progress=progress, light=False)
    for values in (values for batch in batches for values in batch.to_pylist()):
        names = tuple(same(values[f"image_{side}"]) for side in (0, 1))
        book.rows.append(
            Row(
                file=book.parts[-1]["name"],
                row=values["row"],
                caption=same(values["caption"]),
                first=names[0],
                second=names[1],
                share=same(values["share"]),
                votes=values["votes"],
                defect=same(values["defect"]),
                detail=same(values["detail"]),
            )
        )
        book.parts[-1]["rows"] += 1
        for side, name in enumerate(names):
            if values[f"print_{side}"] is not None:
                part, a, b, c = len(book.parts) - 1, *(values[f"{letter}{side}"] for letter in "abc")
                look = Look(values[f"width_{side}"], values[f"height_{side}"], (part, a, b, c))
                book.looks.add(name, look, values[f"print_{side}"])

    def picture(name: str) -> Image.Image:
        return decode(source.pictures.read(*book.looks[name].place))

    book.picture = picture
    return book


def table_book(table: PairTable) -> Book:
    """For data that has no rows of its own: its pairs, without pictures."""
    pairs = [table[index] for index in range(len(table))]
    rows = [
        Row("pairs", i, one.prompt, one.winner, one.loser, one.share, one.votes)
        for i, one in enumerate(pairs)
    ]
    return Book(rows)
