"""Every image of a data set once: its size in memory, all else of it in a file.

A million rows show two million images. As objects with their tiny copies they would be gigabytes; here each takes some
thirty bytes of memory, and 240 of a file that has no name and goes with the process.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Sequence

import numpy as np

from smpo.data.pairs.index import PRINT
from smpo.data.pairs.interning import Array, Growing, Interner

__all__ = ["Images"]

COPY = PRINT * PRINT * 3
"""Bytes of a tiny copy."""

_FILED = struct.Struct(f"<16s4q{COPY}s")
"""Content id, place (part, and the source's own three numbers), tiny copy."""


class Images:
    """Images numbered in the order in which they are met. All are added before the first is read."""

    def __init__(self) -> None:
        self._numbers, self._sizes = Interner(16), Growing(np.int32, (2,))
        self._file = tempfile.TemporaryFile(prefix="smpo-images-")  # noqa: SIM115 -- as long as this lives

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def sizes(self) -> Array:
        """`[I, 2]` width and height; 0 for images that can't be decoded."""
        return self._sizes.values

    def add(self, ids: Array, sizes: Array, places: Array, copies: Sequence[bytes | None]) -> Array:
        """The numbers of these images. `ids` `[N]` 16 raw bytes each, `sizes` `[N, 2]`, `places` `[N, 4]`, `copies`
        `N` tiny copies (`index.fingerprint`), None where the image can't be decoded."""
        numbers, fresh = self._numbers(ids)
        self._sizes.extend(sizes[fresh])
        self._file.writelines(
            _FILED.pack(ids[i].tobytes(), *places[i].tolist(), copies[i] or b"") for i in fresh.tolist()
        )
        return numbers

    def find(self, name: str) -> int:
        """The number of an image. Raises `KeyError` for a foreign id."""
        key = np.frombuffer(bytes.fromhex(name), "V16")
        number = int(self._numbers.find(key)[0])
        if number < 0:
            raise KeyError(name)
        return number

    def name(self, number: int) -> str:
        """Its content id."""
        found: bytes = self._filed(number)[0]
        return found.hex()

    def place(self, number: int) -> tuple[int, int, int, int]:
        _, part, a, b, c, _ = self._filed(number)
        return part, a, b, c

    def copies(self, numbers: Sequence[int]) -> Array:
        """`[N, 192]` tiny copies."""
        found = b"".join(self._filed(number)[5] for number in numbers)
        return np.frombuffer(found, np.uint8).reshape(len(numbers), COPY)

    def _filed(self, number: int) -> tuple[bytes, int, int, int, int, bytes]:
        self._file.seek(number * _FILED.size)
        return _FILED.unpack(self._file.read(_FILED.size))
