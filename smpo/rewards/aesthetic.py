"""LAION's aesthetic predictor: how much people like a picture, whatever was asked for.

    score = MLP(v / |v|),  v = CLIP's projected image embedding

The "MLP" has no activations (they are commented out in the published code), so it is one affine map written as five;
it is kept as five, because their rounding is part of published numbers. The prompt plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from smpo.kinds import Runtime
from smpo.rewards.clip_like import vectors
from smpo.rewards.pictures import ShortSide
from smpo.rewards.tensors import checkpoint_file, fill, read_tensors
from smpo.weights import content_key, locate, weight_files, weight_patterns, whole

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["AestheticScorer", "linear_head", "load_aesthetic_scorer"]

_VERSION = "aesthetic/1"


def linear_head(width: int) -> nn.Sequential:
    """`[N, width] -> [N, 1]`: 1024, 128, 64, 16, 1, linear throughout. Dropouts keep the published numbering."""
    return nn.Sequential(
        nn.Linear(width, 1024),
        nn.Dropout(0.2),
        nn.Linear(1024, 128),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.Dropout(0.1),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )


class AestheticScorer:
    """A `kinds.Scorer` round a CLIP's image tower and a linear head, in float32."""

    def __init__(
        self, model: Any, head: nn.Module, preprocessing: ShortSide, *, key: str, runtime: Runtime
    ) -> None:
        self.key = key
        self.preprocessing = preprocessing
        self._device = torch.device(runtime.device)
        self._model = model.requires_grad_(False).eval().to(self._device)
        self._head = head.requires_grad_(False).eval().to(self._device)
        self._batch = runtime.batch

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        """`[N]` float32 on the CPU; prompts are not looked at."""
        if len(pictures) != len(prompts):
            raise ValueError(f"{len(pictures)} pictures for {len(prompts)} prompts")
        starts = range(0, len(pictures), self._batch)
        parts = [self._some(pictures[start : start + self._batch]) for start in starts]
        return torch.cat(parts) if parts else torch.empty(0)

    @torch.no_grad()
    def embed(self, pictures: Sequence[Picture]) -> Tensor:
        """`[N, D]` unit vectors on the CPU: how the tower sees pictures."""
        starts = range(0, len(pictures), self._batch)
        parts = [self._units(pictures[start : start + self._batch]).float().cpu() for start in starts]
        return torch.cat(parts) if parts else torch.empty(0, 1)

    def _units(self, pictures: Sequence[Picture]) -> Tensor:
        pixels = torch.from_numpy(np.stack([self.preprocessing(picture) for picture in pictures]))
        found = vectors(self._model.get_image_features(pixel_values=pixels.to(self._device)))
        unit: Tensor = found / found.norm(dim=-1, keepdim=True)
        return unit

    def _some(self, pictures: Sequence[Picture]) -> Tensor:
        scores: Tensor = self._head(self._units(pictures))[:, 0].float().cpu()
        return scores


def load_aesthetic_scorer(
    path_or_id: str | Path,
    *,
    file: str,
    clip: str | Path,
    revision: str | None = None,
    clip_revision: str | None = None,
    runtime: Runtime,
) -> AestheticScorer:
    """`file` is the head in the folder or repository, `clip` the CLIP whose embeddings it was trained on.

    Raises `MachineError` when something isn't here or doesn't fit.
    """
    from transformers import CLIPModel

    what = "the aesthetic predictor"
    path = checkpoint_file(path_or_id, file, what=what, revision=revision)
    patterns = ["config.json", *weight_patterns()]
    folder = locate(clip, what="the predictor's CLIP", patterns=patterns, revision=clip_revision)
    model = whole(CLIPModel, "the predictor's CLIP", folder)
    preprocessing = ShortSide(int(model.config.vision_config.image_size))
    head = linear_head(int(model.config.projection_dim))
    tensors = {
        name.removeprefix("mlp.").removeprefix("layers."): tensor.float()
        for name, tensor in read_tensors(path, what=what).items()
    }
    fill(head, tensors, path, what=f"an aesthetic predictor for {clip}")
    facts = {"version": _VERSION, "preprocessing": asdict(preprocessing)}
    key = content_key(facts, [path, folder / "config.json", *weight_files(folder)])
    return AestheticScorer(model, head, preprocessing, key=key, runtime=runtime)
