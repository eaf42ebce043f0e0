"""Small rewards of the true architectures, with random weights, in the layouts in which they are published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.rewards.published import aesthetic as aesthetic
from tests.rewards.published import hps as hps
from tests.rewards.published import image_reward as image_reward
from tests.rewards.published import mps as mps

PROMPTS = ["a cat", "two dogs on a hill", "", "word " * 60, "a cat", "fish &amp; chips"]


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return PROMPTS


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """Square, wide, tall, narrow, small, and one whose margin is three pixels."""
    numbers = np.random.default_rng(0)
    sizes = [(32, 32), (90, 41), (37, 61), (200, 33), (10, 14), (32, 35)]
    coarse = [numbers.integers(0, 256, (max(2, h // 6), max(2, w // 6), 3), dtype=np.uint8) for w, h in sizes]
    return [Image.fromarray(one).resize(size) for one, size in zip(coarse, sizes, strict=True)]


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "small")


def make_clip(folder: Path) -> Path:
    """A CLIP folder whose pictures have 32 pixels a side; MPS needs its 32 dimensions."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=24)
    torch.manual_seed(0)
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "hidden_act": "gelu"}
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {
        **shared,
        **ends,
        "vocab_size": len(tokens),
        "max_position_embeddings": 24,
        "num_attention_heads": 4,
    }
    vision = {**shared, "image_size": 32, "patch_size": 8, "num_attention_heads": 2}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.logit_scale.fill_(2.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    square = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    return folder
