"""BLIP as ImageReward uses it: a vision transformer, and BERT whose layers also look at the picture.

Plain torch, under the published checkpoint's own names, so that a file of ImageReward's goes in as it is, and no
version of transformers, timm or fairscale has a say.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["BertShape", "CrossBert", "VisionTransformer"]


class VisionTransformer(nn.Module):
    """`[N, 3, S, S] -> [N, 1 + patches, width]`: pre-norm blocks, a class token, learned positions."""

    def __init__(self, *, side: int, patch: int, width: int, depth: int, heads: int, inner: int) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
        self.blocks = nn.ModuleList([_Block(width, heads, inner) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.norm(x)
        return found


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attn["qkv"](self.norm1(x)).chunk(3, dim=-1)
        x = x + self.attn["proj"](_attend(query, key, value, self.heads))
        found: Tensor = x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))
        return found


@dataclass(frozen=True)
class BertShape:
    """The values of `med_config.json`; `seen` is the width of the picture's tokens."""

    vocabulary: int = 30524
    width: int = 768
    depth: int = 12
    heads: int = 12
    inner: int = 3072
    positions: int = 512
    eps: float = 1e-12
    seen: int = 1024


class CrossBert(nn.Module):
    """BERT, bidirectional; each layer looks at the text, then at the picture. `[N, L] -> [N, L, width]`."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(shape.vocabulary, shape.width),
                "position_embeddings": nn.Embedding(shape.positions, shape.width),
                "LayerNorm": nn.LayerNorm(shape.width, eps=shape.eps),
            }
        )
        layers = nn.ModuleList([_Layer(shape) for _ in range(shape.depth)])
        self.encoder = nn.ModuleDict({"layer": layers})

    def forward(self, ids: Tensor, mask: Tensor, picture: Tensor) -> Tensor:
        """`mask [N, L]` is 0 where there is padding."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        words = self.embeddings["word_embeddings"](ids) + self.embeddings["position_embeddings"](positions)
        x: Tensor = self.embeddings["LayerNorm"](words)
        shown = mask[:, None, None, :].bool()
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            x = layer(x, shown, picture)
        return x


class _Layer(nn.Module):
    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = _Attention(shape, shape.width)
        self.crossattention = _Attention(shape, shape.seen)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(shape.width, shape.inner)})
        self.output = _added(shape, shape.inner)

    def forward(self, x: Tensor, shown: Tensor, picture: Tensor) -> Tensor:
        x = self.attention(x, x, shown)
        x = self.crossattention(x, picture, None)
        inner = nn.functional.gelu(self.intermediate["dense"](x))
        found: Tensor = self.output["LayerNorm"](self.output["dense"](inner) + x)
        return found


class _Attention(nn.Module):
    def __init__(self, shape: BertShape, seen: int) -> None:
        super().__init__()
        self.heads = shape.heads
        query, key, value = (nn.Linear(width, shape.width) for width in (shape.width, seen, seen))
        # `self` is what the checkpoint calls it.
        self.add_module("self", nn.ModuleDict({"query": query, "key": key, "value": value}))
        self.output = _added(shape, shape.width)

    def forward(self, x: Tensor, seen: Tensor, shown: Tensor | None) -> Tensor:
        maps = self.get_submodule("self")
        assert isinstance(maps, nn.ModuleDict)
        found = _attend(maps["query"](x), maps["key"](seen), maps["value"](seen), self.heads, shown)
        added: Tensor = self.output["LayerNorm"](self.output["dense"](found) + x)
        return added


def _added(shape: BertShape, width: int) -> nn.ModuleDict:
    """What BERT does at the end of each part: a linear map, then the norm of its sum with what came in."""
    return nn.ModuleDict(
        {"dense": nn.Linear(width, shape.width), "LayerNorm": nn.LayerNorm(shape.width, eps=shape.eps)}
    )


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, shown: Tensor | None = None) -> Tensor:
    """`[N, L, D]`, attention with `heads` heads; `shown` is true where there is something to see."""
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=shown)
    return found.transpose(1, 2).flatten(2)
