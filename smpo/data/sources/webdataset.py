"""WebDataset tars: files of one sample share the name before the first dot; the rest of the name is their kind.

Members are read where they lie, by offset and length; nothing is ever unpacked, so no name in an archive can reach the
disk. Links and devices in an archive are passed over.
"""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smpo.data.sources.formats import Chosen
from smpo.data.sources.parquet import files_below
from smpo.data.sources.remote import AnyFile, RemoteFile, Stream, bytes_of, remote_files
from smpo.data.sources.source import Claim, Part, Source, Stated, file_digest, part_name
from smpo.errors import MachineError

__all__ = ["TarPairs", "find_tars"]

BATCH = 64
LARGEST_TEXT = 1 << 20
"""Bytes of a prompt or of a sample's JSON."""


def find_tars(path: Path | str) -> list[AnyFile]:
    """A tar, or the tars of a folder, here or at an address, by name. Raises `MachineError`."""
    if isinstance(path, str):
        return list(remote_files(path, ".tar"))
    if path.is_file():
        return [path]
    found: list[AnyFile] = [*files_below(path, ".tar")]
    if not found:
        raise MachineError(f"no *.tar file at {path}", help="give a tar, or a folder of them; unpack .tar.gz to .tar")
    return found


@dataclass
class _Sample:
    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What follows the first dot of the name -> offset and length."""


class TarPairs(Source):
    """`first`, `second` are the endings of the two pictures (`chosen.jpg`; `chosen` takes any format), `prompt` that of
    a text file (`txt`) or a name inside the sample's JSON (`json:prompt`); `state` reads the same JSON."""

    def __init__(self, path: Path | str, *, prompt: str, first: str, second: str, state: Chosen) -> None:
        self._files = find_tars(path)
        self._root = path
        self._prompt, self._sides, self._state = prompt, (first, second), state
        self._open: tuple[int, Stream] | None = None
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self.pictures = self
        self.reading = f"webdataset {json.dumps([prompt, first, second])} {state}"
        self.settings = {"format": "webdataset"}

    def parts(self) -> Iterator[Part]:
        for file in self._files:
            yield Part(part_name(file, self._root), file_digest(file))

    def rows(self, part: int) -> int:
        return 0

    def claims(self, part: int) -> Iterator[list[Claim]]:
        waiting: list[Claim] = []
        for number, sample in enumerate(self._samples(part)):
            waiting.append(self._claim(part, number, sample))
            if len(waiting) == BATCH:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def read(self, part: int, a: int, b: int, c: int) -> bytes:
        """`b` bytes at offset `a`."""
        file = self._files[part]
        if not isinstance(file, RemoteFile):
            return bytes_of(file, a, b)
        try:
            with self._reading:  # another thread may want another tar, which closes this one
                return self._streamed(part).at(a, b)
        except OSError as error:
            raise MachineError(f"{file} can't be read: {error}", help="is the connection up?") from error

    def _streamed(self, part: int) -> Stream:
        """The last remote tar that was opened: what was fetched of it to find its members holds their bytes too."""
        with self._lock:
            if self._open is None or self._open[0] != part:
                if self._open is not None:
                    self._open[1].close()
                file = self._files[part]
                assert isinstance(file, RemoteFile)
                self._open = (part, file.open())
            return self._open[1]

    def _samples(self, part: int) -> Iterator[_Sample]:
        """Neighbours with one key are one sample, as WebDataset has it."""
        file, sample = self._files[part], _Sample("")
        try:
            # `r:` is uncompressed: else offsets would mean nothing. A remote file has one stream for its members' names
            # and their bytes, so that nothing is fetched twice.
            opened = nullcontext(self._streamed(part)) if isinstance(file, RemoteFile) else file.open("rb")
            with opened as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    folder, _, name = member.name.rpartition("/")
                    stem, dot, ending = name.partition(".")
                    if not member.isreg() or member.issparse() or not dot or not stem:
                        continue
                    if sample.key != f"{folder}/{stem}":
                        if sample.members:
                            yield sample
                        sample = _Sample(f"{folder}/{stem}")
                    sample.members[ending.lower()] = (member.offset_data, member.size)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise MachineError(
                f"{file} can't be read as a tar: {error}",
                help="fetch it again; compressed tars must be unpacked to .tar",
            ) from error
        if sample.members:
            yield sample

    def _claim(self, part: int, number: int, sample: _Sample) -> Claim:
        values, trouble = self._json(part, sample)
        pictures, places = [], []
        for side in self._sides:
            offset, length = self._member(sample, side) or (0, 0)
            pictures.append(self.read(part, offset, length, 0) if length else b"")
            places.append((offset, length, 0))
        stated = Stated(None, defect="no_label", detail=trouble) if trouble else self._state(values)
        caption: Any = None
        if self._prompt.startswith("json:"):
            caption = values.get(self._prompt.removeprefix("json:"))
        elif text := self._member(sample, self._prompt):
            try:
                caption = self.read(part, text[0], min(text[1], LARGEST_TEXT), 0).decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                stated = Stated(None, defect="broken_text", detail=f"{sample.key}.{self._prompt}: {error.reason}")
        return Claim(number, caption, (pictures[0], pictures[1]), (places[0], places[1]), stated)

    def _json(self, part: int, sample: _Sample) -> tuple[dict[str, Any], str]:
        found = sample.members.get("json")
        if found is None or not (self._state.needed or self._prompt.startswith("json:")):
            return {}, ""
        if found[1] > LARGEST_TEXT:
            return {}, f"{sample.key}.json has {found[1]:,} bytes"
        try:
            values = json.loads(self.read(part, *found, 0))
        except (ValueError, RecursionError):
            return {}, f"{sample.key}.json can't be read"
        return (values, "") if isinstance(values, dict) else ({}, f"{sample.key}.json is no object")

    def _member(self, sample: _Sample, wanted: str) -> tuple[int, int] | None:
        """By the whole ending, or by what it begins with: `chosen` finds `chosen.jpg`."""
        if wanted in sample.members:
            return sample.members[wanted]
        matching = [place for name, place in sample.members.items() if name.startswith(f"{wanted}.")]
        return matching[0] if len(matching) == 1 else None
