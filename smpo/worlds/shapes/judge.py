"""An independent judge: scores from pixels alone, without a network, how well a picture meets its prompt.

Formula, with every part in [0, 1] and smooth:

    correct = colour * background * (1 - SHAPE_SHARE + SHAPE_SHARE * shape)
    taste   = 0.45 size + 0.25 centring + 0.30 vivid
    score   = correct * (FLOOR + (1 - FLOOR) * taste)

`size` is best at SWEET_SPOT of the area, `centring` at the middle, `vivid` at the pure colour. Learned
rewards never see this file's numbers: they see votes. Report with the judge, train with the reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smpo.worlds.shapes.prompts import parse
from smpo.worlds.shapes.scene import BACKGROUNDS, COLOURS, GRADIENT, SHAPES, SIDE, WASHED_OUT, coverage

__all__ = ["Picture", "Reading", "measure", "read", "score", "scores"]

Picture = Image.Image | NDArray[np.uint8]

SWEET_SPOT = 0.25
"""Share of the picture's area that pleases most."""
CENTRING_WIDTH = 0.15
"""Distance from the middle, as a share of the edge, at which centring falls to 1/e."""
PALE, VIVID = 0.2, 0.95
"""Vividness that counts 0 and 1."""
COLOUR_WIDTH = 0.45
"""Tangent of the angle to the named colour's line at which `colour` falls to 1/e."""
BACKGROUND_WIDTH = 0.20
"""Distance in RGB to the named background at which `background` falls to 1/e."""
SHAPE_TEMPERATURE = 0.02
"""Overlap by which another shape must fit better to look e times as likely."""
SHAPE_SHARE = 0.4
FLOOR = 0.3
TASTE = {"size": 0.45, "centring": 0.25, "vivid": 0.30}

_FAINTEST = 0.10  # contrast below which a pixel cannot start an object
_RIM = 2  # pixels of the frame that show the background
_AXIS = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
_SHADE = (GRADIENT * (1.0 - 2.0 * _AXIS))[:, None, None]


@dataclass(frozen=True, slots=True)
class Reading:
    """What is seen, before any prompt. Lengths are shares of the edge, colours RGB in [0, 1]."""

    background: NDArray[np.floating[Any]]
    colour: NDArray[np.floating[Any]]
    area: float
    x: float
    y: float
    overlap: dict[str, float]
    """Intersection over union with each shape of the same area in the same place."""


def read(picture: Picture) -> Reading:
    """Segment a picture by colour: the frame's median is the background, the rest is mixed with the object.

    Coverage of a pixel is its projection on the line from background to object colour. Any size of
    picture will do: it is brought to SIDE x SIDE first.
    """
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image = image.convert("RGB")
    if image.size != (SIDE, SIDE):
        image = image.resize(
            (SIDE, SIDE), Image.Resampling.BOX if min(image.size) > SIDE else Image.Resampling.BICUBIC
        )
    flat = np.asarray(image, dtype=np.float32) / 255.0 - _SHADE  # [SIDE, SIDE, 3], the gradient removed
    rim = np.ones((SIDE, SIDE), dtype=bool)
    rim[_RIM:-_RIM, _RIM:-_RIM] = False
    background = np.median(flat[rim], axis=0)
    contrast = np.linalg.norm(flat - background, axis=-1)
    if float(contrast.max()) < _FAINTEST:
        return Reading(background, background, 0.0, 0.5, 0.5, dict.fromkeys(SHAPES, 0.0))
    core = contrast > max(_FAINTEST, 0.7 * float(np.quantile(contrast, 0.99)))
    colour = np.median(flat[core], axis=0)
    for _ in range(2):
        line = colour - background
        covered = np.clip((flat - background) @ line / max(float(line @ line), 1e-6), 0.0, 1.0)
        inner = covered > 0.8
        colour = np.median(flat[inner], axis=0) if inner.any() else colour
    covered = np.where(covered > 0.25, covered, 0.0)  # decoder haze is not object
    total = float(covered.sum())
    if total < 1.0:
        return Reading(background, colour, 0.0, 0.5, 0.5, dict.fromkeys(SHAPES, 0.0))
    x = float((covered.sum(axis=0) * _AXIS).sum() / total)
    y = float((covered.sum(axis=1) * _AXIS).sum() / total)
    area = total / covered.size
    overlap = {}
    for shape in SHAPES:
        ideal = coverage(shape, _AXIS[None, :] - x, _AXIS[:, None] - y, area**0.5, SIDE)
        overlap[shape] = float(np.minimum(ideal, covered).sum() / np.maximum(ideal, covered).sum())
    return Reading(background, colour + GRADIENT * (1 - 2 * y), area, x, y, overlap)


