"""What a stretch of the stream will show, all in all: every image with its side up, and every prompt, once.

Without an object for each visit. The paper's run makes four million visits; marked in an array they take seconds and a
few bytes a pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from smpo.data.pairs.interning import Array
from smpo.data.stream.buckets import Size
from smpo.data.stream.encodings import image_row
from smpo.data.stream.order import Order
from smpo.data.stream.sample import Sample, Stream
from smpo.kinds import PairTable
from smpo.maths.draws import PositionDraws

__all__ = [
    "PORTION",
    "Augmentations",
    "Coverage",
    "coverage_of_pairs",
    "coverage_of_samples",
    "sample_augmentations",
]

PORTION = 1 << 16
"""Positions that are looked at together."""


@dataclass(frozen=True)
class Coverage:
    """`prompts` in the order in which they are first needed, `images` (`image_row`s) by size in the order of the
    table."""

    prompts: Sequence[str]
    images: dict[Size | None, list[str]]


@dataclass(frozen=True)
class Augmentations:
    """`flips`: whether the first and the second image of each sample are mirrored; `silent`: whether the prompt is
    dropped. `[B]` each."""

    flips: tuple[Array, Array]
    silent: Array


def sample_augmentations(stream: Stream, draws: PositionDraws) -> Augmentations:
    """A function of (seed, position) alone."""
    never = np.zeros(len(draws.positions), bool)
    first = draws.uniform("flip").numpy() < 0.5 if stream.flip else never
    second = draws.uniform("flip/second").numpy() < 0.5 if stream.flip == "apart" else first
    silent = draws.uniform("prompt-dropout").numpy() < stream.prompt_dropout if stream.prompt_dropout else never
    return Augmentations((first, second), silent)


def coverage_of_pairs(
    positions: range,
    stream: Stream,
    order: Order,
    table: PairTable,
    rows: Sequence[int],
    words: Callable[[str, int], tuple[str, str]],
    size: Callable[[int], Size | None],
) -> Coverage:
    """`rows`: of the table, by place in the order; `words`: of winner and loser, from prompt and row; `size`: of a
    row."""
    seen = np.zeros((len(rows), 2, 2), bool)  # [place, flip, side]
    spoken = np.full(len(rows), positions.stop)  # where each pair's words are first needed
    silent = positions.stop
    for begin in range(positions.start, positions.stop, PORTION):
        some = range(begin, min(begin + PORTION, positions.stop))
        coins = sample_augmentations(stream, PositionDraws(stream.seed, some))
        places = np.array(order(some))
        for side in (0, 1):
            seen[places, coins.flips[side].astype(int), side] = True
        loud = np.flatnonzero(~coins.silent)
        np.minimum.at(spoken, places[loud], begin + loud)
        if coins.silent.any():
            silent = min(silent, begin + int(coins.silent.argmax()))
    first = [(int(spoken[place]), int(place)) for place in np.flatnonzero(spoken < positions.stop)]
    prompts: dict[str, None] = {}
    for _, place in sorted([*first, (silent, -1)]):
        if place >= 0:
            prompts |= dict.fromkeys(words(table[rows[place]].prompt, rows[place]))
        elif silent < positions.stop:
            prompts[""] = None
    images: dict[Size | None, list[str]] = defaultdict(list)
    for place in np.flatnonzero(seen.any((1, 2))).tolist():
        pair = table[rows[place]]
        images[size(rows[place])] += [
            image_row(image, bool(flip))
            for flip in (0, 1)
            for side, image in enumerate((pair.winner, pair.loser))
            if seen[place, flip, side]
        ]
    return Coverage(list(prompts), images)


def coverage_of_samples(samples: Iterable[Sample]) -> Coverage:
    """Of single images, which come from anywhere."""
    prompts: dict[str, None] = {}
    visits: set[tuple[int, bool, int, str]] = set()
    for sample in samples:
        for one in sample.shown:
            prompts[one.prompt] = None
            visits.add((one.row, one.placement.flip, one.side, one.image))
    return Coverage(list(prompts), {None: [image_row(image, flip) for _, flip, _, image in sorted(visits)]})
