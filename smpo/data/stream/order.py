"""The endless stream of training samples: which row of the table stands at which position.

Epoch after epoch, each a fresh permutation of the table. The official code loses its order when it resumes
(method 2b, D18); here the order is a function of (seed, position), so there is no state to lose, and it is
the same for any number of processes and any size of micro-batch."""

from __future__ import annotations

import torch
from torch import Tensor

from smpo.maths.draws import random_bits, row_key

__all__ = ["Order", "dealt"]


class Order:
    """`order(positions)` gives rows of a table of `size` rows.

    A permutation is the ranking of random 64-bit words rather than `torch.randperm`, whose algorithm and
    32-bit seed belong to torch's version. The two latest epochs are kept: 8 bytes a row each."""

    def __init__(self, seed: int, size: int) -> None:
        if size < 1:
            raise ValueError("an order needs at least one row")
        self.seed, self.size = seed, size
        self._epochs: dict[int, Tensor] = {}

    def __call__(self, positions: range) -> list[int]:
        """Rows at these positions, each 0 or more."""
        rows: list[int] = []
        position = positions.start
        while position < positions.stop:  # a piece of an epoch at a time
            epoch, place = divmod(position, self.size)
            piece = self.epoch(epoch)[place : place + positions.stop - position].tolist()
            rows += piece
            position += len(piece)
        return rows

    def epoch(self, number: int) -> Tensor:
        """`[size]` int64: the permutation of an epoch."""
        if number not in self._epochs:
            words = random_bits([row_key(self.seed, "order", number)], self.size)[0]
            while len(self._epochs) > 1:
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[number] = torch.argsort(words, stable=True)
        return self._epochs[number]


def dealt(cost: Tensor, rank: int, world: int) -> list[int]:
    """Which of `len(cost)` samples process `rank` of `world` takes: equally many, of nearly the same total cost.

    The dearest go out first, round and back again (0 1 2 2 1 0 0 ...). What a pair costs is how far it has to be
    inverted; dealt blindly, eight processes would each update wait for the one with the longest ways. Results don't
    depend on who computes what. Kept in the order of the stream.
    """
    order = torch.argsort(cost, descending=True, stable=True).tolist()
    mine = (rank, 2 * world - 1 - rank)
    return sorted(index for place, index in enumerate(order) if place % (2 * world) in mine)
