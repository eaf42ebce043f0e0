"""The memory that `smpo plan` predicts for runs of small.yaml.

The small model isn't one of the plan's architectures. What its passes take is counted as benchmarks/memory.py counts
the published ones, and it is added to them for this process.
"""

from __future__ import annotations

import shlex
from functools import lru_cache
from pathlib import Path
from typing import Any

from tools.pretended_gpu.matrix import SPEC

__all__ = ["plan_for_the_small_model", "planned"]

NAME = "shapes"
WEIGHTS = Path(__file__).parents[2] / "smpo" / "worlds" / "shapes" / "weights" / "base"


def plan_for_the_small_model() -> None:
    """Add the shapes model to `smpo.app.plan.workload.ARCHITECTURES`. Needs benchmarks/ on the path."""
    import memory as benchmark
    from speed.archs import UNETS

    from smpo.app.plan import workload as costs

    config = _config()
    UNETS[NAME] = config
    network, encoders = _parameters()
    latent = config["in_channels"] * config["sample_size"] ** 2
    costs.ARCHITECTURES = (
        *costs.ARCHITECTURES,
        costs.Architecture(
            NAME, network, 8 * config["sample_size"], 0, 0, 0, encoders_gb=4 * encoders / 1e9, latent=latent,
            text=77 * config["cross_attention_dim"], share=1, share_of_one=1,
            counts=benchmark.counted_for(NAME, config["sample_size"]),
        ),
    )  # fmt: skip


def planned(line: str) -> int | None:
    """The allocated peak of training in bytes, with these settings; None where the plan knows no network."""
    from smpo.app.plan.plan import make_plan
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    plan = make_plan(resolve(SPEC, skeleton=ExperimentSpec, sets=shlex.split(line) if line != "-" else []))
    return None if plan.memory is None else round(plan.memory.allocated_gb * 1e9)


@lru_cache
def _config() -> dict[str, Any]:
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(WEIGHTS / "unet")
    return {name: value for name, value in config.items() if value is not None and not name.startswith("_")}


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
