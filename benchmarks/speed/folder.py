"""Everything that a run of SD 1.5 or SDXL starts from, with random weights: a pipeline's folder, votes, a reward."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from speed.archs import SCHEDULE, World, build

__all__ = ["make_experiment"]

WORDS = (
    "red",
    "blue",
    "old",
    "quiet",
    "huge",
    "tiny",
    "bright",
    "castle",
    "river",
    "cat",
    "robot",
    "forest",
    "street",
)


def make_experiment(arch: str, folder: Path, *, device: torch.device, pairs: int, reduced: bool) -> list[str]:
    """Writes the files; returns the settings with which `experiments/{sd15,sdxl}_smpo.yaml` start from them.

    Pictures are JPEGs of quality 90, as large as the model's, of smooth noise, so that they take about as long
    to decode as photographs. The reward is a CLIP of PickScore's size, or a small one if `reduced`.
    """
    world = build(arch, device, 1, reduced=reduced)
    _pipeline(world, folder / "model")
    side = world.images.shape[-1]
    _votes(folder / "votes.parquet", pairs, side)
    _reward(folder / "reward", reduced=reduced)
    (folder / "prompts.txt").write_text("\n".join(_prompts(64, seed=1)) + "\n")
    reward = f"{{use: clip-preference, weights: {folder / 'reward'}, processor: {folder / 'reward'}}}"
    return [
        f"model={{use: stable-diffusion, weights: {folder / 'model'}, resolution: {side}}}",
        f"data={{use: pickapic, path: {folder / 'votes.parquet'}}}",
        f"reward={reward}",
        "smoothing=likelihood",
        f"evaluate.prompts={{use: text, path: {folder / 'prompts.txt'}}}",
        f"evaluate.rewards=[{reward}]",
    ]


def _pipeline(world: World, folder: Path) -> None:
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    told = {key: value for key, value in SCHEDULE.items() if not key.startswith("_")}
    shared: dict[str, Any] = {
        "vae": world.vae,
        "unet": world.policy,
        "scheduler": DDIMScheduler(**told),  # type: ignore[arg-type]
        "text_encoder": world.encoders[0],
        "tokenizer": _tokenizer(),
    }
    if world.arch == "sd15":
        pipeline: Any = StableDiffusionPipeline(
            **shared, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )  # type: ignore[arg-type]
    else:
        pipeline = StableDiffusionXLPipeline(
            **shared,
            text_encoder_2=world.encoders[1],
            tokenizer_2=_tokenizer(),
            add_watermarker=False,
        )  # type: ignore[arg-type]
    pipeline.save_pretrained(folder)


def _tokenizer() -> Any:
    """CLIP's, but that it knows letters alone: a vocabulary can't be made up, and time doesn't depend on it."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _prompts(count: int, seed: int) -> list[str]:
    numbers = np.random.default_rng(seed)
    return [" ".join(numbers.choice(WORDS, 8)) + f" {i}" for i in range(count)]


def _votes(file: Path, pairs: int, side: int) -> None:
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    numbers = np.random.default_rng(0)

    def picture() -> bytes:
        coarse = numbers.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        return stream.getvalue()

    rows = []
    for caption in _prompts(pairs, seed=0):
        images = [picture(), picture()]
        uids = [hashlib.md5(data, usedforsecurity=False).hexdigest() for data in images]
        rows.append(
            {
                "caption": caption, "jpg_0": images[0], "jpg_1": images[1], "label_0": 1.0, "label_1": 0.0,
                "has_label": True, "best_image_uid": uids[0], "image_0_uid": uids[0], "image_1_uid": uids[1],
            }
        )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), file)


def _reward(folder: Path, *, reduced: bool) -> None:
    """A CLIP ViT-H/14 as PickScore is one."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = _tokenizer()
    text = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    vision = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
    }
    if reduced:
        small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        text, vision = dict(small), dict(small)
    side, patch, width = (32, 8, 32) if reduced else (224, 14, 1024)
    ends = {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**text, **ends, "hidden_act": "gelu"},
        vision_config={**vision, "hidden_act": "gelu", "image_size": side, "patch_size": patch},
        projection_dim=width,
    )
    model: nn.Module = CLIPModel(config)
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(
        folder
    )
