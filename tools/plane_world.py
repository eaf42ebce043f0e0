"""Simulated people who compare two points: they want different things, slip, and sometimes cannot decide.

Each annotator has a taste, a utility over points that mixes the reward with a liking for tidiness (small
distance from the ray) or for one side of it. Given two points they choose by Bradley-Terry with ties (Rao and
Kupper, 1967):

    P(first)  = sigmoid((u_1 - u_2 - m) / T)
    P(second) = sigmoid((u_2 - u_1 - m) / T)
    P(tie)    = the rest

T = 0.15 is a person's imprecision in units of reward; m is the gap below which points look alike. Two points
of one mode differ by about one sd (0.12), so votes on them are noisy, while votes across modes (0.8 apart)
are nearly certain: the mixture of clear and doubtful pairs on which smoothed preferences can matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smpo.worlds.plane.world import Floats, Ints, off_axis, radius, side

__all__ = ["ANNOTATORS", "Taste", "Votes", "collect_votes"]


@dataclass(frozen=True)
class Taste:
    """What one annotator looks at. `outward` multiplies the reward; the other terms disagree with it."""

    name: str
    outward: float = 1.0
    tidy: float = 0.0
    leaning: float = 0.0
    temperature: float = 0.15
    margin: float = 0.03

    def utility(self, points: Floats, conditions: Ints) -> Floats:
        """`[N]` how much this annotator likes each point."""
        liked: Floats = (
            self.outward * radius(points, conditions)
            - self.tidy * off_axis(points, conditions)
            + self.leaning * side(points, conditions)
        )
        return liked


ANNOTATORS: tuple[Taste, ...] = (
    Taste("plain"),
    Taste("keen", outward=1.3),
    Taste("tidy", tidy=0.5),
    Taste("leaning left", leaning=0.3),
    Taste("leaning right", leaning=-0.3),
    Taste("hasty", temperature=0.3, margin=0.09),
)


@dataclass(frozen=True)
class Votes:
    """How many people chose the first, the second, or neither of each pair; `[P]` each."""

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    neither: NDArray[np.uint8]


def collect_votes(first: Floats, second: Floats, conditions: Ints, rng: np.random.Generator, *, most: int = 3) -> Votes:
    """Votes of one to `most` different annotators on each pair. `first`, `second` `[P, 2]`; `conditions`
    `[P]`."""
    pairs, people = len(conditions), len(ANNOTATORS)
    order = rng.permuted(np.tile(np.arange(people), (pairs, 1)), axis=1)  # [P, people]
    asked = order < rng.integers(1, most + 1, size=pairs)[:, None]
    luck = rng.random((pairs, people))
    counts = np.zeros((3, pairs), dtype=np.uint8)
    for person, taste in enumerate(ANNOTATORS):
        gap = taste.utility(first, conditions) - taste.utility(second, conditions)
        for_first = 1 / (1 + np.exp((taste.margin - gap) / taste.temperature))
        for_second = 1 / (1 + np.exp((taste.margin + gap) / taste.temperature))
        choice = np.where(luck[:, person] < for_first, 0, 1)
        choice[luck[:, person] >= for_first + for_second] = 2
        for option in range(3):
            counts[option] += asked[:, person] & (choice == option)
    return Votes(*counts)
