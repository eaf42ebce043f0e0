"""Files that a run starts from: pipelines, a PickScore, and votes in Pick-a-Pic's schema."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.worlds import vote, write
from tests.families.conftest import make_sd, make_sdxl
from tests.rewards.conftest import make_clip

__all__ = ["PROMPTS", "make_pickscore", "make_sd", "make_sdxl", "make_votes"]

PROMPTS = ("a red circle", "two blue squares", "green", "a yellow star on a hill")


def make_pickscore(folder: Path) -> tuple[Path, Path]:
    """`(weights, processor)`: PickScore lies in a repository of weights alone, its processor in another."""
    weights, processor = make_clip(folder / "weights"), folder / "processor"
    processor.mkdir()
    for file in sorted(weights.iterdir()):
        if file.name not in ("config.json", "model.safetensors"):
            shutil.move(file, processor / file.name)
    shutil.copy(weights / "config.json", processor)
    return weights, processor


def make_votes(file: Path, rows: int = 12, *, ties: Sequence[int] = (5,), side: int = 48) -> Path:
    """Wide and tall JPEGs of coarse noise; the images of a row are different, prompts recur."""
    numbers = np.random.default_rng(0)

    def picture(i: int) -> bytes:
        coarse = numbers.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        size = (side, side - 14) if i % 2 else (side - 10, side)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).save(stream, "JPEG", quality=95)
        return stream.getvalue()

    return write(
        file,
        [
            vote(
                PROMPTS[i % len(PROMPTS)],
                picture(2 * i),
                picture(2 * i + 1),
                0.5 if i in ties else float(i % 3 > 0),
            )
            for i in range(rows)
        ],
    )
