"""WebDataset tars: files of one sample share the name before the first dot, what follows says what they are.

Members are read where they lie, by offset and length; nothing is ever unpacked, so no name in an archive can reach the
disk. Links and devices in an archive are passed over.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smpo.data.formats import Chosen
from smpo.data.source import Claim, Part, Source, Stated, file_digest
from smpo.errors import MachineError

__all__ = ["TarPairs", "find_tars"]

BATCH = 64
LARGEST_TEXT = 1 << 20
"""Bytes of a prompt or of a sample's JSON."""


def find_tars(path: Path) -> list[Path]:
    """A tar, or the tars of a folder, by name. Raises `MachineError`."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*.tar") if file.is_file())
    if not found:
        raise MachineError(
            f"no *.tar file at {path}", help="give a tar, or a folder of them; unpack .tar.gz to .tar"
        )
    return found


@dataclass
class _Sample:
    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What follows the first dot of the name -> offset and length."""


class TarPairs(Source):
    """`first`, `second` are the endings of the two pictures (`chosen.jpg`; `chosen` takes any format), `prompt` that of
    a text file (`txt`) or a name inside the sample's JSON (`json:prompt`); `state` reads the same JSON."""

    def __init__(self, path: Path, *, prompt: str, first: str, second: str, state: Chosen) -> None:
        self._files = find_tars(path)
        self._root = path
        self._prompt, self._sides, self._state = prompt, (first, second), state
        self.pictures = self
        self.reading = f"webdataset {json.dumps([prompt, first, second])} {state}"
        self.settings = {"format": "webdataset"}

    def parts(self) -> Iterator[Part]:
        for file in self._files:
            name = file.relative_to(self._root).as_posix() if file != self._root else file.name
            yield Part(name, file_digest(file))

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
        try:
            with self._files[part].open("rb") as stream:
                stream.seek(a)
                return stream.read(b)
        except OSError as error:
            raise MachineError(
                f"{self._files[part]} can't be read: {error.strerror}", help="has it moved?"
            ) from error

    def _samples(self, part: int) -> Iterator[_Sample]:
        """Neighbours with one key are one sample, as WebDataset has it."""
        file, sample = self._files[part], _Sample("")
        try:
            with tarfile.open(file, "r:") as archive:  # uncompressed: else offsets mean nothing
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
            caption = (
                self.read(part, text[0], min(text[1], LARGEST_TEXT), 0).decode("utf-8", "replace").strip()
            )
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
