"""Rows in JSON, JSON lines or parquet, pictures in a folder beside them.

Paths come from strangers: one that is absolute or climbs out of the folder is a defect, not a file to open.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smpo.data.formats import Interpret, Shown
from smpo.data.source import Claim, Part, Source, Stated, file_digest
from smpo.errors import MachineError

__all__ = ["FolderPairs", "read_records"]

BATCH = 64

Regroup = Callable[[Iterable[Mapping[str, Any]]], Iterable[Mapping[str, Any]]]


def read_records(file: Path) -> list[Mapping[str, Any]]:
    """All records of a file, by its ending: `.json` (a list), `.jsonl`, `.parquet`. Raises `MachineError`."""
    try:
        if file.suffix == ".parquet":
            found = pq.read_table(file).to_pylist()
        elif file.suffix == ".jsonl":
            found = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
        else:
            found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise MachineError(
            f"{file} can't be read: {error}", help="fetch the file again; it may be cut off"
        ) from error
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise MachineError(
            f"{file} isn't a list of records", help="give a JSON list of objects, or JSON lines"
        )
    return found


class FolderPairs(Source):
    """`annotations` name pictures under `images`; `interpret` says what a record states.

    A part's digest covers its annotations, and size and time of every picture that they name: hashing the pictures
    themselves would mean reading them all each time. Whoever changes a picture and puts its clock back is found out
    when the picture is used: its content is compared then."""

    def __init__(
        self,
        annotations: Sequence[Path],
        images: Path,
        *,
        interpret: Interpret,
        rules: str,
        regroup: Regroup | None = None,
    ) -> None:
        self._files, self._images = list(annotations), images
        self._interpret, self._regroup = interpret, regroup
        self._shown: dict[int, list[Shown]] = {}
        self.pictures = self
        self.reading = rules
        self.settings = {"format": rules}

    def parts(self) -> Iterator[Part]:
        for number, file in enumerate(self._files):
            digest = hashlib.sha256(file_digest(file).encode())
            for name in sorted({name for shown in self._part(number) for name in shown.images}):
                place = self._place(name)
                try:
                    found = place.stat() if place is not None else None
                except OSError:
                    found = None
                digest.update(f"{name}\0{found and (found.st_size, found.st_mtime_ns)}\n".encode())
            yield Part(file.name, digest.hexdigest())

    def rows(self, part: int) -> int:
        return len(self._part(part))

    def claims(self, part: int) -> Iterator[list[Claim]]:
        shown = self._part(part)
        for start in range(0, len(shown), BATCH):
            yield [
                self._claim(number, shown[number]) for number in range(start, min(start + BATCH, len(shown)))
            ]

    def read(self, part: int, a: int, b: int, c: int) -> bytes:
        """Of statement `a`, picture `b`."""
        name = self._part(part)[a].images[b]
        place = self._place(name)
        try:
            if place is not None:
                return place.read_bytes()
        except OSError as error:
            raise MachineError(
                f"{place} can't be read: {error.strerror}", help="has the data moved?"
            ) from error
        raise MachineError(f"`{name}` leaves the folder of the data")

    def _part(self, number: int) -> list[Shown]:
        if number not in self._shown:
            records: Iterable[Mapping[str, Any]] = read_records(self._files[number])
            records = records if self._regroup is None else self._regroup(records)
            self._shown[number] = [shown for record in records for shown in self._interpret(record)]
        return self._shown[number]

    def _claim(self, number: int, shown: Shown) -> Claim:
        pictures, stated = [], shown.stated
        for name in shown.images:
            place, data = self._place(name), b""
            try:
                data = place.read_bytes() if place is not None else b""
            except OSError:
                stated = Stated(None, defect="missing_image", detail=name[:200])
            if place is None:
                stated = Stated(None, defect="foreign_path", detail=name[:200])
            pictures.append(data)
        return Claim(
            number, shown.prompt, (pictures[0], pictures[1]), ((number, 0, 0), (number, 1, 0)), stated
        )

    def _place(self, name: str) -> Path | None:
        """None for a path that leaves the folder."""
        path = PurePosixPath(name.replace("\\", "/"))
        if not name or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
            return None
        return self._images / path
