"""How published rewards lay pictures out, where transformers' image processor isn't what they used.

All take an image (or `[H, W, 3]` bytes) and give `[3, side, side]` float32. Pictures are made RGB first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["CLIP_MEAN", "CLIP_STD", "ShortSide", "WholePicture"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ShortSide:
    """As OpenAI's `clip` package and ImageReward do it with torchvision: short side, centre, on bytes.

    Pillow's bicubic filter, like transformers' processor; but the crop's corner is rounded to the nearest pixel
    (halves to even), where transformers rounds down: pictures that aren't square may lie one pixel off.
    """

    side: int = 224
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __call__(self, picture: Picture) -> NDArray[np.float32]:
        image = _rgb(picture)
        width, height = image.size
        if width <= height:
            width, height = self.side, int(self.side * height / width)
        else:
            width, height = int(self.side * width / height), self.side
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - self.side) / 2), round((height - self.side) / 2)
        image = image.crop((left, top, left + self.side, top + self.side))
        return _normal(_unit(image), self.mean, self.std)


@dataclass(frozen=True)
class WholePicture:
    """As HPSv2 does it: a tensor first, its *longest* side to `side`, black round it, then mean and std.

    `antialias` is about shrinking. torchvision's resize of *tensors* did not antialias before 0.17 and does since, so
    what the published package computes depends on what is installed beside it. True is what it gives today, and what
    a picture looks like; False is what an environment of 2023 gave.
    """

    side: int = 224
    antialias: bool = True
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __call__(self, picture: Picture) -> NDArray[np.float32]:
        tensor = _unit(_rgb(picture))
        height, width = tensor.shape[1:]
        scale = self.side / float(max(height, width))
        if scale != 1.0:
            height, width = round(height * scale), round(width * scale)
            tensor = torch.nn.functional.interpolate(
                tensor[None], (height, width), mode="bicubic", align_corners=False, antialias=self.antialias
            )[0]
        # The published code pads only what it has resized, and fails on a narrow picture of exactly this length.
        below, beside = self.side - height, self.side - width
        edges = (beside // 2, beside - beside // 2, below // 2, below - below // 2)
        return _normal(torch.nn.functional.pad(tensor, edges), self.mean, self.std)


def _rgb(picture: Picture) -> Image.Image:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    return image.convert("RGB")


def _unit(image: Image.Image) -> Tensor:
    """`[3, H, W]` in [0, 1]."""
    return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy()).float().div(255)


def _normal(tensor: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    shift, scale = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    found: NDArray[np.float32] = tensor.sub(shift).div(scale).numpy()
    return found
