"""Matrix products in 8-bit floating point, for inversions alone.

The walk of an inversion needs no gradient and forgives rounding: what it finds is a latent and the noise in it, which
explain each other exactly whatever the network said on the way. Policy and reference are then compared in the
training's own precision. Never the other way round: the margin multiplies their difference by thousands, and 8 bits
would be all that it sees.

    y = s_x s_w (round(x / s_x) · round(w / s_w)ᵀ),      s = max|·| / 448

Numbers have four bits of exponent and three of mantissa (e4m3), with one scale for a whole tensor: of the weights when
they have changed, of the activations at each pass. Linear layers of transformer blocks only; there is no 8-bit
convolution in torch, and everything else is a small part of the work. Micikevicius et al. 2022, arXiv:2209.05433.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smpo.errors import MachineError
from smpo.families.speed import AS_TORCH_DOES, Shadow, Speed

__all__ = ["EightBitLinear", "EightBitShadow", "need_eight_bits", "replace_linears"]

E4M3, LARGEST, ALIGNED = torch.float8_e4m3fn, 448.0, 16


def need_eight_bits(device: str) -> None:
    """Raises `MachineError` where matrix products in 8 bits aren't to be had: they came with Ada and Hopper."""
    found = torch.cuda.get_device_capability() if device == "cuda" else None
    if found is not None and found >= (8, 9):
        return
    what = f"this one's compute capability is {found[0]}.{found[1]}" if found else f"this run is on {device}"
    raise MachineError(
        f"`inversion.precision: fp8` needs a GPU of compute capability 8.9 or more (RTX 40, L4, H100, H200); {what}",
        help="`--set inversion.precision=training` inverts in the training's own precision",
    )


def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` as 8-bit numbers and their scale. The device isn't asked for a number."""
    scale = (x.abs().amax().float() / LARGEST).clamp(min=1e-12)
    return (x / scale.to(x.dtype)).to(E4M3), scale


class EightBitLinear(nn.Module):
    """What `linear` does, in 8 bits. `requantise` after its weights have changed."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.requantise()

    def requantise(self) -> None:
        self._weight, self._scale = rounded(self.linear.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        rows, scale = rounded(x.reshape(-1, x.shape[-1]))
        out = torch._scaled_mm(
            rows, self._weight.t(), scale_a=scale, scale_b=self._scale, out_dtype=dtype
        ).reshape(*x.shape[:-1], -1)
        return out if self.linear.bias is None else out + self.linear.bias.to(dtype)


def replace_linears(module: nn.Module) -> list[EightBitLinear]:
    """Put an `EightBitLinear` round every linear layer in `module` whose sides are multiples of 16, as the hardware
    wants them; an adapter's own layers stay as they are."""
    made = []
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear) and not name.startswith("lora_"):
            if child.in_features % ALIGNED == 0 and child.out_features % ALIGNED == 0:
                made.append(EightBitLinear(child))
                setattr(module, name, made[-1])
        elif not name.startswith("lora_"):
            made += replace_linears(child)
    return made


class EightBitShadow(Shadow):
    """A copy of a network whose transformer blocks multiply in 8 bits; up to date whenever it is asked for."""

    def __init__(self, master: nn.Module, dtype: torch.dtype, speed: Speed = AS_TORCH_DOES) -> None:
        self._linears: list[EightBitLinear] = []
        super().__init__(master, dtype, speed)

    def _altered(self, network: nn.Module) -> None:
        from diffusers.models.attention import BasicTransformerBlock

        for module in list(network.modules()):
            if isinstance(module, BasicTransformerBlock):
                self._linears += replace_linears(module)

    def _refreshed(self) -> None:
        for linear in self._linears:
            linear.requantise()
