"""Policies with their references, of true classes and any size, and the operators that both run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from smpo.engine.monitoring.operators import operators_of
from smpo.families.files.saved_folder import LoadSnippet
from smpo.families.lora import Adapter
from smpo.families.pipeline_adapters import PipelineAdapter, SDXLPipelineAdapter
from smpo.families.pipelines import policy_and_reference
from smpo.families.policy_reference import HALF, Arithmetic, PolicyAndReference
from smpo.families.recompute import checkpoint
from smpo.families.speed import Speed
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Conditioning
from tests.families.published import SD15, SD21, SDXL, on_meta

__all__ = ["SETTINGS", "SMALL", "denoiser", "inputs", "traces"]

_NARROW = {"block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1, "sample_size": 16}
_DOWN = ("DownBlock2D", "CrossAttnDownBlock2D")
_UP = ("CrossAttnUpBlock2D", "UpBlock2D")
SMALL: dict[str, dict[str, Any]] = {
    "sd15": {**SD15, **_NARROW, "down_block_types": _DOWN, "up_block_types": _UP, "cross_attention_dim": 24},
    "sd21": {
        **SD21, **_NARROW, "down_block_types": _DOWN, "up_block_types": _UP, "cross_attention_dim": 24,
        "attention_head_dim": [2, 4],
    },
    "sdxl": {
        **SDXL, **_NARROW, "down_block_types": _DOWN, "up_block_types": _UP, "cross_attention_dim": 24,
        "attention_head_dim": [2, 4], "transformer_layers_per_block": [1, 2], "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + 6 * 8,
    },
}  # fmt: skip
"""The published UNets with two narrow levels instead of three or four."""

SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "channels_last": {"channels_last": True},
    "gradient_checkpointing": {"checkpointing": True},
    "gradient_checkpointing: selective": {"checkpointing": "selective"},
    "attention: cudnn": {"attention": "cudnn"},
    "attention: flash": {"attention": "flash"},
    "attention: efficient": {"attention": "efficient"},
    "attention: math": {"attention": "math"},
    "shadow_weights": {"shadow": True},
    "offload_reference": {"offload": True},
    "compile": {"compile": True},
    "several": {"channels_last": True, "checkpointing": "selective", "shadow": True, "compile": True},
}
"""All of `runtime` that changes how the networks compute."""


def denoiser(
    config: dict[str, Any],
    device: str,
    precision: Any,
    *,
    adapter: Adapter | None = None,
    checkpointing: Any = False,
    shadow: bool = False,
    offload: bool = False,
    **speed: Any,
) -> UNetDenoiser:
    """A UNet and its reference, made as `load_unet` makes them; without numbers unless on a CPU."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    pipeline = SimpleNamespace(
        unet=UNet2DConditionModel(**config) if device == "cpu" else on_meta(config),
        vae=SimpleNamespace(config=SimpleNamespace(latent_channels=4)),
        vae_scale_factor=8,
        scheduler=SimpleNamespace(config={"_class_name": "DDIMScheduler", "clip_sample": False}),
    )
    reference = policy_and_reference(pipeline, adapter, HALF.get(precision))
    checkpoint(pipeline.unet, checkpointing)
    if device != "cpu":
        for network in filter(None, (pipeline.unet, reference)):
            network.to_empty(device=device)
    networks = PolicyAndReference(
        pipeline.unet,
        reference,
        arithmetic=Arithmetic(torch.device(device), precision, 8),
        speed=Speed(**speed),
        shadow=shadow,
        offload=offload,
    )
    stack = (SDXLPipelineAdapter if "addition_embed_type" in config else PipelineAdapter)(
        pipeline, 8 * config["sample_size"]
    )
    return UNetDenoiser(stack, networks, keys=("", ""), opening=LoadSnippet((), ()), origin={})


def inputs(one: UNetDenoiser, rows: int = 4) -> tuple[Tensor, Tensor, Conditioning]:
    """Noisy latents, timesteps and words."""
    config, random = one.network.config, torch.Generator().manual_seed(1)
    tensors = {"text": torch.randn(rows, 77, config.cross_attention_dim, generator=random)}
    if isinstance(one.stack, SDXLPipelineAdapter):
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        tensors["pooled"] = torch.randn(rows, pooled, generator=random)
        tensors["size_ids"] = torch.full((rows, 6), 128.0)
    x, t = torch.randn(rows, *one.latent_shape, generator=random), torch.arange(rows) * 300 + 1
    return x.to(one.device), t.to(one.device), Conditioning(tensors).to(one.device)


def traces(one: UNetDenoiser, rows: int = 4) -> dict[str, list[str]]:
    """Operators of the policy with gradients and without, and of the reference."""
    x, t, about = inputs(one, rows)
    found = {"policy": operators_of(lambda: one.predict(x, t, about))}
    with torch.no_grad():
        found["without gradients"] = operators_of(lambda: one.predict(x, t, about))
        found["reference"] = operators_of(lambda: one.predict(x, t, about, reference=True))
    return found
