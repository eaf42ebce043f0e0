"""Every row of a data set as it lies there, sound or not, and every image once.

Rows are columns of numbers, some forty bytes each; a `Row` is made of those that are shown. `benchmarks/load_data.py`
measures what an audit takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from smpo.data.audit.groups import Groups, grouped
from smpo.data.audit.images import Images
from smpo.data.pairs.index import CHOICES, DEFECTS
from smpo.data.pairs.interning import Array, Growing, Interner, hashed, raw
from smpo.data.pairs.table import indexed
from smpo.data.progress import Progress
from smpo.data.sources.source import Source
from smpo.imaging import decode
from smpo.kinds import PairTable

__all__ = ["REASONS", "SHOWN", "AuditRows", "Row", "audit_rows_of_table", "read_audit_rows"]

SHOWN = 6
"""Examples of each finding. All are counted, and no more are listed."""

REASONS = ["", *CHOICES, *DEFECTS]
"""What `AuditRows.defect` numbers."""

PORTION = 10_000
"""Prompts that are texts of Python's own at once."""

_COLUMNS = {
    "part": np.int32, "row": np.int64, "caption": np.int32, "first": np.int32, "second": np.int32,
    "share": np.float64, "votes": np.int32, "defect": np.int8,
}  # fmt: skip


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
    def where(self) -> str:
        return f"{self.file}, row {self.row}"

    @property
    def pair(self) -> tuple[str, str, str]:
        """What was shown, in either order."""
        return (self.caption, *sorted((self.first, self.second)))  # type: ignore[return-value]


@dataclass
class AuditRows:
    """Rows in storage order, in columns `[N]`: numbers of the part, of the row in it, of the caption, of both images
    (-1 where there is none), the share of `votes` that went to the first (NaN where the row has no usable label), and
    the number of the defect in `REASONS`, 0 for a sound row."""

    part: Array
    row: Array
    caption: Array
    first: Array
    second: Array
    share: Array
    votes: Array
    defect: Array
    captions: Any
    """Every text once, in Arrow."""
    name: Callable[[int], str]
    """The id of an image, by its number."""
    sizes: Array
    """`[I, 2]` width and height of images; 0 where an image can't be read."""
    parts: list[dict[str, Any]] = field(default_factory=list)
    details: dict[int, str] = field(default_factory=dict)
    """Words on the first few rows of each defect."""
    images: Images | None = None
    """None where the data has no pictures."""
    picture: Callable[[str], Image.Image] | None = None
    """An image by its id; None where the data has no pictures."""

    def __len__(self) -> int:
        return len(self.row)

    @property
    def sound(self) -> Array:
        """Which rows can be trained on."""
        return np.flatnonzero(self.defect == 0)

    def pairs(self, rows: Array) -> Groups:
        """These rows by what was shown, in either order."""
        first, second = self.first[rows], self.second[rows]
        return grouped(self.caption[rows], np.minimum(first, second), np.maximum(first, second))

    def winners(self, rows: Array) -> Array:
        """The image that was preferred; the first one in a tie."""
        found: Array = np.where(self.share[rows] < 0.5, self.second[rows], self.first[rows])
        return found

    def __getitem__(self, i: int) -> Row:
        share = float(self.share[i])
        return Row(
            file=self.parts[int(self.part[i])]["name"] if self.parts else "pairs",
            row=int(self.row[i]),
            caption=self.text(int(self.caption[i])),
            first=self._image(self.first[i]),
            second=self._image(self.second[i]),
            share=None if np.isnan(share) else share,
            votes=int(self.votes[i]),
            defect=REASONS[int(self.defect[i])],
            detail=self.details.get(int(i), ""),
        )

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def some(self, rows: Iterable[int], most: int = SHOWN) -> list[Row]:
        return [self[int(i)] for i in islice(rows, most)]

    def text(self, caption: int) -> str:
        return str(self.captions[caption].as_py())

    def texts(self, captions: Array) -> Iterator[list[str]]:
        """Captions by their numbers, some thousand at a time."""
        for start in range(0, len(captions), PORTION):
            yield self.captions.take(pa.array(captions[start : start + PORTION])).to_pylist()

    def size_of(self, image: int) -> str:
        width, height = self.sizes[image].tolist()
        return f"{width}×{height}"

    def _image(self, number: Any) -> str:
        return self.name(int(number)) if number >= 0 else ""


