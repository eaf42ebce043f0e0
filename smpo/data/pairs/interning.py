"""Distinct keys numbered in the order in which they are met, without a Python object for each.

A dictionary of a million strings takes some 200 MB; this takes the keys' own bytes and four more. Keys lie sorted in
two arrays, a large one and a small one of late arrivals that is merged into it now and then, so that a batch costs two
binary searches and the whole a few sorts.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["Array", "Growing", "Interner", "hashed", "raw"]

Array = np.ndarray[Any, Any]

LATE = 1 << 16
"""Late arrivals are merged when they are so many, and a quarter of all others."""


class Growing:
    """An array that things are put behind: `values` is what is there so far."""

    def __init__(self, dtype: Any, width: tuple[int, ...] = ()) -> None:
        self._room = np.empty((1024, *width), dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def extend(self, more: Array) -> None:
        needed = self._size + len(more)
        if needed > len(self._room):
            larger = np.empty((max(needed, len(self._room) * 3 // 2), *self._room.shape[1:]), self._room.dtype)
            larger[: self._size] = self.values
            self._room = larger
        self._room[self._size : needed] = more
        self._size = needed

    @property
    def values(self) -> Array:
        return self._room[: self._size]


class Interner:
    """`numbers, fresh = numbering(keys)`: keys are raw bytes of one width, `[N]` of dtype `V…`. `fresh` are positions
    in `keys` of those that were met for the first time, in the order of their new numbers."""

    def __init__(self, width: int) -> None:
        self._dtype = np.dtype(f"V{width}")
        self._many = (np.empty(0, self._dtype), np.empty(0, np.int32))
        self._late = self._many
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __call__(self, keys: Array) -> tuple[Array, Array]:
        numbers = self.find(keys)
        missing = np.flatnonzero(numbers < 0)
        if not len(missing):
            return numbers, missing
        distinct, first, which = np.unique(keys[missing], return_index=True, return_inverse=True)
        new = np.empty(len(distinct), np.int32)
        order = np.argsort(first)  # of first appearance
        new[order] = np.arange(self._count, self._count + len(distinct), dtype=np.int32)
        numbers[missing] = new[which]
        self._count += len(distinct)
        self._late = _merged(self._late, (distinct, new))
        if len(self._late[0]) > max(LATE, len(self._many[0]) // 4):
            self._many, self._late = _merged(self._many, self._late), (distinct[:0], new[:0])
        return numbers, missing[first[order]]

    def find(self, keys: Array) -> Array:
        """Numbers of keys that were met before; -1 for others, which stay unknown."""
        numbers = np.full(len(keys), -1, np.int32)
        for known, their in (self._many, self._late):
            if len(known):
                place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
                numbers = np.where(known[place] == keys, their[place], numbers)
        return numbers


def hashed(texts: pa.Array) -> Array:
    """16 bytes for each text."""
    digests = (blake2b(text.encode(), digest_size=16).digest() for text in texts.to_pylist())
    return np.frombuffer(b"".join(digests), "V16")


def raw(names: pa.Array) -> Array:
    """Content ids, from hex."""
    return np.frombuffer(bytes.fromhex("".join(names.to_pylist())), "V16")


def _merged(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    keys, numbers = (np.concatenate(both) for both in zip(one, other, strict=True))
    order = np.argsort(keys, kind="stable")
    return keys[order], numbers[order]