def measure(picture: Picture, prompt: str) -> dict[str, float]:
    """All parts of the score, what they were made of, and the score itself.

    Keys: score, correct, taste; colour, background, shape, size, centring, vivid (parts in [0, 1]);
    area, offset, vividness (raw); right_colour, right_background, right_shape (0 or 1: the named one
    fits better than all others of the world).
    """
    named_colour, named_shape, named_background = parse(prompt)
    seen = read(picture)
    present = seen.area > 0
    angles = {name: _angle(seen.colour, name) for name in COLOURS}
    gaps = {
        name: float(np.linalg.norm(seen.background - np.asarray(rgb, dtype=np.float32)))
        for name, rgb in BACKGROUNDS.items()
    }
    likeness = {name: np.exp(overlap / SHAPE_TEMPERATURE) for name, overlap in seen.overlap.items()}
    pure = np.asarray(COLOURS[named_colour], dtype=np.float32) - WASHED_OUT
    vividness = float((seen.colour - WASHED_OUT) @ pure / (pure @ pure)) if present else 0.0
    offset = float(np.hypot(seen.x - 0.5, seen.y - 0.5))
    parts = {
        "colour": float(np.exp(-((angles[named_colour] / COLOUR_WIDTH) ** 2))) if present else 0.0,
        "background": float(np.exp(-((gaps[named_background] / BACKGROUND_WIDTH) ** 2))),
        "shape": float(likeness[named_shape] / sum(likeness.values())) if present else 0.0,
        "size": max(0.0, 1.0 - (seen.area / SWEET_SPOT - 1.0) ** 2),
        "centring": float(np.exp(-((offset / CENTRING_WIDTH) ** 2))) if present else 0.0,
        "vivid": float(np.clip((vividness - PALE) / (VIVID - PALE), 0.0, 1.0)),
    }
    correct = parts["colour"] * parts["background"] * (1 - SHAPE_SHARE + SHAPE_SHARE * parts["shape"])
    taste = sum(weight * parts[name] for name, weight in TASTE.items())
    return {
        **parts,
        "correct": correct,
        "taste": taste,
        "score": correct * (FLOOR + (1 - FLOOR) * taste),
        "area": seen.area,
        "offset": offset,
        "vividness": vividness,
        "right_colour": float(present and min(angles, key=angles.__getitem__) == named_colour),
        "right_background": float(min(gaps, key=gaps.__getitem__) == named_background),
        "right_shape": float(present and max(seen.overlap, key=seen.overlap.__getitem__) == named_shape),
    }


def score(picture: Picture, prompt: str) -> float:
    """How well a viewer would like this picture for this prompt, in [0, 1]."""
    return measure(picture, prompt)["score"]


def scores(pictures: Sequence[Picture], prompts: Sequence[str]) -> NDArray[np.float64]:
    """Score picture i for prompt i: [n]."""
    return np.array([score(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)])


def _angle(seen: NDArray[np.floating[Any]], name: str) -> float:
    """Tangent of the angle between a colour and a named colour's line, both seen from the washed-out grey."""
    pure = np.asarray(COLOURS[name], dtype=np.float32) - WASHED_OUT
    pure /= np.linalg.norm(pure)
    offset = seen - WASHED_OUT
    along = float(offset @ pure)
    across = float(np.linalg.norm(offset - along * pure))
    return across / along if along > 1e-3 else 1e3
