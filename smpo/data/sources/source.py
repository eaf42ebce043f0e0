"""What every format of preference data comes down to: rows that state something about two pictures.

A source knows where its files are, what each row of them states, and how to fetch a picture's bytes again. Naming and
decoding pictures (`smpo.data.pairs.index`), counting votes and dropping defects (`smpo.data.pairs.table`) are the same
for all. Imports no torch, so that a recipe can check itself and count its rows for `smpo plan`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from smpo.data.sources.remote import AnyFile, RemoteFile

__all__ = [
    "Claim",
    "Part",
    "Pictures",
    "Place",
    "Source",
    "Stated",
    "file_digest",
    "of_labels",
    "of_votes",
    "part_name",
]

Place = tuple[int, int, int]
"""Where a picture's bytes are within its part; what the numbers mean is the source's business."""


@dataclass(frozen=True)
class Part:
    """One file of a source. `digest` is the content hash of everything that its rows depend on."""

    name: str
    digest: str


@dataclass(frozen=True)
class Stated:
    """A row's label of its two pictures: `share` of `votes` went to the first; `defect` is why it can't be used.

    `share` is None without a usable label."""

    share: float | None
    votes: int = 1
    defect: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Claim:
    """One row: words, pictures as bytes (empty where there are none), where these lie, and what is stated."""

    row: int
    caption: Any
    pictures: tuple[bytes, bytes]
    places: tuple[Place, Place]
    stated: Stated


class Pictures(Protocol):
    """The bytes of single pictures."""

    def read(self, part: int, a: int, b: int, c: int) -> bytes:
        """Raises `MachineError` when the file has gone."""
        ...


class Source(ABC):
    """Rows of a data set, part after part."""

    pictures: Pictures
    reading: str = ""
    """How rows are read (columns, rules): part of the name under which a part's index is stored."""
    settings: dict[str, Any]
    """For the data report."""
    missing_files: int = 0
    """Files of a numbered series that aren't there."""

    def look(self) -> None:  # noqa: B027 -- most have nothing to look at
        """Whether the first file is of the right kind, from its first bytes. Raises `MachineError`."""

    @abstractmethod
    def parts(self) -> Iterator[Part]:
        """In reading order. A part may be hashed when it is reached, not before."""

    @abstractmethod
    def claims(self, part: int) -> Iterator[list[Claim]]:
        """The rows of a part, in storage order, a few at a time."""

    @abstractmethod
    def rows(self, part: int) -> int:
        """How many claims to expect, for a progress bar."""


def part_name(file: AnyFile, root: Path | str) -> str:
    """Within the data's folder: reports travel, machines' paths needn't."""
    if isinstance(file, RemoteFile) or file == root:
        return file.name
    return file.relative_to(root).as_posix()


def file_digest(file: AnyFile) -> str:
    """SHA-256 of the whole file. Size and time stamp would be quicker, and wrong after a copy or an edit. Of a file
    that lies elsewhere, of its server's description."""
    if isinstance(file, RemoteFile):
        return file.digest()
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_labels(first: Any, second: Any) -> Stated:
    """Labels of one vote: 1 and 0, 0 and 1, or a half each for a tie."""
    told = f"{_told(first)}, {_told(second)}"
    numbers = [_number(first), _number(second)]
    if numbers[0] is None or numbers[1] is None:
        return Stated(None, defect="no_label", detail=told)
    if min(numbers[0], numbers[1]) < 0 or abs(numbers[0] + numbers[1] - 1) > 1e-6:
        return Stated(None, defect="contradictory_labels", detail=told)
    return Stated(numbers[0])


def of_votes(first: Any, second: Any) -> Stated:
    """How many people preferred each."""
    numbers = [_number(first), _number(second)]
    if numbers[0] is None or numbers[1] is None or numbers[0] + numbers[1] == 0:
        return Stated(None, defect="no_label", detail=f"votes {_told(first)}, {_told(second)}")
    if min(numbers[0], numbers[1]) < 0 or any(number != round(number) for number in numbers if number):
        return Stated(None, defect="contradictory_labels", detail=f"votes {_told(first)}, {_told(second)}")
    total = numbers[0] + numbers[1]
    return Stated(numbers[0] / total, round(total))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _told(value: Any) -> str:
    return str(value)[:40]
