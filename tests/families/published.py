"""UNets as they are published: the parts of their configurations that differ from diffusers' defaults."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["SD15", "SD21", "SDXL", "on_meta"]

SD15: dict[str, Any] = {
    "cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": (320, 640, 1280, 1280),
    "sample_size": 64,
}  # fmt: skip
SD21: dict[str, Any] = {
    **SD15, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True,
    "sample_size": 96,
}  # fmt: skip
SDXL: dict[str, Any] = {
    "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20], "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": True, "addition_embed_type": "text_time",
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816, "sample_size": 128,
}  # fmt: skip


def on_meta(config: dict[str, Any]) -> Any:
    """A network without numbers: shapes alone."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**config)