class _Writer:
    """Columns as they grow, and captions numbered."""

    def __init__(self) -> None:
        self._columns = {name: Growing(kind) for name, kind in _COLUMNS.items()}
        self._numbers, self._captions = Interner(16), [pa.array([], pa.string())]

    def __len__(self) -> int:
        return len(self._columns["row"])

    def add(self, captions: pa.Array, **columns: Any) -> None:
        columns["caption"], fresh = self._numbers(hashed(captions))
        self._captions.append(captions.take(pa.array(fresh)))
        for name, column in self._columns.items():
            column.extend(np.asarray(columns[name], column.values.dtype))

    def book(self, **more: Any) -> AuditRows:
        columns: dict[str, Any] = {name: column.values for name, column in self._columns.items()}
        return AuditRows(**columns, captions=pa.chunked_array(self._captions, pa.string()), **more)


def read_audit_rows(source: Source, *, cache: Path | None = None, progress: Progress | None = None) -> AuditRows:
    """Read everything; files whose index is stored aren't decoded again."""
    writer, images = _Writer(), Images()
    parts: list[dict[str, Any]] = []
    details: dict[int, str] = {}
    told = np.zeros(len(REASONS), int)
    for batch in indexed(source, parts, cache=cache, progress=progress, light=False):
        first, second = (_images(images, batch, side, len(parts) - 1) for side in (0, 1))
        defect = pc.index_in(batch.column("defect"), pa.array(REASONS)).to_numpy(zero_copy_only=False)
        for reason in np.unique(defect[defect > 0]).tolist():
            for i in np.flatnonzero(defect == reason)[: SHOWN - told[reason]].tolist():
                details[len(writer) + i] = batch.column("detail")[i].as_py()
                told[reason] += 1
        writer.add(
            batch.column("caption"),
            part=np.full(batch.num_rows, len(parts) - 1), first=first, second=second, defect=defect,
            **{name: batch.column(name).to_numpy(zero_copy_only=False) for name in ("row", "share", "votes")},
        )  # fmt: skip
        parts[-1]["rows"] += batch.num_rows

    def picture(name: str) -> Image.Image:
        return decode(source.pictures.read(*images.place(images.find(name))))

    return writer.book(
        name=images.name, sizes=images.sizes, parts=parts, details=details, images=images, picture=picture
    )


def _images(images: Images, batch: pa.RecordBatch, side: int, part: int) -> Array:
    """`[N]`: numbers of one side's images; -1 where there is none."""
    numbers = np.full(batch.num_rows, -1, np.int32)
    there = np.flatnonzero(pc.not_equal(batch.column(f"image_{side}"), "").to_numpy(zero_copy_only=False))
    if len(there):
        some = batch.take(pa.array(there))

        def told(*names: str) -> Array:
            columns = [some.column(name).fill_null(0).to_numpy(zero_copy_only=False) for name in names]
            return np.stack(columns, axis=1)

        places = np.insert(told(*(f"{letter}{side}" for letter in "abc")), 0, part, axis=1)
        sizes, copies = told(f"width_{side}", f"height_{side}"), some.column(f"print_{side}").to_pylist()
        numbers[there] = images.add(raw(some.column(f"image_{side}")), sizes, places, copies)
    return numbers


def audit_rows_of_table(table: PairTable) -> AuditRows:
    """For data that has no rows of its own: its pairs, without pictures."""
    writer, numbers = _Writer(), dict[str, int]()
    for start in range(0, len(table), PORTION):
        here = range(start, min(start + PORTION, len(table)))
        pairs = [table[i] for i in here]
        writer.add(
            pa.array([one.prompt for one in pairs], pa.string()),
            part=np.zeros(len(here)), row=here, defect=np.zeros(len(here)),
            first=[numbers.setdefault(one.winner, len(numbers)) for one in pairs],
            second=[numbers.setdefault(one.loser, len(numbers)) for one in pairs],
            share=[one.share for one in pairs], votes=[one.votes for one in pairs],
        )  # fmt: skip
    names: Sequence[str] = list(numbers)
    return writer.book(name=names.__getitem__, sizes=np.zeros((len(names), 2), np.int32))
