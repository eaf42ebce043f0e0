"""The shapes world: 64 px pictures of one object, a real pipeline that draws, a judge that measures.

Import costs nothing: no torch, no numpy. The folders open with the plain libraries:

    StableDiffusionPipeline.from_pretrained(BASE, use_safetensors=True)
    CLIPModel.from_pretrained(REWARD)            # PickScore's architecture: cosine * exp(logit_scale)
    pyarrow.parquet.read_table(PAIRS)            # Pick-a-Pic v2's columns
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["BASE", "PAIRS", "REWARD", "WEIGHTS"]

WEIGHTS = Path(__file__).parent / "weights"
BASE = WEIGHTS / "base"
"""A diffusers StableDiffusionPipeline folder."""
REWARD = WEIGHTS / "reward"
"""A transformers CLIPModel folder with tokenizer and image processor: learnt from votes alone."""
PAIRS = WEIGHTS / "pairs" / "train.parquet"
"""Voted pairs of the base's own pictures, on prompts of the training split."""
