"""LAION's aesthetic predictor against its formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from smpo.kinds import Runtime
from smpo.rewards.networks.aesthetic import load_aesthetic_scorer
from smpo.rewards.networks.preprocessing import ShortSide

Pictures = list[Image.Image]


def test_aesthetic_score_is_one_affine_map_of_the_unit_embedding(
    aesthetic: Path, small_clip: Path, images: Pictures, prompts: list[str]
) -> None:
    from transformers import CLIPModel

    scorer = load_aesthetic_scorer(aesthetic, file="head.pth", clip=small_clip, runtime=Runtime(batch=4))
    head = torch.load(aesthetic / "head.pth", weights_only=True)
    pixels = torch.from_numpy(np.stack([ShortSide(32)(image) for image in images]))
    with torch.no_grad():
        model = CLIPModel.from_pretrained(small_clip)
        embedding = model.visual_projection(model.vision_model(pixels).pooler_output).double()
    x = embedding / embedding.norm(dim=-1, keepdim=True)
    for layer in (0, 2, 4, 6, 7):  # as numbered in the published file
        x = x @ head[f"layers.{layer}.weight"].double().T + head[f"layers.{layer}.bias"].double()
    found = scorer(images, prompts)
    assert float(x.std()) > 1e-3
    torch.testing.assert_close(found.double(), x[:, 0], rtol=1e-5, atol=1e-6)
    assert torch.equal(found, scorer(images, prompts[::-1]))  # it never sees the prompt
