"""Processes that fill a cache together.

The first of them finds what is missing and sends it to the others; each takes whole batches of it, those that one
process would make, so on machines of one type the same shapes go through the same kernels, and rows are the same to the
last bit whichever process computed them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

__all__ = ["SINGLE_PROCESS", "WorkSplit"]

T = TypeVar("T")


@dataclass(frozen=True)
class WorkSplit:
    """One process's view of it. Everything about it is collective: all processes of a run call the same things in the
    same order, those that have no share in the work too."""

    is_leader: bool
    """Whether this is the process that finds what is missing."""
    share: int | None
    """This process's share, from 0; None for one that only waits: on another machine, where it can't write to the
    cache's database (sqlite's write-ahead log doesn't work over a network)."""
    shares: int
    broadcast: Callable[[Tensor], Tensor]
    """The numbers (int64 `[n]`) that the leading process has passed, on all."""
    barrier: Callable[[], None]
    """Returns when all have called it. Raises where one won't."""
    check: Callable[[], None]
    """Raises where another process has failed; called between batches, where no process waits for another."""

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leading process does what is in the block, then the others, who find it done."""
        if not self.is_leader:
            self.barrier()
        yield
        if self.is_leader:
            self.barrier()

    def shard(self, things: Sequence[T]) -> Sequence[T]:
        """Those of `things` that are this process's."""
        return things[:0] if self.share is None else things[self.share :: self.shares]

    def owns(self, number: int) -> bool:
        """Whether the thing of this number is this process's to look after."""
        return self.share is not None and number % self.shares == self.share

    def done(self, count: int, total: int) -> int:
        """How much all have done, if the others are as quick as this one that has done `count`."""
        return min(count * self.shares, total)


SINGLE_PROCESS = WorkSplit(
    is_leader=True,
    share=0,
    shares=1,
    broadcast=lambda numbers: numbers,
    barrier=lambda: None,
    check=lambda: None,
)
"""A process that does everything itself."""
