"""Captions of the shapes world, and which of them may be trained on, tuned on, or only tested on.

The split is over combos (colour, shape, background), never over captions: all wordings of a combo
fall in the same split, so a test prompt is not a training prompt in other words.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Literal, get_args

from smpo.worlds.shapes.scene import BACKGROUNDS, COLOURS, SHAPES

__all__ = [
    "COMBOS",
    "SPLITS",
    "TEMPLATES",
    "Combo",
    "Split",
    "captions",
    "combos",
    "parse",
    "prompts",
    "split_of",
]

Combo = tuple[str, str, str]
Split = Literal["training", "tuning", "untouched"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES: dict[Split, float] = {"training": 0.55, "tuning": 0.15, "untouched": 0.30}
SALT = "shapes-world-1"

TEMPLATES: tuple[str, ...] = (
    "a {colour} {shape} on a {background} background",
    "{background} background with a {colour} {shape}",
    "a picture of one {colour} {shape}, {background} background",
    "{colour} {shape} in front of {background}",
)
COMBOS: tuple[Combo, ...] = tuple((c, s, b) for c in COLOURS for s in SHAPES for b in BACKGROUNDS)


def captions(combo: Combo) -> list[str]:
    """Say a combo in every wording."""
    colour, shape, background = combo
    return [t.format(colour=colour, shape=shape, background=background) for t in TEMPLATES]


@cache
def combos(split: Split) -> tuple[Combo, ...]:
    """Combos of one split: ranked by a salted hash, so that the split is fixed for all machines and times."""
    ranked = sorted(COMBOS, key=lambda combo: hashlib.sha256("|".join((SALT, *combo)).encode()).hexdigest())
    start = 0
    for name in SPLITS:
        end = len(ranked) if name == SPLITS[-1] else start + round(SHARES[name] * len(ranked))
        if name == split:
            return tuple(ranked[start:end])
        start = end
    raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")


def prompts(split: Split) -> list[str]:
    """All captions of one split, wording by wording of each combo."""
    return [caption for combo in combos(split) for caption in captions(combo)]


def parse(prompt: str) -> Combo:
    """Find the colour, shape and background that a caption of this world names."""
    words = prompt.lower().replace(",", " ").split()
    found = tuple([w for w in words if w in names] for names in (COLOURS, SHAPES, BACKGROUNDS))
    if any(len(matches) != 1 for matches in found):
        raise ValueError(
            f"not a caption of the shapes world: {prompt!r}. It must name one colour ({', '.join(COLOURS)}), "
            f"one shape ({', '.join(SHAPES)}) and one background ({', '.join(BACKGROUNDS)})."
        )
    return (found[0][0], found[1][0], found[2][0])


def split_of(combo: Combo) -> Split:
    """Name the split that holds a combo."""
    return next(split for split in SPLITS if combo in combos(split))
