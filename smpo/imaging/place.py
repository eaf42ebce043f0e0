"""One rule for laying a picture onto the square that a model sees.

Resize the short side, cut a window, mirror it. The official code does the same with torchvision, but draws
crop and mirror anew for each image of a pair (method 2b, D20), and tells SDXL that nothing was cut (D21).
Here the placement is an argument, and what SDXL wants to know is part of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smpo.kinds import Placement

__all__ = ["Placed", "place"]

Filter = Literal["bilinear", "bicubic", "lanczos"]

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Placed:
    """`pixels` `[3, P, P]` in [-1, 1]; `original` (height, width) before resizing; `top_left` (y, x) of the
    window in the resized picture, as it is seen: of a mirrored picture, counted in the mirror image."""

    pixels: Tensor
    original: tuple[int, int]
    top_left: tuple[int, int]


def place(picture: Image.Image, resolution: int, placement: Placement, filter: Filter = "bilinear") -> Placed:
    """Short side to `resolution`, window at `placement.crop`, mirrored if `placement.flip`.

    All filters antialias (Pillow's do). The default and the rounding follow torchvision's `Resize` and
    `CenterCrop` on pictures, which made the published models' inputs."""
    original = (picture.height, picture.width)
    picture = _resized(picture.convert("RGB"), resolution, filter)
    left = round((picture.width - resolution) * placement.crop[0])
    top = round((picture.height - resolution) * placement.crop[1])
    window = picture.crop((left, top, left + resolution, top + resolution))
    if placement.flip:
        window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left = picture.width - resolution - left
    bytes_hwc = torch.from_numpy(np.array(window))  # uint8 [P, P, 3]
    return Placed(bytes_hwc.permute(2, 0, 1).contiguous().float().div_(127.5).sub_(1), original, (top, left))


def _resized(picture: Image.Image, resolution: int, filter: Filter) -> Image.Image:
    width, height = picture.size
    if min(width, height) == resolution:
        return picture
    if width <= height:
        size = (resolution, max(resolution, int(resolution * height / width)))
    else:
        size = (max(resolution, int(resolution * width / height)), resolution)
    return picture.resize(size, _FILTERS[filter])
