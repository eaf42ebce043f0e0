"""Pairs that are kept out of training, on which the policy's preferences are measured from time to time.

Chosen by the hash of a pair's id, so all seeds and methods hold out the same ones, and adding data moves few. Pairs
that share an image with a held-out one are left out of training too: images recur in many pairs of Pick-a-Pic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from torch import Tensor

from smpo.errors import RunError
from smpo.kinds import PairTable

__all__ = ["HeldOut", "held_out"]


@dataclass(frozen=True)
class HeldOut:
    """Rows of a table: `held` to look at, `trained` to train on; `dropped` pairs are neither."""

    held: Sequence[int]
    trained: Sequence[int]
    dropped: int = 0


def held_out(table: PairTable, count: int, p: Tensor, ensure: Callable[[Sequence[int]], None] | None = None) -> HeldOut:
    """`count` pairs on which `p` `[M]` has an opinion. Raises `RunError` when less than half would be left to
    train on.

    `ensure` makes p of some rows known before it is read: of as many as are held out, and of one more for each tie."""
    everything = range(len(table))
    if count == 0:
        return HeldOut((), everything)
    ranked = sorted(everything, key=lambda row: _rank(table[row].id))
    held: list[int] = []
    looked = 0
    while len(held) < count and looked < len(ranked):
        some = sorted(ranked[looked : looked + count - len(held)])
        looked += len(some)
        if ensure is not None:
            ensure(some)
        held += [row for row in some if float(p[row]) != 0.5]
    held.sort()
    images = {image for row in held for image in (table[row].winner, table[row].loser)}
    trained = [row for row in everything if not images & {table[row].winner, table[row].loser}]
    if len(held) < count or 2 * len(trained) < len(table):
        raise RunError(
            f"holding {count} pairs out leaves {len(trained)} of {len(table)} to train on: pairs that share an image "
            "with a held-out one are left out too",
            help="lower `train.holdout`",
        )
    return HeldOut(held, trained, len(table) - len(trained) - len(held))


def _rank(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8, person=b"smpo-holdout").digest()
