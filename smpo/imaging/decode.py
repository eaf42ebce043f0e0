"""Untrusted bytes to an upright RGB picture.

A picture is either whole or broken, and it is broken at the door: the official code finds out in the middle
of a run, drops one image of a pair and trains on what then happens to stand next to each other (method 2b,
D7, D8)."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["FORMATS", "MAX_PIXELS", "MAX_RATIO", "BrokenImage", "decode"]

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What is accepted. Some of Pillow's other readers start external programs."""

MAX_PIXELS = 64_000_000
"""Larger pictures are taken for decompression bombs: 64 million pixels are 192 MB in memory."""

MAX_RATIO = 64
"""Of the sides. A longer strip is no picture, and scaled until its short side fits a model it would fill the memory."""


class BrokenImage(ValueError):
    """The bytes are not a whole picture; `reason` doesn't name the picture, so that reasons can be counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in mode RGB: loaded to the last row, turned by its EXIF orientation, transparency laid on white.

    Of an animation the first frame is taken. Raises `BrokenImage` and nothing else.
    """
    if not data:
        raise BrokenImage("no bytes")
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise BrokenImage(f"more than {max_pixels:,} pixels")
            if max(width, height) > MAX_RATIO * min(width, height):
                raise BrokenImage(f"{width} x {height} pixels: a side {MAX_RATIO} times the other, or more")
            picture.load()  # `verify()` would stop at the header of a JPEG
            return _rgb(_upright(picture))
    except BrokenImage:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage("not a picture") from error
    except Image.DecompressionBombError as error:
        raise BrokenImage(f"more than {max_pixels:,} pixels") from error
    except Exception as error:  # decoders that are fed junk raise whatever they stumble over
        truncated = "truncat" in str(error).lower() or isinstance(error, EOFError)
        raise BrokenImage("truncated" if truncated else f"undecodable ({type(error).__name__})") from error


@cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a damaged EXIF block leaves the pixels alone
        return picture


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture.copy()  # free of the file, which is closed behind us
    if picture.mode.startswith("I;16"):  # Pillow's own conversion would cut at 255, not scale
        grey = np.asarray(picture).astype(np.uint32) * 255 / 65535
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise BrokenImage(f"no range of brightness in mode {picture.mode}")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return picture.convert("RGB")
