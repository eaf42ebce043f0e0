"""MPS against the formula of its evaluation scripts, heads and positions one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from smpo.kinds import Runtime
from smpo.rewards.networks.mps import load_mps
from tests.rewards.published import CONDITION

Pictures = list[Image.Image]


def mps_by_hand(folder: Path, clip: Path, image: Image.Image, prompt: str, threshold: float) -> tuple[float, int]:
    """One picture, as the evaluation scripts go about it; heads and positions one by one."""
    from safetensors.torch import load_file
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(clip)
    w = {k.removeprefix("mps.cross_model."): v for k, v in load_file(folder / "model.safetensors").items()}
    tokenizer = CLIPTokenizer.from_pretrained(clip)

    def texts(text: str) -> tuple[Tensor, Tensor]:
        ids = tokenizer(text, padding="max_length", truncation=True, max_length=24, return_tensors="pt").input_ids
        out = model.text_model(ids)
        return model.text_projection(out[0])[0], model.text_projection(out[1])[0]

    def norm(x: Tensor, name: str) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * w[name]

    def gate(x: Tensor) -> Tensor:
        value, opening = x[:, :40], x[:, 40:]
        return opening / (1 + torch.exp(-opening)) * value

    def turned(x: Tensor) -> Tensor:
        place = torch.arange(len(x))[:, None] / 10000 ** (torch.arange(32) / 32)
        return torch.cat(
            [
                x[:, :32] * place.cos() - x[:, 32:] * place.sin(),
                x[:, 32:] * place.cos() + x[:, :32] * place.sin(),
            ],
            1,
        )

    with torch.no_grad():
        tokens, whole = texts(prompt)
        wanted, _ = texts(CONDITION)
        alike = (wanted @ tokens.T).max(dim=0).values
        mask = torch.where(alike / alike.max() > threshold, 0.0, -torch.inf)
        pixels = CLIPImageProcessorPil.from_pretrained(clip)(image, return_tensors="pt").pixel_values
        x = model.visual_projection(model.vision_model(pixels)[0])[0]
        for layer in range(2):
            stem = f"layers.{layer}.0.fn."
            y = norm(x, stem + "norm.weight")
            q = y @ w[stem + "to_q.weight"].T
            k, v = (tokens @ w[stem + "to_kv.weight"].T).split(64, 1)
            heads = [((q[:, h * 64 : h * 64 + 64] @ k.T) / 8 + mask).softmax(-1) @ v for h in range(3)]
            inner = gate(y @ w[stem + "ff.0.weight"].T) @ w[stem + "ff.2.weight"].T
            x = torch.cat(heads, 1) @ w[stem + "to_out.weight"].T + inner + x
            stem = f"layers.{layer}.1.fn."
            q, k, v, inner = (norm(x, stem + "norm.weight") @ w[stem + "fused_attn_ff_proj.weight"].T).split(
                (192, 64, 64, 80), 1
            )
            heads = [(turned(q[:, h * 64 : h * 64 + 64]) @ turned(k).T / 8).softmax(-1) @ v for h in range(3)]
            out = torch.cat(heads, 1) @ w[stem + "attn_out.weight"].T
            x = out + gate(inner) @ w[stem + "ff_out.1.weight"].T + x
        score = model.logit_scale.exp() * F.cosine_similarity(x[0], whole, dim=0)
    return float(score), int(mask.isinf().sum())


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.9])
def test_mps_is_the_evaluation_scripts_formula(
    mps: Path, small_clip: Path, images: Pictures, prompts: list[str], threshold: float
) -> None:
    scorer = load_mps(
        mps, file="model.safetensors", clip=small_clip, condition=CONDITION, threshold=threshold,
        runtime=Runtime(batch=4),
    )  # fmt: skip
    by_hand = [
        mps_by_hand(mps, small_clip, image, prompt, threshold) for image, prompt in zip(images, prompts, strict=True)
    ]
    expected = torch.tensor([score for score, _ in by_hand])
    assert float(expected.std()) > 0.05
    assert threshold < 0.9 or any(masked for _, masked in by_hand), "some words should be masked"
    torch.testing.assert_close(scorer(images, prompts), expected, rtol=1e-4, atol=1e-5)
