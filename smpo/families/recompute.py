"""What the backward pass keeps, and what it computes again.

Checkpointing as diffusers does it keeps the inputs of each block and computes all of it again: a third more work.
Selective checkpointing keeps what is dear to make (matrix products, convolutions, attention) and computes again what is
cheap: norms, activations, sums, casts. The same numbers either way.
"""

from __future__ import annotations

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


def checkpoint(network: ModelMixin, how: bool | Literal["selective"]) -> None:
    """Set up a diffusers network. `how`: True recomputes blocks whole, False keeps everything."""
    if how == "selective":
        network.enable_gradient_checkpointing(_selective)
    elif how:
        network.enable_gradient_checkpointing()


def _selective(module: nn.Module, *inputs: Any) -> Any:
    return recomputed(module.__call__, *inputs, use_reentrant=False, context_fn=_contexts)


def _contexts() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_context: Any, op: Any, *_inputs: Any, **_named: Any) -> CheckpointPolicy:
    dear = (
        isinstance(op, torch._ops.OpOverload)
        and op._overloadpacket._qualified_op_name.split("::")[-1] in _DEAR
    )
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE
