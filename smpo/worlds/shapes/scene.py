"""The shapes world's pictures: one coloured object on a plain background, drawn by a formula.

What a caption names (colour, shape, background) is discrete. What it leaves open (size, place,
vividness) is continuous, and that is what viewers come to prefer: a preference over nuisance
attributes moves in tens of fine-tuning steps, following captions does not.

Colours are straight lines in RGB, from the washed-out grey (vividness 0) to the pure colour
(vividness 1), so a judge can measure vividness by projection, without any model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "GRADIENT",
    "SHAPES",
    "SIDE",
    "WASHED_OUT",
    "Scene",
    "draw_scenes",
    "render",
    "to_uint8",
]

Floats = NDArray[np.floating[Any]]

SIDE = 64
"""Pixels along an edge of every picture of this world."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.10, 0.10),
    "orange": (0.98, 0.55, 0.05),
    "yellow": (0.98, 0.92, 0.10),
    "green": (0.10, 0.70, 0.20),
    "cyan": (0.10, 0.85, 0.88),
    "blue": (0.12, 0.28, 0.95),
    "purple": (0.55, 0.12, 0.80),
    "pink": (0.99, 0.40, 0.72),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star")
BACKGROUNDS: dict[str, tuple[float, float, float]] = {
    "black": (0.04, 0.04, 0.05),
    "white": (0.96, 0.96, 0.96),
    "grey": (0.50, 0.50, 0.50),
    "navy": (0.08, 0.11, 0.30),
    "cream": (0.96, 0.89, 0.72),
    "brown": (0.34, 0.21, 0.12),
}

WASHED_OUT = 0.5
"""The grey towards which every object colour fades."""
GRADIENT = 0.04
"""Backgrounds are this much lighter at the top and darker at the bottom."""

SIZE_RANGE = (0.18, 0.52)
"""Edge of the square of the object's area, as a share of the picture's edge."""
VIVIDNESS_RANGE = (0.35, 1.0)
OFFSET = 0.22
"""Farthest that a centre may lie from the middle, along each axis."""
MARGIN = 0.02

# Half the extent of a shape whose area is 1, so that no object is cut off by the frame.
_REACH = {"circle": 0.5642, "square": 0.5, "triangle": 0.88, "star": 0.85}


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that determines a picture. Places and sizes are shares of the picture's edge."""

    colour: str
    shape: str
    background: str
    size: float
    x: float
    y: float
    vividness: float

    @property
    def combo(self) -> tuple[str, str, str]:
        """What a caption may name: (colour, shape, background)."""
        return (self.colour, self.shape, self.background)


def draw_scenes(combos: Sequence[tuple[str, str, str]], generator: np.random.Generator) -> list[Scene]:
    """Give each combo a size, a place and a vividness at random, all of the object inside the frame."""
    scenes = []
    for colour, shape, background in combos:
        size = float(generator.uniform(*SIZE_RANGE))
        room = min(OFFSET, 0.5 - MARGIN - size * _REACH[shape])
        x, y = (0.5 + generator.uniform(-room, room, size=2)).tolist()
        vividness = float(generator.uniform(*VIVIDNESS_RANGE))
        scenes.append(Scene(colour, shape, background, size, x, y, vividness))
    return scenes


def render(scenes: Sequence[Scene], side: int = SIDE) -> Floats:
    """Paint scenes: RGB in [0, 1], [n, side, side, 3]. Edges are antialiased by signed distance."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side
    shade = GRADIENT * (1.0 - 2.0 * axis)[:, None, None]  # [side, 1, 1], light at the top
    pictures = np.empty((len(scenes), side, side, 3), dtype=np.float32)
    for picture, scene in zip(pictures, scenes, strict=True):
        inside = coverage(scene.shape, axis[None, :] - scene.x, axis[:, None] - scene.y, scene.size, side)
        pure = np.asarray(COLOURS[scene.colour], dtype=np.float32)
        colour = WASHED_OUT + scene.vividness * (pure - WASHED_OUT)
        background = np.asarray(BACKGROUNDS[scene.background], dtype=np.float32) + shade
        picture[:] = background + inside[..., None] * (colour - background)
    return np.clip(pictures, 0.0, 1.0)


def coverage(shape: str, dx: Floats, dy: Floats, size: float, side: int) -> Floats:
    """Share of each pixel that a shape of area size^2, with its centroid at the origin, covers: [side, side].

    dx [1, side] and dy [side, 1] are offsets from the centre, downwards positive.
    """
    distance = _distance(shape, (dx / size) + 0 * dy, (dy / size) + 0 * dx) * size
    return np.asarray(np.clip(0.5 - distance * side, 0.0, 1.0), dtype=np.float32)


def to_uint8(pictures: Floats) -> NDArray[np.uint8]:
    """Round [0, 1] to the 256 levels that files and judges use."""
    return np.asarray(np.rint(np.clip(pictures, 0.0, 1.0) * 255.0), dtype=np.uint8)


# Outlines of area 1 with the centroid at the origin.
_RADIUS = 1.0 / np.sqrt(np.pi)
_TRIANGLE_HEIGHT, _TRIANGLE_BASE = 1.32, 2.0 / 1.32
_STAR_INNER = 0.48  # inner radius, in units of the outer one
_STAR_OUTER = 1.0 / np.sqrt(5.0 * _STAR_INNER * np.sin(np.pi / 5))


def _distance(shape: str, x: Floats, y: Floats) -> Floats:
    """Signed distance to the outline of a shape of area 1, negative inside (near enough at corners)."""
    if shape == "circle":
        return np.asarray(np.hypot(x, y) - _RADIUS, dtype=np.float32)
    if shape == "square":
        return np.asarray(np.maximum(abs(x), abs(y)) - 0.5, dtype=np.float32)
    if shape == "triangle":
        slope = np.hypot(_TRIANGLE_BASE / 2, _TRIANGLE_HEIGHT)
        top = y + 2.0 * _TRIANGLE_HEIGHT / 3.0
        side = (abs(x) * _TRIANGLE_HEIGHT - top * _TRIANGLE_BASE / 2) / slope
        return np.asarray(np.maximum(side, y - _TRIANGLE_HEIGHT / 3.0), dtype=np.float32)
    if shape == "star":  # ten mirror images of one edge, from a tip to an inner corner
        sector = np.pi / 5
        angle = abs((np.arctan2(x, -y) + sector) % (2 * sector) - sector)
        radius = np.hypot(x, y)
        inner_x, inner_y = (
            _STAR_OUTER * _STAR_INNER * np.cos(sector),
            _STAR_OUTER * _STAR_INNER * np.sin(sector),
        )
        edge = np.hypot(_STAR_OUTER - inner_x, inner_y)
        along, across = radius * np.cos(angle) - _STAR_OUTER, radius * np.sin(angle)
        return np.asarray((along * inner_y + across * (_STAR_OUTER - inner_x)) / edge, dtype=np.float32)
    raise ValueError(f"unknown shape {shape!r}: choose one of {', '.join(SHAPES)}")
