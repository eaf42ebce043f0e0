"""One rule for laying a picture onto the window that a model sees: a square, or the size of its pair's bucket.

Resize until the window is covered, cut it out, mirror it. The official code does the same with torchvision, but draws
crop and mirror anew for each image of a pair (method 2b, D20), and conditions SDXL on uncropped
images (D21). Here the placement is an argument, and SDXL's conditioning is part of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smpo.kinds import Placement

__all__ = ["Placed", "in_range", "place"]

Filter = Literal["bilinear", "bicubic", "lanczos"]

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Placed:
    """`bytes` `[3, H, W]`, 0 to 255; `original` (height, width) before resizing; `top_left` (y, x) of the
    window in the resized picture, as it is seen: of a mirrored picture, counted in the mirror image."""

    bytes: Tensor
    original: tuple[int, int]
    top_left: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the window."""
        return self.bytes.shape[1], self.bytes.shape[2]

    @property
    def nbytes(self) -> int:
        return int(self.bytes.nbytes)

    @property
    def pixels(self) -> Tensor:
        """`[3, H, W]` float32 in [-1, 1]."""
        return in_range(self.bytes)


def place(picture: Image.Image, resolution: int, placement: Placement, filter: Filter = "bilinear") -> Placed:
    """Scaled to cover the window of `placement.size` (None: the square of `resolution`), cut at `placement.crop`,
    mirrored if `placement.flip`.

    All filters antialias (Pillow's do). The default and the rounding follow torchvision's `Resize` and
    `CenterCrop` on pictures, which made the published models' inputs."""
    height, width = placement.size or (resolution, resolution)
    original = (picture.height, picture.width)
    picture = _covering(picture.convert("RGB"), height, width, filter)
    left = round((picture.width - width) * placement.crop[0])
    top = round((picture.height - height) * placement.crop[1])
    cut = picture.crop((left, top, left + width, top + height))
    if placement.flip:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        left = picture.width - width - left
    bytes_hwc = torch.from_numpy(np.array(cut))  # uint8 [H, W, 3]
    return Placed(bytes_hwc.permute(2, 0, 1).contiguous(), original, (top, left))


def in_range(pixels: Tensor) -> Tensor:
    """uint8 `[..., H, W]` -> float32 in [-1, 1]. On the device: bytes travel four times as fast as floats."""
    return pixels.float().div_(127.5).sub_(1)


def _covering(picture: Image.Image, height: int, width: int, filter: Filter) -> Image.Image:
    """The picture in the smallest size of its shape that covers the window; for a square, its short side is that."""
    if picture.width * height <= width * picture.height:
        size = (width, max(height, int(width * picture.height / picture.width)))
    else:
        size = (max(width, int(height * picture.width / picture.height)), height)
    return picture if size == picture.size else picture.resize(size, _FILTERS[filter])
