"""Low-rank adapters: what is trained when the network itself stays as it is.

The reference is then the same network with its adapter off, so one copy of the weights is enough. A trap is handled
here: diffusers ignores alpha without the adapter's metadata, and would scale a file with alpha != rank wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from smpo.errors import RunError
from smpo.families.files import kohya

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

__all__ = ["Adapter", "adapter_off", "attach", "save_adapter"]

ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")


@dataclass(frozen=True)
class Adapter:
    """A LoRA: W + (alpha / rank) B A on every layer whose name ends in one of `targets` (Hu et al. 2021).

    B starts at zero, so that the adapted network starts as the original. `dora` trains the length of each row
    of W as well (Liu et al. 2024). `seed` fixes A, alike on all devices.
    """

    rank: int = 16
    alpha: float = 16.0
    targets: tuple[str, ...] = ATTENTION
    dropout: float = 0.0
    dora: bool = False
    seed: int = 0


def attach(unet: UNet2DConditionModel, adapter: Adapter) -> None:
    """Freeze `unet` and give it an adapter, whose parameters are then the only trainable ones.

    Raises `RunError` when no layer is called like one of the targets.
    """
    from peft import LoraConfig

    unet.requires_grad_(False)
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # peft divides it by the rank: a float will do
        target_modules=sorted(adapter.targets),
        lora_dropout=adapter.dropout,
        use_dora=adapter.dora,
        init_lora_weights="gaussian",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(adapter.seed)
        try:
            unet.add_adapter(config)
        except ValueError as error:
            raise RunError(
                f"no layer of the network is called like one of {', '.join(adapter.targets)}",
                help=f"attention layers end in {', '.join(ATTENTION)}",
            ) from error


@contextmanager
def adapter_off(unet: nn.Module) -> Iterator[None]:
    """The original network, for the length of a `with` block; afterwards all is as it was."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in unet.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_adapter(pipeline: Any, unet: Any, folder: Path, *, side: int) -> None:
    """Write `pytorch_lora_weights.safetensors` and, for ComfyUI and A1111, `kohya/lora.safetensors`.

    `side`: of the training's pictures, in pixels. There is no twin of a DoRA: readers disagree on the shape of its
    magnitudes.
    """
    from peft import get_peft_model_state_dict

    config = unet.peft_config["default"]
    layers = {
        name: value.detach().float().cpu().contiguous() for name, value in get_peft_model_state_dict(unet).items()
    }
    metadata = {name: _plain(value) for name, value in config.to_dict().items()}
    pipeline.save_lora_weights(folder, unet_lora_layers=layers, unet_lora_adapter_metadata=metadata)
    if not config.use_dora:
        kohya.write(
            folder / "kohya" / "lora.safetensors",
            layers,
            rank=config.r,
            alpha=config.lora_alpha,
            unet=unet,
            scheduler=pipeline.scheduler,
            side=side,
        )


def _plain(value: Any) -> Any:
    """Sets have no order, and a file should have the same bytes each time it is written."""
    return sorted(value) if isinstance(value, set) else value
