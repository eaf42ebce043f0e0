"""Rows that belong together: one pair's votes, one prompt's pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smpo.data.pairs.interning import Array, Interner

__all__ = ["Groups", "grouped"]


@dataclass(frozen=True)
class Groups:
    """`number` `[N]`: the group of each row, in the order in which groups are met; `first` `[G]`: its first row."""

    number: Array
    first: Array

    def __len__(self) -> int:
        return len(self.first)

    @property
    def counts(self) -> Array:
        """`[G]` rows."""
        found: Array = np.bincount(self.number, minlength=len(self))
        return found

    def sums(self, values: Array) -> Array:
        """`[G]`: sums of `values` `[N]`."""
        found: Array = np.bincount(self.number, weights=values, minlength=len(self))
        return found

    def differ(self, values: Array, among: Array | None = None) -> Array:
        """`[G]`: whether a group has several of the `values` `[N]`, which are whole numbers; `among` `[N]` leaves
        rows out."""
        number = self.number if among is None else self.number[among]
        values = values if among is None else values[among]
        kind = np.iinfo(values.dtype)
        least = np.full(len(self), kind.max, values.dtype)
        most = np.full(len(self), kind.min, values.dtype)
        np.minimum.at(least, number, values)
        np.maximum.at(most, number, values)
        found: Array = most > least
        return found

    def rows(self, group: int) -> list[int]:
        """Of one group, in order."""
        found: list[int] = np.flatnonzero(self.number == group).tolist()
        return found


def grouped(*columns: Array) -> Groups:
    """Rows that agree in all columns, `[N]` each, of numbers below 2³¹."""
    key = np.ascontiguousarray(np.stack(columns, axis=1), np.int32)
    width = 4 * len(columns)
    return Groups(*Interner(width)(key.view(f"V{width}").ravel()))
