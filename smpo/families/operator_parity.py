"""Passes whose outputs are compared run the same operators, whatever their weights and their gradients.

A preference loss multiplies the difference of policy and reference by thousands, so that another kernel alone moves the
first loss away from ln 2. torch and its libraries choose kernels by more than shapes:

* A matrix product of a batch is one `mm` where its weight requires gradients, and one `bmm` where it doesn't and the
  input isn't contiguous (`should_fold` in ATen's LinearAlgebra.cpp). SDXL's linear `proj_in` reads such an input, and
  the prompts of a micro-batch of one pair are such a view of the update's.
* Attention computes the statistics of its softmax where an input requires gradients, and cuDNN then runs another graph.
* A ResNet block of diffusers copies the input of its shortcut in training mode, which changes the layout of a
  convolution in `channels_last`.

So a linear `proj_in` and the conditioning are contiguous, modules are in evaluation mode but for dropout, and a pass
without gradients that is compared runs with autograd on, of which nothing is kept. An adapter on other layers than
attention's projections would leave the first attentions without a gradient, so its passes get an input that requires
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smpo.kinds import Conditioning

__all__ = [
    "contiguous", "contiguous_projections", "dropout_modules", "keeping_nothing", "some_attention_is_frozen",
    "without_dropout",
]  # fmt: skip


def contiguous_projections(network: nn.Module) -> None:
    """Make the input of each linear `proj_in` contiguous. Copies of `network` do the same."""
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    for module in network.modules():
        if not (isinstance(module, Transformer2DModel) and module.use_linear_projection):
            continue
        if _contiguous not in module.proj_in._forward_pre_hooks.values():
            module.proj_in.register_forward_pre_hook(_contiguous)


def contiguous(cond: Conditioning) -> Conditioning:
    """The same rows, of which none is a strided view."""
    return Conditioning({name: rows.contiguous() for name, rows in cond.tensors.items()})


def _contiguous(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].contiguous(), *inputs[1:])


def some_attention_is_frozen(network: nn.Module) -> bool:
    """Whether an attention of `network` has no trained parameter in its projections of queries, keys and values."""
    from diffusers.models.attention_processor import Attention

    return any(
        not any(p.requires_grad for part in (one.to_q, one.to_k, one.to_v) for p in part.parameters())
        for one in network.modules()
        if isinstance(one, Attention)
    )


def dropout_modules(network: nn.Module) -> list[nn.Module]:
    """Modules that have to be in training mode for dropout to act: dropouts, and adapter layers, of which peft's DoRA
    looks at its own mode."""
    return [
        module
        for module in network.modules()
        if (isinstance(module, nn.Dropout) or hasattr(module, "lora_dropout"))
        and any(isinstance(one, nn.Dropout) and one.p > 0 for one in module.modules())
    ]


@contextmanager
def without_dropout(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, `modules` are in evaluation mode."""
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module in modules:
            module.training = True


@contextmanager
def keeping_nothing() -> Iterator[None]:
    """Autograd is on, and no tensor is kept for a backward pass: memory is that of `torch.no_grad`, operators are those
    of a pass with gradients. Outputs have to be detached."""

    def forget(_tensor: Tensor) -> None:
        return None

    def recall(_packed: None) -> Tensor:
        raise RuntimeError("this pass kept nothing for a backward pass")

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(forget, recall):
        yield
