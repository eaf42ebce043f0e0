"""How pictures are laid out, against torchvision's numbers and by construction.

`torchvision.json` was written in an environment apart, with torchvision 0.28 and the transforms of the packages `hpsv2`
1.2.0 and `image-reward` 1.5; there, on nine pictures of all shapes, both layouts agreed to the last bit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smpo.rewards.networks.clip_like import ClipPreprocessing
from smpo.rewards.networks.preprocessing import CLIP_MEAN, CLIP_STD, ShortSide, WholePicture

GOLDEN = json.loads((Path(__file__).parent / "torchvision.json").read_text())


def drawn(width: int, height: int) -> Image.Image:
    """A picture that needs no file: waves, with sharp edges."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(x / a + y / b) for a, b in ((3, 7), (11, 2), (5, 5))]
    return Image.fromarray(
        np.where((x // 9 + y // 7) % 2, np.stack(waves), 255 - np.stack(waves)).astype(np.uint8).transpose(1, 2, 0)
    )


def rounding(case: dict) -> float:
    """By how much two programs may differ that compute these pixels in float32, each in its own order.

    The file has six digits. Pixels are 3 roundings (of 1/255, mean, std) of numbers below 4, on both sides. Where a
    tensor is resized, a place in it is up to `long` pixels from the corner and has 3 roundings; the bicubic curve
    through pixels in [0, 1] is no steeper than 2, in each of two directions; and the 2 sums of at most 4 + long / 8
    taps, of weights whose sizes add up to less than 1.5, have a rounding a tap. Division by std (at least .26) makes
    it four times as much. For the largest picture that is a ninth of one of the 255 steps of a byte.
    """
    half = 2.0**-24
    found = 5e-7 + 2 * 3 * 4 * half
    long = max(case["width"], case["height"])
    if case["layout"] == "short" or long == 32:
        return found
    places, taps = 2 * 2 * 3 * long, 2 * 1.5 * (4 + long / 8)
    return found + 2 * 4 * (places + taps) * half


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['layout']}-{case['width']}x{case['height']}")
def test_pixels_are_torchvisions(case: dict) -> None:
    layouts = {
        "short": ShortSide(32),
        "whole": WholePicture(32, antialias=True),
        "whole-rough": WholePicture(32, antialias=False),
    }
    found = layouts[case["layout"]](drawn(case["width"], case["height"]))
    assert found.shape == (3, 32, 32) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, ::5, ::5].ravel(), case["pixels"], rtol=0, atol=rounding(case))


def test_whole_pictures_are_padded_with_black_and_short_sides_are_cut() -> None:
    black = [-mean / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)]
    white = [(1 - mean) / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)]
    tall = Image.new("RGB", (15, 40), "white")
    whole = WholePicture(32)(tall)
    np.testing.assert_allclose(
        whole[:, :, :10], np.broadcast_to(np.array(black)[:, None, None], (3, 32, 10)), rtol=1e-5
    )
    np.testing.assert_allclose(whole[:, :, 12:20].mean((1, 2)), white, rtol=1e-4)
    np.testing.assert_allclose(whole[:, :, 22:].mean((1, 2)), black, rtol=1e-5)
    np.testing.assert_allclose(ShortSide(32)(tall).mean((1, 2)), white, rtol=1e-5)


def test_a_narrow_picture_of_the_right_length_is_padded_too() -> None:
    """The published code leaves it narrow, and its network then fails."""
    assert WholePicture(32)(drawn(7, 32)).shape == (3, 32, 32)


def test_crops_lie_where_each_library_puts_them() -> None:
    """Three spare pixels: torchvision rounds 1.5 up, transformers down."""
    picture = drawn(32, 35)
    ours = ShortSide(32)(picture)
    theirs = ClipPreprocessing(short=32, crop=(32, 32))(picture)
    np.testing.assert_allclose(ours[:, :-1], theirs[:, 1:], atol=1e-6)


def test_all_modes_become_rgb() -> None:
    picture = drawn(50, 40)
    for layout in (ShortSide(32), WholePicture(32)):
        assert np.array_equal(layout(picture.convert("RGBA")), layout(picture))
        assert np.array_equal(layout(np.asarray(picture)), layout(picture))
        assert layout(picture.convert("L")).shape == (3, 32, 32)
