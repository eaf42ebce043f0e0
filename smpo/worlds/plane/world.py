"""The plane world's prompts and its reward.

A prompt is one of eight compass directions. Its "pictures" are points: an equal mixture of two round Gaussians on the
ray of that direction, at radius 0.6 and 1.4, each with sd 0.12. The reward is the radial coordinate. The mixture and
the optimal policy in closed form are in `tools/plane_world.py`.

Shapes: `N` points. All arrays are float64; nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smpo.errors import SmpoError

__all__ = ["CONDITIONS", "condition_of", "directions", "off_axis", "radius"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONDITIONS: tuple[str, ...] = ("east", "north-east", "north", "north-west", "west", "south-west", "south", "south-east")
"""The prompts, counter-clockwise from the positive x axis."""


def condition_of(prompts: Sequence[str]) -> Ints:
    """`[N]` index of each prompt among `CONDITIONS`. The empty prompt has no direction and is refused
    here."""
    known = {word: index for index, word in enumerate(CONDITIONS)}
    unknown = [prompt for prompt in prompts if prompt not in known]
    if unknown:
        raise SmpoError(
            f"the plane world has no direction {unknown[0]!r}", help=f"its prompts are {', '.join(CONDITIONS)}"
        )
    return np.array([known[prompt] for prompt in prompts], dtype=np.int64)


def directions(conditions: Ints) -> Floats:
    """`[N, 2]` unit vectors along which the conditions' points lie."""
    assert (conditions < len(CONDITIONS)).all(), "the null class has no direction"
    angle = 2 * math.pi * conditions / len(CONDITIONS)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def radius(points: Floats, conditions: Ints) -> Floats:
    """The reward, `[N]`: how far out a point lies along its condition's direction."""
    along: Floats = (points * directions(conditions)).sum(axis=1)
    return along


def off_axis(points: Floats, conditions: Ints) -> Floats:
    """`[N]` distance from the ray: what a fine-tuning that only pushes outwards leaves alone, or damages."""
    ahead = directions(conditions)
    return np.abs(ahead[:, 0] * points[:, 1] - ahead[:, 1] * points[:, 0])
