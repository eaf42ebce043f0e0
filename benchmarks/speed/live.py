"""Bytes of live tensors, and what a backward needs: without a GPU, and for networks that don't fit anywhere."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}


class Live(TorchDispatchMode):
    """Counts storages from the operation that returns them until they are freed; those of `known` don't count.

    `peak`: the most that were alive at once, in bytes. What a kernel takes for itself and gives back isn't seen.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}
        self._known = {tensor.untyped_storage()._cdata for tensor in known}

    def restart(self) -> None:
        """Look for a peak from here on."""
        self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes or key in self._known:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def activations(
    config: dict[str, Any],
    pixels: int,
    *,
    precision: str,
    rank: int | None = None,
    dora: bool = False,
    checkpointing: bool = False,
) -> float:
    """Bytes that the backward needs of one more image, on meta tensors: the difference between four and two images.

    `rank`: of a LoRA on the attention, with the network frozen. Autocast is imitated as CUDA has it (products in 16
    bits, norms in float32), attention as fused kernels have it (queries, keys, values, the result, a number for each
    row).
    """
    peaks = [_peak(config, pixels, images, HALF[precision], rank, dora, checkpointing) for images in (2, 4)]
    return (peaks[1] - peaks[0]) / 2


def _peak(
    config: dict[str, Any],
    pixels: int,
    images: int,
    half: torch.dtype | None,
    rank: int | None,
    dora: bool,
    checkpointing: bool,
) -> int:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        network = UNet2DConditionModel(**config).train()
        if rank is not None:
            _adapt(network, rank, dora)
        side, width = pixels // 8, config["cross_attention_dim"]
        channels = config.get("in_channels", 4)
        x, text, t = (
            torch.empty(images, channels, side, side),
            torch.empty(images, 77, width),
            torch.empty(images),
        )
        added: dict[str, Any] = {}
        if "addition_embed_type" in config:
            pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            extra = {"text_embeds": torch.empty(images, pooled), "time_ids": torch.empty(images, 6)}
            added = {"added_cond_kwargs": extra}
    if checkpointing:
        network.enable_gradient_checkpointing()
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_dropped)  # gradients are counted elsewhere
    with Live([*network.parameters(), *network.buffers()]) as live, _autocast(half) as casts:
        output = network(x, t, text, **added).sample
        casts.clear()
        output.float().sum().backward()
    return live.peak


def _adapt(network: nn.Module, rank: int, dora: bool) -> None:
    from peft import LoraConfig

    network.requires_grad_(False)
    config = LoraConfig(r=rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"], use_dora=dora)
    network.add_adapter(config)  # type: ignore[operator]


def _dropped(parameter: Tensor) -> None:
    parameter.grad = None


@contextmanager
def _autocast(half: torch.dtype | None) -> Iterator[dict[int, Tensor]]:
    """Autocast as CUDA has it, on any device; gives the casts of trained weights, which live as long as the pass."""
    casts: dict[int, Tensor] = {}

    def cast(value: Any, dtype: torch.dtype | None) -> Any:
        if half is None or not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
            return value
        if isinstance(value, nn.Parameter) and value.requires_grad:
            if id(value) not in casts:
                casts[id(value)] = value.to(dtype)
            return casts[id(value)]
        return value.to(dtype)

    def inside(function: Callable[..., Any], dtype: torch.dtype | None) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(
                *(cast(one, dtype) for one in args),
                **{name: cast(one, dtype) for name, one in kwargs.items()},
            )

        return call

    def attention(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
        return _Attention.apply(*(cast(one, half) for one in (q, k, v)))  # type: ignore[no-any-return, no-untyped-call]

    with ExitStack() as stack:
        for name, dtype in (
            ("linear", half),
            ("conv2d", half),
            ("group_norm", torch.float32),
            ("layer_norm", torch.float32),
        ):
            stack.enter_context(mock.patch.object(F, name, inside(getattr(F, name), dtype)))
        stack.enter_context(mock.patch.object(F, "scaled_dot_product_attention", attention))
        yield casts


class _Attention(torch.autograd.Function):
    """Shapes of a fused attention, and what it saves."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, rows = torch.empty_like(q), torch.empty(q.shape[:-1], dtype=torch.float32, device=q.device)
        ctx.save_for_backward(q, k, v, out, rows)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        q, k, v, _, _ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
