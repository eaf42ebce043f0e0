"""The original authors' names for the weights of a pipeline: our own map, opposite to the one diffusers reads with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_TOP = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def single_file(
    pipeline: Any, path: Path, *, openclip: str | None = None, more: dict[str, Tensor] | None = None
) -> Path:
    """Write `pipeline` as one file. `openclip` names the text encoder that has OpenCLIP's names, if one has."""
    xl = hasattr(pipeline, "text_encoder_2")
    tensors = {
        f"model.diffusion_model.{unet_name(name, pipeline.unet)}": v for name, v in pipeline.unet.state_dict().items()
    }
    tensors |= {f"first_stage_model.{_vae(n, v, pipeline.vae)[0]}": _vae(n, v, pipeline.vae)[1]
                for n, v in pipeline.vae.state_dict().items()}  # fmt: skip
    for number, part in enumerate(["text_encoder", "text_encoder_2"] if xl else ["text_encoder"]):
        weights = getattr(pipeline, part).state_dict()
        stem = f"conditioner.embedders.{number}." if xl else "cond_stage_model."
        if part == openclip:
            tensors |= {f"{stem}model.{name}": value for name, value in _openclip(weights).items()}
        else:
            plain = {name.removeprefix("text_model."): value for name, value in weights.items()}
            tensors |= {f"{stem}transformer.text_model.{name}": value for name, value in plain.items()}
    save_file({name: value.contiguous() for name, value in (tensors | (more or {})).items()}, path)
    return path


def unet_name(name: str, unet: Any) -> str:
    layers = unet.config.layers_per_block
    for ours, theirs in _TOP.items():
        if name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        place = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"middle_block.{place}.{_inner(found[1], found[3])}"
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name)
    assert found is not None, name
    side, block, kind, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{block * (layers + 1) + 1 + number}.{int(kind == 'attentions')}.{_inner(kind, rest)}"
    if kind == "upsamplers":
        attends = "CrossAttn" in unet.config.up_block_types[block]
        return f"output_blocks.{block * (layers + 1) + layers}.{1 + attends}.{rest}"
    return f"output_blocks.{block * (layers + 1) + number}.{int(kind == 'attentions')}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    part, _, tail = rest.partition(".")
    return f"{_RESNET[part]}.{tail}"


def _vae(name: str, value: Tensor, vae: Any) -> tuple[str, Tensor]:
    last = len(vae.config.block_out_channels) - 1
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
    if "mid_block.attentions.0" in name:
        name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
        name = re.sub(r"to_([qkv])\.", r"\1.", name).replace("to_out.0", "proj_out")
        if value.ndim == 2:
            value = value[:, :, None, None]  # the original's attention is made of 1 x 1 convolutions
    return name, value


def _openclip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names to OpenCLIP's, with query, key and value in one matrix."""
    found: dict[str, Tensor] = {}
    rename = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
    }  # fmt: skip
    for full, value in weights.items():
        name = full.removeprefix("text_model.")
        if name == "text_projection.weight":
            found["text_projection"] = value.T
        elif name in rename:
            found[rename[name]] = value
        elif layer := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", name):
            stem, rest = f"transformer.resblocks.{layer[1]}.", layer[2]
            if ".k_proj." in rest or ".v_proj." in rest:
                continue
            if ".q_proj." in rest:
                parts = [weights[full.replace("q_proj", f"{one}_proj")] for one in "qkv"]
                found[f"{stem}attn.in_proj_{rest.rsplit('.', 1)[1]}"] = torch.cat(parts)
            else:
                for ours, theirs in (("self_attn.", "attn."), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                                     ("fc1", "c_fc"), ("fc2", "c_proj")):  # fmt: skip
                    rest = rest.replace(ours, theirs)
                found[stem + rest] = value
        else:
            raise AssertionError(full)
    return found
