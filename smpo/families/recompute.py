"""What the backward pass keeps, and what it computes again.

Checkpointing as diffusers does it keeps the inputs of each block and computes all of it again: a third more work.
Selective checkpointing keeps what is dear to make (matrix products, convolutions, attention) and computes again what is
cheap: norms, activations, sums, casts. The same numbers either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from torch.utils.checkpoint import checkpoint as recomputed

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

__all__ = ["checkpoint"]

_DEAR = (
    "mm", "bmm", "addmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable",
)  # fmt: skip


def checkpoint(
    network: ModelMixin,
    how: bool | Literal["selective"],
    attending: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Set up a diffusers network. `how`: True recomputes blocks whole, False keeps everything.

    `attending` returns the context that chooses attention's kernel in a pass; a backward pass is outside of it, and
    would compute attention again with another kernel.
    """
    if not how:
        return

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        if how != "selective":
            return nullcontext(), attending()
        forward, again = create_selective_checkpoint_contexts(_policy)
        return forward, _both(attending(), again)

    def block(module: nn.Module, *inputs: Any) -> Any:
        return recomputed(module.__call__, *inputs, use_reentrant=False, context_fn=contexts)

    network.enable_gradient_checkpointing(block)


@contextmanager
def _both(outer: AbstractContextManager[Any], inner: AbstractContextManager[Any]) -> Iterator[None]:
    with outer, inner:
        yield


def _policy(_context: Any, op: Any, *_inputs: Any, **_named: Any) -> CheckpointPolicy:
    dear = isinstance(op, torch._ops.OpOverload) and op._overloadpacket._qualified_op_name.split("::")[-1] in _DEAR
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE
