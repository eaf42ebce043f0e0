"""How transformers' CLIP image processor lays a picture out, without its backends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smpo.errors import RunError

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["ClipPreprocessing"]


@dataclass(frozen=True)
class ClipPreprocessing:
    """From a picture to what the network sees, step by step as `CLIPImageProcessor` does it.

    The short side is resized to `short` (or the picture to `exact`, height and width) with Pillow's filter
    number `resample` (3 = bicubic, which antialiases), the centre cut to `crop`, and values brought to
    (x · factor - mean) / std. None skips a step.
    """

    short: int | None = 224
    exact: tuple[int, int] | None = None
    crop: tuple[int, int] | None = (224, 224)
    resample: int = 3
    factor: float = 1 / 255
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ClipPreprocessing:
        """Read `preprocessor_config.json`; missing keys take CLIP's values, a bare number is a size."""
        size, crop = config.get("size", 224), config.get("crop_size", 224)
        size = {"shortest_edge": size} if isinstance(size, int) else size
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        resize, short = config.get("do_resize", True), size.get("shortest_edge")
        if resize and short is None and "height" not in size:
            raise RunError(f"the image processor's size {size} is none that smpo knows")
        centred, normal = config.get("do_center_crop", True), config.get("do_normalize", True)
        return cls(
            short=short if resize else None,
            exact=(size["height"], size["width"]) if resize and short is None else None,
            crop=(crop["height"], crop["width"]) if centred else None,
            resample=int(config.get("resample", cls.resample)),
            factor=float(config.get("rescale_factor", cls.factor)) if config.get("do_rescale", True) else 1.0,
            mean=tuple(config.get("image_mean", cls.mean)) if normal else (0.0, 0.0, 0.0),
            std=tuple(config.get("image_std", cls.std)) if normal else (1.0, 1.0, 1.0),
        )

    def __call__(self, picture: Picture) -> NDArray[np.float32]:
        """`[3, P, P]` float32. Arrays are taken for `[H, W, 3]` bytes."""
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        pixels = np.asarray(self._resized(image.convert("RGB")))
        if self.crop is not None:
            pixels = _centre(pixels, *self.crop)
        # In this order and these precisions, as the library does it: rounding is part of a published score.
        scaled = (pixels.astype(np.float64) * self.factor).astype(np.float32)
        normal = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.exact is not None:
            height, width = self.exact
        elif self.short is not None:
            width, height = image.size
            if width <= height:
                width, height = self.short, int(self.short * height / width)
            else:
                width, height = int(self.short * width / height), self.short
        else:
            return image
        return image.resize((width, height), Image.Resampling(self.resample))


def _centre(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle `[height, width, 3]`; on black, where the picture is too small."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    window = pixels[max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
    if window.shape[:2] == (height, width):
        return window
    paper = np.zeros((height, width, pixels.shape[2]), pixels.dtype)
    y, x = max(-top, 0), max(-left, 0)
    paper[y : y + window.shape[0], x : x + window.shape[1]] = window
    return paper
