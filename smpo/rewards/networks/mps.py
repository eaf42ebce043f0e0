"""MPS: the multi-dimensional preference score. A CLIP whose picture is read in the light of some words of the prompt.

    image = CLS of the picture's tokens, after looking at the prompt's tokens through 4 layers of cross-attention
    score = exp(logit_scale) · cos(image, prompt)

Zhang et al. 2024 (arXiv:2405.14705). Which words are looked at is decided by a *condition*, a list of what matters
("light, color, clarity, ..."): a prompt token whose largest similarity to a token of the condition is at most
`threshold` times the prompt's largest is masked. The published model's own `forward` uses 0.01, its evaluation scripts
0.3; scores of the two are not comparable. The scripts take one picture at a time, and so the maximum over the prompt;
`forward` takes it over the batch, which makes scores depend on their neighbours. Here it is always the prompt's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from smpo.imaging.transfer import to_device
from smpo.kinds import Runtime
from smpo.rewards.networks.checkpoint_files import checkpoint_file, fill, read_tensors
from smpo.rewards.networks.clip_like import (
    load_tokenizer,
    preprocessing_of,
    text_patterns,
    token_length,
    vocabulary,
)
from smpo.rewards.networks.clip_preprocessing import ClipPreprocessing
from smpo.rewards.networks.network import NetworkScorer, Precision, precision_facts
from smpo.weights import content_key, locate, opened

if TYPE_CHECKING:
    pass

__all__ = ["CrossModel", "MPSNetwork", "MPSScorer", "load_mps"]

_VERSION = "mps/1"
_HEAD = 64
"""Width of a head; the cross-attention has one key and value for all of its heads."""


class MPSNetwork(nn.Module):
    """A CLIPModel and the cross-attention on top. Parameters have the published checkpoint's names."""

    def __init__(self, clip: Any, cross: CrossModel) -> None:
        super().__init__()
        self.model = clip
        self.cross_model = cross

    def picture_tokens(self, pixels: Tensor) -> Tensor:
        """`[N, 1 + patches, D]`: not normalised, as published."""
        found: Tensor = self.model.visual_projection(self.model.vision_model(pixels).last_hidden_state)
        return found

    def text_tokens(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """`([N, L, D], [N, D])`: every token, padding included, and the one that ends the text."""
        found = self.model.text_model(ids)
        return (
            self.model.text_projection(found.last_hidden_state),
            self.model.text_projection(found.pooler_output),
        )

    def forward(self, pixels: Tensor, ids: Tensor, condition: Tensor, threshold: float) -> Tensor:
        """`[N]`; `condition [1, L]`."""
        text, whole = self.text_tokens(ids)
        wanted, _ = self.text_tokens(condition)
        alike = (text @ wanted[0].T).float().amax(dim=-1)
        shown = alike / alike.amax(dim=-1, keepdim=True) > threshold
        picture, whole = (
            one.float() for one in (self.cross_model(self.picture_tokens(pixels), text, shown)[:, 0], whole)
        )
        cosine = (picture * whole).sum(-1) / (picture.norm(dim=-1) * whole.norm(dim=-1))
        scores: Tensor = self.model.logit_scale.exp() * cosine
        return scores


class MPSScorer(NetworkScorer):
    """A `kinds.Scorer` round the network."""

    _network: Any

    def __init__(
        self,
        network: MPSNetwork,
        tokenizer: Any,
        preprocessing: ClipPreprocessing,
        *,
        condition: str,
        threshold: float,
        key: str,
        runtime: Runtime,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__(preprocessing, key=key, runtime=runtime, precision=precision)
        self._hold("_network", network)
        self._tokenizer = tokenizer
        self._length = token_length(tokenizer, network.model)
        self._condition = condition
        self._threshold = threshold

    def _score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        found: Tensor = self._network(pixels, self._ids(prompts), self._ids([self._condition]), self._threshold)
        return found

    def _ids(self, texts: Sequence[str]) -> Tensor:
        """Padded to the full length: padding is looked at, so its amount is part of the score."""
        tokens = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._length, return_tensors="pt"
        )
        return to_device(tokens.input_ids, self._device)


class CrossModel(nn.Module):
    """Layers of two steps: look at the text, then at each other; each step with a gated feed-forward beside it."""

    def __init__(self, width: int, depth: int, heads: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([_Residual(_Cross(width, heads, inner)), _Residual(_Own(width, heads, inner))])
            for _ in range(depth)
        )

    def forward(self, x: Tensor, text: Tensor, shown: Tensor) -> Tensor:
        """`x [N, P, D]`, `text [N, L, D]`, `shown [N, L]` true for words that count."""
        for steps in self.layers:
            assert isinstance(steps, nn.ModuleList)
            look, think = steps
            x = think(look(x, text, shown))
        return x


class _Residual(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor, *seen: Tensor) -> Tensor:
        found: Tensor = self.fn(x, *seen)
        return found + x


class _Norm(nn.Module):
    """A layer norm whose bias is a constant, zero in every published file."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.register_buffer("bias", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        bias = self.get_buffer("bias")
        return nn.functional.layer_norm(x, x.shape[-1:], self.weight, bias)


class _Gate(nn.Module):
    """SwiGLU; the second half opens the first."""

    def forward(self, x: Tensor) -> Tensor:
        x, gate = x.chunk(2, dim=-1)
        return nn.functional.silu(gate) * x


class _Cross(nn.Module):
    """Picture tokens look at words."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _Norm(width)
        self.context_norm = nn.Identity()
        self.to_q = nn.Linear(width, heads * _HEAD, bias=False)
        self.to_kv = nn.Linear(width, 2 * _HEAD, bias=False)
        self.to_out = nn.Linear(heads * _HEAD, width, bias=False)
        self.ff = nn.Sequential(nn.Linear(width, 2 * inner, bias=False), _Gate(), nn.Linear(inner, width, bias=False))

    def forward(self, x: Tensor, text: Tensor, shown: Tensor) -> Tensor:
        x = self.norm(x)
        query = self.to_q(x).unflatten(-1, (self.heads, _HEAD)).transpose(1, 2)
        key, value = self.to_kv(text)[:, None].chunk(2, dim=-1)
        found = _attend(query, key, value, shown[:, None, None, :])
        out: Tensor = self.to_out(found) + self.ff(x)
        return out


class _Own(nn.Module):
    """Picture tokens look at each other, with rotary positions; PaLM's parallel block."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.parts = (heads * _HEAD, _HEAD, _HEAD, 2 * inner)
        self.norm = _Norm(width)
        self.rotary_emb = _Rotary()
        self.fused_attn_ff_proj = nn.Linear(width, sum(self.parts), bias=False)
        self.attn_out = nn.Linear(heads * _HEAD, width, bias=False)
        self.ff_out = nn.Sequential(_Gate(), nn.Linear(inner, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value, inner = self.fused_attn_ff_proj(self.norm(x)).split(self.parts, dim=-1)
        query = query.unflatten(-1, (self.heads, _HEAD)).transpose(1, 2)
        angles = self.rotary_emb(x.shape[1])
        found = _attend(_turned(query, angles), _turned(key, angles)[:, None], value[:, None], None)
        out: Tensor = self.attn_out(found) + self.ff_out(inner)
        return out


class _Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / 10000 ** (torch.arange(0, _HEAD, 2).float() / _HEAD))

    def forward(self, length: int) -> Tensor:
        frequencies = self.get_buffer("inv_freq")
        angles = torch.outer(torch.arange(length, device=frequencies.device).float(), frequencies)
        return torch.cat([angles, angles], dim=-1)


def load_mps(
    path_or_id: str | Path,
    *,
    file: str,
    clip: str | Path,
    condition: str,
    threshold: float,
    revision: str | None = None,
    precision: Precision = "fp32",
    runtime: Runtime,
) -> MPSScorer:
    """`file` is the checkpoint in the folder or repository; `clip` has architecture, tokenizer and preprocessing.

    Raises `MachineError` when something isn't here or doesn't fit.
    """
    from transformers import CLIPConfig, CLIPModel

    what = "MPS"
    path = checkpoint_file(path_or_id, file, what=what, revision=revision)
    words = locate(clip, what="the CLIP that MPS was made from", patterns=text_patterns())
    preprocessing, tokenizer = preprocessing_of(words), load_tokenizer(words)
    with opened("the CLIP's config", words):
        config = CLIPConfig.from_pretrained(words)
        width = int(config.projection_dim)  # type: ignore[arg-type]  # None ends as a config that can't be read
    tensors = {
        name.removeprefix("mps."): tensor.float()
        for name, tensor in read_tensors(path, what=what).items()
        if not name.endswith(_COUNTING)
    }
    query = tensors.get("cross_model.layers.0.0.fn.to_q.weight", torch.empty(_HEAD, 0))
    inner = tensors.get("cross_model.layers.0.0.fn.ff.2.weight", torch.empty(0, 1)).shape[1]
    layers = {name.split(".")[2] for name in tensors if name.startswith("cross_model.layers.")}
    cross = CrossModel(width, len(layers), len(query) // _HEAD, inner)
    network = MPSNetwork(CLIPModel(config).float(), cross)
    _with_constants(network, tensors)
    fill(network, tensors, path, what=f"MPS on {clip}")
    facts = {"version": _VERSION, "condition": condition, "threshold": threshold}
    facts |= {"preprocessing": asdict(preprocessing), "vocabulary": vocabulary(tokenizer)}
    facts |= precision_facts(precision)
    return MPSScorer(
        network,
        tokenizer,
        preprocessing,
        condition=condition,
        threshold=threshold,
        key=content_key(facts, [words / "config.json", path]),
        runtime=runtime,
        precision=precision,
    )


# ------------------------------------------------------------------------------------------------------------

_COUNTING = (".position_ids", ".pos_emb")
"""Buffers that some files carry and that only count."""


def _with_constants(network: MPSNetwork, tensors: dict[str, Tensor]) -> None:
    """Files without the constants of rotary positions and norms get the formula's."""
    for name, constant in network.state_dict().items():
        if name.endswith((".inv_freq", ".fn.norm.bias")):
            tensors.setdefault(name, constant)


def _attend(query: Tensor, key: Tensor, value: Tensor, shown: Tensor | None) -> Tensor:
    """`[N, P, heads·64]`; one key and value, shared by all heads."""
    heads = query.shape[1]
    key, value = key.expand(-1, heads, -1, -1), value.expand(-1, heads, -1, -1)
    found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=shown)
    return found.transpose(1, 2).flatten(2)


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return (x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()).to(x.dtype)
