"""CLIP checkpoints in open_clip's (and OpenAI's) layout, for rewards that were trained with it.

The network is a CLIP like any other, so its tensors are renamed and go into transformers' class; open_clip is not
needed.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping

from torch import Tensor

__all__ = ["renamed", "unescaped"]


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP state dict of open_clip's (or OpenAI's) layout under the names of transformers' `CLIPModel`."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for new, value in _translate(name.removeprefix("module."), tensor):
            found[new] = value.float()
    return found


def unescaped(prompt: str) -> str:
    """What open_clip's tokenizer does to a prompt beyond what transformers' does: HTML entities, twice.

    It also repairs mojibake when `ftfy` is installed; smpo never does, so that scores don't depend on it.
    """
    return html.unescape(html.unescape(prompt)).strip()


# ------------------------------------------------------------------------------------------------------------

_BLOCK = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.(.+)$")
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_PLAIN = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_NOT_WEIGHTS = ("attn_mask", "input_resolution", "context_length", "vocab_size")
"""Buffers and numbers that some checkpoints carry along."""


def _translate(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name in _NOT_WEIGHTS:
        return
    if name in _PLAIN:
        yield _PLAIN[name], tensor
        return
    if name in _TRANSPOSED:
        yield _TRANSPOSED[name], tensor.T.contiguous()
        return
    block = _BLOCK.match(name)
    if block is None:
        yield name, tensor  # `fill` will say that it doesn't know it
        return
    tower, number, part = block.groups()
    stem = f"{'vision' if tower else 'text'}_model.encoder.layers.{number}"
    if part.startswith("attn.in_proj_"):
        for letter, third in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{stem}.self_attn.{letter}_proj.{part.removeprefix('attn.in_proj_')}", third.contiguous()
        return
    module, _, parameter = part.rpartition(".")
    yield f"{stem}.{_IN_BLOCK.get(module, module)}.{parameter}", tensor
