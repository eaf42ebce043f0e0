"""Rows in JSON, JSON lines or parquet, pictures in a folder beside them.

Paths are untrusted: one that is absolute or leaves the folder is a defect and isn't opened.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from smpo.data.sources.formats import Interpret, Shown
from smpo.data.sources.record_store import RecordStore
from smpo.data.sources.source import Claim, Part, Source, Stated, file_digest
from smpo.data.sources.text_files import HALF, unencodable
from smpo.errors import MachineError

__all__ = ["FolderPairs", "read_records"]

BATCH, PORTION, GLANCE = 64, 1024, 100
CHUNK = 1 << 20
"""Characters of a JSON list that are read at once."""

_BLANK = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()

Regroup = Callable[[Iterable[Mapping[str, Any]]], Iterable[Mapping[str, Any]]]


def read_records(file: Path) -> Iterator[Mapping[str, Any]]:
    """The records of a file one by one, by its ending: `.json` (a list), `.jsonl`, `.parquet`. Raises `MachineError`,
    perhaps only on the way."""
    try:
        for one in _rows(file):
            if not isinstance(one, dict):
                raise MachineError(f"{file} isn't a list of records", help="give a JSON list of objects, or JSON lines")
            yield one
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise MachineError(f"{file} can't be read: {error}", help="fetch the file again; it may be cut off") from error


def _rows(file: Path) -> Iterator[Any]:
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=PORTION):
                yield from batch.to_pylist()
        return
    if file.suffix not in (".json", ".jsonl"):
        raise MachineError(
            f"{file} is no list of records",
            help="JSON (a list of objects), JSON lines and parquet are read",
        )
    with file.open(encoding="utf-8-sig") as stream:
        if file.suffix == ".jsonl":
            yield from (json.loads(line) for line in stream if line.strip())
        else:
            yield from _listed(stream)


def _listed(stream: TextIO) -> Iterator[Any]:
    """The objects of a JSON list, without having the list in memory. Anything else gives a value that is no object."""
    text = more = stream.read(CHUNK)
    while more and not text.strip():
        text = more = stream.read(CHUNK)
    if not text.lstrip().startswith("["):
        yield [json.loads(text + stream.read())]  # no object: the reader raises
        return
    at, comma, empty = text.index("[") + 1, False, True
    while True:
        blank = _BLANK.match(text, at)
        assert blank is not None
        at = blank.end()
        if at == len(text):
            text, at = stream.read(CHUNK), 0
            if not text:
                raise ValueError("the list has no end")
        elif text[at] == "]" and (comma or empty):
            if (text[at + 1 :] + stream.read()).strip():
                raise ValueError("something stands behind the end of the list")
            return
        elif comma:
            if text[at] != ",":
                raise ValueError(f"a comma is expected where {text[at : at + 20]!r} stands")
            at, comma = at + 1, False
        elif text[at] != "{":
            yield text[at]
            return
        else:
            one, text, at = _decoded(text, at, stream)
            yield one
            comma, empty = True, False


def _decoded(text: str, at: int, stream: TextIO) -> tuple[Any, str, int]:
    """The object that begins here, reading on where it is cut off by the end of the chunk; the text, and where the
    object ends. Raises `ValueError` for a broken one."""
    size = CHUNK
    while True:
        try:
            one, end = _DECODER.raw_decode(text, at)
        except ValueError:
            more = stream.read(size)
            if not more:
                raise
            text, at, size = text[at:] + more, 0, 2 * size
        else:
            return one, text, end


def _sound(shown: Shown) -> Shown:
    """The same, or a defect whose texts can be stored."""
    texts = (shown.prompt if isinstance(shown.prompt, str) else "", *shown.images)
    if not any(map(unencodable, texts)):
        return shown
    prompt, first, second = (text.encode("utf-8", "replace").decode() for text in texts)
    return Shown(prompt, (first, second), Stated(None, defect="broken_text", detail=HALF))


class FolderPairs(Source):
    """`annotations` name pictures under `images`; `interpret` reads a record, and `layouts` lists the entries
    of records, for each layout that it understands.

    A part's digest covers its annotations, and size and time of every picture that they name: hashing the pictures
    themselves would mean reading them all each time. A picture that changed under an old
    time stamp is noticed when it is used: its content is compared then."""

    def __init__(
        self,
        annotations: Sequence[Path],
        images: Path,
        *,
        interpret: Interpret,
        layouts: Sequence[Sequence[str]],
        rules: str,
        regroup: Regroup | None = None,
    ) -> None:
        self._files, self._images = list(annotations), images
        self._interpret, self._regroup, self._layouts = interpret, regroup, layouts
        self._shown: dict[int, RecordStore] = {}
        self._opening = threading.Lock()
        self.pictures = self
        self.reading = rules
        self.settings = {"format": rules}

    def look(self) -> None:
        file = self._files[0]
        found = {name for record in islice(read_records(file), GLANCE) for name in record}
        lacking = min(([name for name in layout if name not in found] for layout in self._layouts), key=len)
        if found and lacking:
            needed = ", or ".join(", ".join(layout) for layout in self._layouts)
            raise MachineError(
                f"no record of {file} has {' or '.join(f'`{name}`' for name in lacking)}",
                help=f"these entries are needed: {needed}; its records have {', '.join(sorted(found)[:20])}",
            )

    def parts(self) -> Iterator[Part]:
        for number, file in enumerate(self._files):
            digest = hashlib.sha256(file_digest(file).encode())
            for name in self._part(number).names():
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
        for some in self._part(part).portions(BATCH):
            yield [self._claim(number, shown) for number, shown in some]

    def read(self, part: int, a: int, b: int, c: int) -> bytes:
        """Of statement `a`, picture `b`."""
        name = self._part(part)[a].images[b]
        place = self._place(name)
        try:
            if place is not None:
                return place.read_bytes()
        except OSError as error:
            raise MachineError(f"{place} can't be read: {error.strerror}", help="has the data moved?") from error
        raise MachineError(f"`{name}` leaves the folder of the data")

    def _part(self, number: int) -> RecordStore:
        with self._opening:  # of several threads that want pictures one reads the file
            if number not in self._shown:
                records: Iterable[Mapping[str, Any]] = read_records(self._files[number])
                records = records if self._regroup is None else self._regroup(records)
                self._shown[number] = RecordStore(
                    _sound(shown) for record in records for shown in self._interpret(record)
                )
            return self._shown[number]

    def _claim(self, number: int, shown: Shown) -> Claim:
        pictures, stated = [], shown.stated
        for name in shown.images:
            place, data = self._place(name), b""
            try:
                if place is not None and not place.is_file():  # a pipe or device would be waited for
                    raise FileNotFoundError(name)
                data = place.read_bytes() if place is not None else b""
            except OSError:
                stated = Stated(None, defect="missing_image", detail=name[:200])
            if not name:
                stated = Stated(None, defect="missing_image", detail="the record names none")
            elif place is None:
                stated = Stated(None, defect="foreign_path", detail=name[:200])
            pictures.append(data)
        if shown.stated.defect == "broken_text":  # then the pictures' names may be other names
            stated = shown.stated
        return Claim(number, shown.prompt, (pictures[0], pictures[1]), ((number, 0, 0), (number, 1, 0)), stated)

    def _place(self, name: str) -> Path | None:
        """None for a path that leaves the folder."""
        path = PurePosixPath(name.replace("\\", "/"))
        if not path.parts or path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive or "\0" in name:
            return None
        return self._images / path
