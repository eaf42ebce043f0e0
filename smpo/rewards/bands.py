"""Sanity bands: where the scores of published weights have been seen to lie.

A wrong preprocessing, a wrong checkpoint or a factor of a hundred give numbers that look like scores. Most of them lie
far outside what others report, which is worth one warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from smpo.kinds import Scorer

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["BandedScorer", "banded"]

log = logging.getLogger(__name__)

ENOUGH = 16
"""Scores that must be seen before a warning."""
SHARE = 0.5
"""Share of scores outside the band from which on there is a warning: single odd pictures are normal."""


class BandedScorer:
    """A `kinds.Scorer` that passes scores through unchanged and warns, once, when most leave `band`."""

    def __init__(self, scorer: Scorer, band: tuple[float, float], name: str) -> None:
        self.key = scorer.key
        self.scorer = scorer
        self._band, self._name = band, name
        self._seen = self._outside = 0
        self._said = False

    @property
    def embed(self) -> Callable[[Sequence[Picture]], Tensor] | None:
        """The scorer's own, if it has one."""
        found: Callable[[Sequence[Picture]], Tensor] | None = getattr(self.scorer, "embed", None)
        return found

    @property
    def preprocess(self) -> Callable[[Picture], Any] | None:
        """The scorer's own, if it has one."""
        return getattr(self.scorer, "preprocess", None)

    @property
    def to(self) -> Callable[[Any], None] | None:
        """The scorer's own, if it has one."""
        return getattr(self.scorer, "to", None)

    @property
    def dtype(self) -> Any:
        """The scorer's own; float32 where it has none."""
        return getattr(self.scorer, "dtype", "float32")

    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        return self._seen_through(self.scorer(pictures, prompts))

    def score(self, inputs: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        """Of what `preprocess` returned."""
        return self._seen_through(self.scorer.score(inputs, prompts))  # type: ignore[attr-defined]

    def _seen_through(self, scores: Tensor) -> Tensor:
        low, high = self._band
        self._seen += len(scores)
        self._outside += int(((scores < low) | (scores > high)).sum())
        if not self._said and self._seen >= ENOUGH and self._outside > SHARE * self._seen:
            self._said = True
            log.warning(
                "%d of the first %d scores of %s lie outside %g to %g, where published ones lie (the last batch: "
                "%.4g to %.4g); are weights, preprocessing and pictures what they should be?",
                self._outside, self._seen, self._name, low, high, float(scores.min()), float(scores.max()),
            )  # fmt: skip
        return scores


def banded(scorer: Scorer, band: tuple[float, float] | None, name: str) -> Scorer:
    """The scorer, watched if there is a band to watch."""
    return scorer if band is None else BandedScorer(scorer, band, name)
