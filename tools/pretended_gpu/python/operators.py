"""Operators that need a library or a result. Those of cuDNN check what cuDNN checks, and return empty tensors; `unique`
finds every value once, since the size of its result depends on numbers.

Everything else of torch's CUDA side is torch's own code, down to the launch of each kernel.
"""

from __future__ import annotations

import warnings
from typing import Any

import pretended
import torch
from torch import Tensor

__all__ = ["install"]

_LIBRARY: list[torch.library.Library] = []


def install() -> None:
    """Replace them, once, after `import torch`."""
    if _LIBRARY or torch.version.cuda is None:
        return
    major, minor, patch = torch._C._cudnn.getCompileVersion()
    pretended.LIBRARY.pretended_set_cudnn_version(major * 10_000 + minor * 100 + patch)
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of each replacement
        library.impl("convolution", _convolution, "CUDA")
        library.impl("convolution_backward", _convolution_backward, "CUDA")
        library.impl("_scaled_dot_product_cudnn_attention", _attention, "CUDA")
        library.impl("_scaled_dot_product_cudnn_attention_backward", _attention_backward, "CUDA")
        library.impl("_unique2", _unique, "CUDA")
    _LIBRARY.append(library)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Tensor:
    pretended.EXTRA["convolution"] += 1
    _check_alike("Input", x, "weight", weight)
    if bias is not None:
        _check_alike("Input", x, "bias", bias)
    channels = weight.shape[0 if transposed else 1] * (1 if transposed else groups)
    if x.shape[1] != channels:
        raise RuntimeError(
            f"weight of size {list(weight.shape)} expected input{list(x.shape)} to have {channels} channels"
        )
    dims = x.dim() - 2
    stride, padding, dilation, extra = (_each(one, dims) for one in (stride, padding, dilation, output_padding))
    sides = []
    for i in range(dims):
        reach = dilation[i] * (weight.shape[2 + i] - 1)
        if transposed:
            sides.append((x.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + reach + extra[i] + 1)
        else:
            sides.append((x.shape[2 + i] + 2 * padding[i] - reach - 1) // stride[i] + 1)
    out = weight.shape[1] * groups if transposed else weight.shape[0]
    return torch.empty((x.shape[0], out, *sides), dtype=x.dtype, device=x.device, memory_format=_layout(x, weight))


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, *rest: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    wanted = rest[-1]
    pretended.EXTRA["convolution_backward"] += sum(wanted)
    _check_alike("Gradient", grad, "input", x)
    _check_alike("Gradient", grad, "weight", weight)
    return (
        torch.empty_like(x) if wanted[0] else None,
        torch.empty_like(weight) if wanted[1] else None,
        torch.empty(bias_sizes, dtype=grad.dtype, device=grad.device) if wanted[2] else None,
    )


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    logsumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    pretended.EXTRA["cudnn_attention"] += 1
    _check_alike("query", query, "key", key)
    _check_alike("query", query, "value", value)
    batch, heads, length, _ = query.shape
    out = query.new_empty((batch, length, heads, value.shape[-1])).transpose(1, 2)
    sums = query.new_empty((batch, heads, length, 1) if logsumexp else (0,), dtype=torch.float32)
    nothing, seed = query.new_empty((0,)), query.new_empty((), dtype=torch.int64)
    return out, sums, nothing, nothing.clone(), length, key.shape[2], seed, seed.clone(), nothing.clone()


def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    pretended.EXTRA["cudnn_attention_backward"] += 1
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _unique(
    x: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """As if all values differed; waits once, as the operator does for the size of its result."""
    torch.cuda.current_stream().synchronize()
    places = torch.arange(x.numel(), device=x.device)
    return x.flatten().clone(), places.reshape(x.shape), torch.ones_like(places)


def _check_alike(name: str, one: Tensor, other_name: str, other: Tensor) -> None:
    """Raise the errors that torch and cuDNN raise for tensors of two devices or dtypes."""
    if one.device != other.device:
        raise RuntimeError(f"{name} ({one.device}) and {other_name} ({other.device}) should be on the same device")
    if one.dtype != other.dtype:
        raise RuntimeError(f"{name} type ({one.dtype}) and {other_name} type ({other.dtype}) should be the same")


def _each(value: Any, dims: int) -> list[int]:
    return list(value) * dims if len(value) == 1 else list(value)


def _layout(x: Tensor, weight: Tensor) -> torch.memory_format:
    """cuDNN's choice: channels last where one of both lies so."""
    last = x.dim() == 4 and (_channels_last(x) or _channels_last(weight))
    return torch.channels_last if last else torch.contiguous_format


def _channels_last(it: Tensor) -> bool:
    """By strides, as torch decides: a kernel of 1 x 1 may be contiguous and channels last at once."""
    least = 0
    for dim in (1, 3, 2, 0):
        size, stride = it.shape[dim], it.stride(dim)
        if size == 0 or stride < max(least, 1 if dim == 1 else 0) or (dim == 0 and least == it.stride(1)):
            return False
        least = stride * max(size, 1)
    return True
