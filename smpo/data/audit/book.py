"""Every row of a data set as it lies there, sound or not, and every image once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from smpo.data.index import Progress
from smpo.data.source import Source
from smpo.data.table import indexed
from smpo.imaging import decode
from smpo.kinds import PairTable

__all__ = ["Book", "Look", "Row", "open_book", "table_book"]


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
    """An image: its size, its tiny copy, and where its bytes are (part, then the source's own numbers)."""

    width: int
    height: int
    print: bytes
    place: tuple[int, int, int, int]


@dataclass
class Book:
    """Rows in storage order; `looks` of the images that could be decoded."""

    rows: list[Row] = field(default_factory=list)
    looks: dict[str, Look] = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)
    picture: Callable[[str], Image.Image] | None = None
    """An image by its id; None where the data has no pictures."""


def open_book(source: Source, *, cache: Path | None = None, progress: Progress | None = None) -> Book:
    """Read everything; what is remembered of the files isn't decoded again."""
    book = Book()
    batches = indexed(source, book.parts, cache=cache, progress=progress, light=False)
    for values in (values for batch in batches for values in batch.to_pylist()):
        book.rows.append(
            Row(
                file=book.parts[-1]["name"],
                row=values["row"],
                caption=values["caption"],
                first=values["image_0"],
                second=values["image_1"],
                share=values["share"],
                votes=values["votes"],
                defect=values["defect"],
                detail=values["detail"],
            )
        )
        book.parts[-1]["rows"] += 1
        for side in (0, 1):
            name = values[f"image_{side}"]
            if values[f"print_{side}"] is not None and name not in book.looks:
                place = (len(book.parts) - 1, *(values[f"{letter}{side}"] for letter in "abc"))
                size = values[f"width_{side}"], values[f"height_{side}"]
                book.looks[name] = Look(*size, values[f"print_{side}"], place)

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
