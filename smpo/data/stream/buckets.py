"""Sizes for pictures that aren't square: both images of a pair get one, so that little is cut off either.

Which sizes there are follows from the model's resolution R, a step and the largest aspect a:

    {(h, w) : h, w multiples of step, 0.9 R^2 < h w <= R^2, max(h, w) <= a min(h, w)}

Every size costs the network about as many pixels as its square, and none more. At R = 1024, step 64 and a = 4 they are
the sizes SDXL was trained on (Podell et al. 2023, arXiv:2307.01952, appendix I), all of them and no others.

A pair goes by the mean of its images' log aspects. Thus the two are cut as little as one window for both allows, and
the rule treats tall and wide alike. The official code cuts squares out of everything (method 2b, D20).

Nothing here imports torch: `smpo plan` counts sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import lgamma
from typing import Any

import numpy as np

from smpo.errors import RunError
from smpo.kinds import PairTable

__all__ = [
    "Buckets",
    "Numbers",
    "Size",
    "bucket_sizes",
    "bucketed",
    "latents_key",
    "lost",
    "nearest",
    "portions",
]

Size = tuple[int, int]
"""Height and width in pixels."""

LEAST = 0.9
"""The smallest area of a bucket, as a share of the square's: SDXL's own."""

Numbers = np.ndarray[Any, Any]


def bucket_sizes(resolution: int, aspect: float, step: int) -> list[Size]:
    """The sizes of the formula above, from the tallest to the widest. The square is always among them."""
    most = resolution * resolution
    sides = range(step, int(resolution * aspect) + 1, step)
    found = {
        (height, width)
        for height in sides
        for width in sides
        if LEAST * most < height * width <= most and max(height, width) <= aspect * min(height, width)
    }
    return sorted(found | {(resolution, resolution)}, key=lambda size: size[1] / size[0])


def nearest(log_aspects: Numbers, sizes: Sequence[Size]) -> Numbers:
    """Index of the size whose shape is nearest, in log width / height. Of two equally near ones the first."""
    shapes = np.log([width / height for height, width in sizes])
    middles = (shapes[1:] + shapes[:-1]) / 2
    found: Numbers = np.searchsorted(middles, log_aspects, side="left")
    return found


def lost(log_aspects: Numbers, size: Size) -> Numbers:
    """Share of a picture that is cut away when it is scaled to cover `size`: 1 - exp(-|difference of log aspects|)."""
    kept: Numbers = np.exp(-np.abs(log_aspects - np.log(size[1] / size[0])))
    return 1 - kept


def latents_key(encoders: str, size: Size | None) -> str:
    """Under which latents of a size are filed; the model's own square (None) needs no further name."""
    return encoders if size is None else f"{encoders} {size[0]}x{size[1]}"


def portions(counts: Iterable[int], pairs: int, micro: int) -> float:
    """How many micro-batches of one size an update of so many pairs takes, on average: the sum over buckets of
    E[ceil(n / micro)], n ~ Binomial(pairs, share of the bucket). `counts` are pairs of the table by bucket."""
    counts = list(counts)
    n = np.arange(pairs + 1)
    ways = np.array([lgamma(pairs + 1) - lgamma(k + 1) - lgamma(pairs - k + 1) for k in n])
    total = 0.0
    for count in counts:
        share = count / sum(counts)
        if share == 1:
            return float(-(-pairs // micro))
        likely = np.exp(ways + n * np.log(share) + (pairs - n) * np.log1p(-share))
        total += float((likely * -(-n // micro)).sum())
    return total


@dataclass(frozen=True)
class Buckets:
    """`sizes` (None: the model's own square) and `of_row` `[M]`: which of them each pair of a table has."""

    sizes: Sequence[Size | None]
    of_row: Numbers

    def size(self, row: int) -> Size | None:
        return self.sizes[int(self.of_row[row])]

    def counts(self) -> dict[int, int]:
        """Pairs by the number of their bucket, where there are some."""
        numbers, counts = np.unique(self.of_row, return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def bucketed(table: PairTable, sizes: Sequence[Size], resolution: int) -> Buckets:
    """Give each pair its bucket. Raises `RunError` for a table that doesn't know the shapes of its pictures."""
    aspects = getattr(table, "log_aspects", None)
    if aspects is None:
        raise RunError("this data set doesn't know the shapes of its pictures", help="leave out `data.buckets`")
    square = (resolution, resolution)
    return Buckets([None if size == square else size for size in sizes], nearest(aspects(), sizes))
