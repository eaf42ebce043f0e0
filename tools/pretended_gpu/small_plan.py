"""The memory that `smpo plan` predicts for runs of small.yaml.

The small model isn't one of the plan's architectures. Its activations are counted on meta tensors, as those of
benchmarks/memory.py are, and it is added to them for this process.
"""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

from tools.pretended_gpu.matrix import SPEC

__all__ = ["plan_for_the_small_model", "planned"]

WEIGHTS = Path(__file__).parents[2] / "smpo" / "worlds" / "shapes" / "weights" / "base"


def plan_for_the_small_model() -> None:
    """Add the shapes model to `smpo.app.costs.ARCHITECTURES`. Needs benchmarks/ on the path."""
    from smpo.app import costs

    network, encoders = _parameters()
    config = _config()
    latent = config["in_channels"] * config["sample_size"] ** 2
    costs.ARCHITECTURES = (
        *costs.ARCHITECTURES,
        costs.Architecture(
            "shapes", network, 8 * config["sample_size"], 0, 0, 0, encoders_gb=4 * encoders / 1e9, latent=latent,
            text=77 * config["cross_attention_dim"], share=1, share_of_one=1, selective_gb=math.nan,
            activations_gb=_activations("bf16", False), checkpointed_gb=_activations("bf16", True),
            wide_gb=_activations("fp32", False), wide_checkpointed_gb=_activations("fp32", True),
        ),
    )  # fmt: skip


def planned(line: str) -> int | None:
    """The peak of training in bytes, with these settings; None for what isn't counted for so small a model."""
    from smpo.app.plan import make_plan
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    plan = make_plan(resolve(SPEC, skeleton=ExperimentSpec, sets=shlex.split(line) if line != "-" else []))
    memory = plan.gpus[0].memory_gb if plan.gpus else math.nan
    return None if math.isnan(memory) else round(memory * 1e9)


def _config() -> dict[str, Any]:
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(WEIGHTS / "unet")
    return {name: value for name, value in config.items() if value is not None and not name.startswith("_")}


def _activations(precision: str, checkpointing: bool) -> float:
    """GB that the backward needs of one image."""
    from speed.live import activations

    config = _config()
    return (
        activations(config, 8 * config["sample_size"], precision=precision, checkpointing=checkpointing) / 1e9
    )


def _parameters() -> tuple[int, int]:
    """Of the UNet; of VAE and text encoder."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**_config())
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(WEIGHTS / "vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(WEIGHTS / "text_encoder"))
    return _count(unet), _count(vae) + _count(text)


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())
