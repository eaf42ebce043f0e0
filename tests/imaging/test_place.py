"""The square that a model sees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smpo.imaging import in_range, place
from smpo.kinds import Placement


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green to the bottom."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    pixels[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return Image.fromarray(pixels)


def test_values_and_shape() -> None:
    white = place(Image.new("RGB", (8, 8), "white"), 8, Placement()).pixels
    black = place(Image.new("RGB", (8, 8), "black"), 8, Placement()).pixels
    assert white.shape == (3, 8, 8)
    assert (white == 1).all() and (black == -1).all()


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    resolution=st.integers(1, 40),
    across=st.floats(0, 1),
    down=st.floats(0, 1),
    flip=st.booleans(),
)
def test_always_a_full_square(width: int, height: int, resolution: int, across: float, down: float, flip: bool) -> None:
    placed = place(Image.new("RGB", (width, height), "white"), resolution, Placement((across, down), flip))
    assert placed.pixels.shape == (3, resolution, resolution)
    assert (placed.pixels == 1).all(), "a window beyond the edge would be filled with black"
    assert placed.original == (height, width)
    assert min(placed.top_left) >= 0


def test_the_window_moves_along_the_long_side_only() -> None:
    left, right = (place(ramp(64, 16), 16, Placement((x, 0.5))) for x in (0.0, 1.0))
    assert left.top_left == (0, 0) and right.top_left == (0, 48)
    assert left.pixels[0].max() < -0.4 and right.pixels[0].min() > 0.4
    assert torch.equal(left.pixels[1], right.pixels[1])


def test_a_flip_mirrors_the_same_window_and_counts_its_corner_in_the_mirror_image() -> None:
    straight = place(ramp(64, 16), 16, Placement((0.25, 0.5)))
    mirrored = place(ramp(64, 16), 16, Placement((0.25, 0.5), flip=True))
    assert torch.equal(mirrored.pixels, straight.pixels.flip(-1))
    assert straight.top_left == (0, 12) and mirrored.top_left == (0, 36)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_shrinking_averages_instead_of_picking(name: str) -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    pixels = place(Image.fromarray(stripes), 8, Placement(), filter=name).pixels  # type: ignore[arg-type]
    assert pixels.abs().max() < 0.15


def test_sizes_round_as_torchvision_rounds() -> None:
    # Resize(32): 50 x 77 -> 32 x int(32 * 77 / 50) = 32 x 49; CenterCrop then starts at round(17 / 2) = 8.
    assert place(ramp(50, 77), 32, Placement()).top_left == (8, 0)


def test_bytes_become_the_pixels_that_floats_were() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(in_range(every), every.float() / 127.5 - 1)
    assert in_range(every)[[0, 255]].tolist() == [-1, 1]
