"""A LoRA as kohya's scripts write it, which ComfyUI, A1111 and their relatives read.

    lora_unet_<module, dots as underscores>.lora_down.weight | .lora_up.weight | .alpha

Modules of SD 1 and 2 are called as in diffusers, those of SDXL as in its authors' code (`input_blocks_4_1_…`), because
kohya's scripts train each on that UNet. Text encoders would be `lora_te_…`, with two of them `lora_te1_…` and
`lora_te2_…`; smpo trains none. Tools sort and label files by the header: the `ss_` names of kohya's scripts and
ModelSpec (github.com/Stability-AI/ModelSpec).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["layout", "original_name", "write"]

_PARTS = {"lora_A": "lora_down", "lora_B": "lora_up"}
_TOP = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_INNER = re.compile(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(attentions|resnets|downsamplers|upsamplers)\.(\d+)\.(.+)")


def write(
    file: Path, layers: Mapping[str, Tensor], *, rank: int, alpha: float, unet: Any, scheduler: Any, side: int
) -> None:
    """The adapter `layers`, named as peft does, at its true scale `alpha / rank`. `side`: of pictures, in pixels.

    diffusers' own converter writes alpha = rank whatever it was.
    """
    from safetensors.torch import save, save_file

    tensors = layout(layers, alpha, unet)
    digest = _digest(save(tensors))
    base, architecture, implementation = _kind(unet.config, scheduler.config)
    velocity = scheduler.config.prediction_type == "v_prediction"
    header = {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(alpha)),
        "ss_base_model_version": base,
        "ss_v2": str(base.startswith("sd_v2")),
        "sshs_model_hash": digest,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": implementation,
        "modelspec.title": "LoRA, trained with smpo",
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.prediction_type": "v" if velocity else "epsilon",
        "modelspec.hash_sha256": f"0x{digest}",
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, metadata=header)


def layout(layers: Mapping[str, Tensor], alpha: float, unet: Any) -> dict[str, Tensor]:
    """`a.b.lora_A.weight` -> `lora_unet_a_b.lora_down.weight`, and alpha beside each pair."""
    found: dict[str, Tensor] = {}
    for name, value in layers.items():
        module, part, weight = name.rsplit(".", 2)
        if _is_xl(unet.config):
            module = original_name(module, unet.config.layers_per_block)
        prefix = "lora_unet_" + module.replace(".", "_")
        found[f"{prefix}.{_PARTS[part]}.{weight}"] = value
        found[f"{prefix}.alpha"] = torch.tensor(float(alpha))
    return found


def original_name(module: str, layers: int) -> str:
    """What SDXL's authors call a module of diffusers' UNet with so many `layers` per block.

    Their blocks are numbered through: on the way down one for each layer and one for each step to a smaller size, on
    the way up one for each of the `layers + 1` layers, with the step to a larger size at its end.
    """
    if module in _TOP:
        return _TOP[module]
    inner = _INNER.fullmatch(module)
    if inner is None:
        return module
    way, block, kind, number, rest = inner[1], int(inner[2] or 0), inner[3], int(inner[4]), inner[5]
    if kind == "resnets":
        rest = _IN_RESNET.get(rest, rest)
    if way is None:
        return f"middle_block.{1 if kind == 'attentions' else 2 * number}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
    if kind == "upsamplers":  # SDXL's sit in blocks with attention
        return f"output_blocks.{block * (layers + 1) + layers}.2.{rest}"
    place = 1 if kind == "attentions" else 0
    if way == "down":
        return f"input_blocks.{1 + block * (layers + 1) + number}.{place}.{rest}"
    return f"output_blocks.{block * (layers + 1) + number}.{place}.{rest}"


def _is_xl(unet: Any) -> bool:
    return str(unet.get("addition_embed_type")) == "text_time"


def _kind(unet: Any, scheduler: Any) -> tuple[str, str, str]:
    """`ss_base_model_version`, ModelSpec's architecture and whose UNet the names are of."""
    if _is_xl(unet):
        return (
            "sdxl_base_v1-0",
            "stable-diffusion-xl-v1-base",
            "https://github.com/Stability-AI/generative-models",
        )
    if unet["cross_attention_dim"] != 1024:
        return "sd_v1", "stable-diffusion-v1", "diffusers"
    if scheduler["prediction_type"] == "v_prediction":
        return "sd_v2_v", "stable-diffusion-v2-768-v", "diffusers"
    return "sd_v2", "stable-diffusion-v2-512", "diffusers"


def _digest(content: bytes) -> str:
    """SHA-256 of a safetensors file without its header, by which such files are known whatever was written there."""
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
