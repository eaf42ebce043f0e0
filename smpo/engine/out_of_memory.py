"""When memory runs out in the middle of an update: smaller micro-batches, the same update.

Timesteps, noise and dropout of a sample are functions of its position, and gradients of micro-batches add up, so an
update in two halves is the same update to rounding. It is begun again from nothing: what was added up before is let go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from smpo.errors import MachineError

__all__ = ["MicroBatcher", "OutOfMemory", "is_out_of_memory"]

T = TypeVar("T")


class OutOfMemory(MachineError):
    """An update doesn't fit even pair by pair. It was not applied: the weights are those of the step before."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of any device. torch has a class for it on CUDA only; elsewhere it is in the words."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, Exception) and should_reduce_batch_size(error)


class MicroBatcher:
    """How many pairs go through the networks at once: the requested number, halved whenever that was too much.

    `pairs`: of a micro-batch, None for as many as come. `alone`: the only process of the run. Where there are several,
    the others would wait for the gradients of one that begins again, so the run ends in words instead.
    """

    def __init__(
        self, pairs: int | None = None, *, alone: bool = True, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.pairs, self.short = pairs, False
        self._alone, self._say = alone, say

    def of(self, held: int) -> int:
        """The size of micro-batches when they come with `held` pairs."""
        self.pairs = held if self.pairs is None else min(held, self.pairs)
        return self.pairs

    def retry_on_oom(self, step: int, work: Callable[[], T], undo: Callable[[], None]) -> T:
        """What `work` returns, in an update that is tried until it fits. Raises `OutOfMemory` when one pair doesn't."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(step, error)
            # Outside of `except` the frames of the failed attempt, and with them its tensors, are free.
            undo()
            clear_device_cache(garbage_collection=True)

    def _halve(self, step: int, error: Exception) -> None:
        pairs = self.pairs or 1
        if not self._alone:
            raise OutOfMemory(
                f"update {step + 1} ran out of memory with {pairs} pairs at once; it was not applied",
                help=f"go on with half of them: `--resume --set runtime.micro_batch={max(1, pairs // 2)}`; the result "
                "stays the same",
            ) from error
        if pairs == 1:
            raise OutOfMemory(
                f"update {step + 1} ran out of memory with a single pair; it was not applied",
                help="`--set runtime.gradient_checkpointing=true` holds fewer activations, "
                "`--set runtime.offload_reference=true` one network less, and both can be added to `--resume`; a LoRA "
                "(`model.lora`) needs no optimiser state for the whole network",
            ) from error
        self.pairs, self.short = (pairs + 1) // 2, True
        self._say(
            f"update {step + 1} ran out of memory with {pairs} pairs at once; it is done again with {self.pairs}, and "
            f"as many gradients more are added up: the result stays the same to rounding. "
            f"`runtime.micro_batch={self.pairs}` begins with that"
        )
