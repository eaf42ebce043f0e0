"""LAION's aesthetic predictor: how much people like a picture, independent of the prompt.

    score = MLP(v / |v|),  v = CLIP's projected image embedding

The "MLP" has no activations (they are commented out in the published code), so it is one affine map written as five;
it is kept as five, because their rounding is part of published numbers. The prompt plays no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from smpo.kinds import Runtime
from smpo.rewards.networks.checkpoint_files import checkpoint_file, fill, read_tensors
from smpo.rewards.networks.clip_like import vectors
from smpo.rewards.networks.network import NetworkScorer, Precision, precision_facts
from smpo.rewards.networks.preprocessing import ShortSide
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


class AestheticScorer(NetworkScorer):
    """A `kinds.Scorer` round a CLIP's image tower and a linear head; the head is always in float32."""

    _model: Any
    _head: Any

    def __init__(
        self,
        model: Any,
        head: nn.Module,
        preprocessing: ShortSide,
        *,
        key: str,
        runtime: Runtime,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__(preprocessing, key=key, runtime=runtime, precision=precision)
        self._hold("_model", model)
        self._hold("_head", head, torch.float32)

    @torch.no_grad()
    def embed(self, pictures: Sequence[Picture]) -> Tensor:
        """`[N, D]` unit vectors on the CPU: how the tower sees pictures."""
        parts = [
            self._units(self._sent([self.preprocess(picture) for picture in pictures[some]])).cpu()
            for some in self._batches(len(pictures))
        ]
        return torch.cat(parts) if parts else torch.empty(0, 1)

    def _units(self, pixels: Tensor) -> Tensor:
        found = vectors(self._model.get_image_features(pixel_values=pixels)).float()
        unit: Tensor = found / found.norm(dim=-1, keepdim=True)
        return unit

    def _score(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """Prompts are not looked at."""
        scores: Tensor = self._head(self._units(pixels))[:, 0]
        return scores


def load_aesthetic_scorer(
    path_or_id: str | Path,
    *,
    file: str,
    clip: str | Path,
    revision: str | None = None,
    clip_revision: str | None = None,
    precision: Precision = "fp32",
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
    facts = {"version": _VERSION, "preprocessing": asdict(preprocessing), **precision_facts(precision)}
    key = content_key(facts, [path, folder / "config.json", *weight_files(folder)])
    return AestheticScorer(model, head, preprocessing, key=key, runtime=runtime, precision=precision)
