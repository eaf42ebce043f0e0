"""Several rewards as one.

A scorer sees one picture at a time: its score may depend on nothing else, or caches and batches would change it. So
ranks and votes are taken against a *population* that is fixed beforehand, one for each member:

    sum     Σ w · (r - centre) / scale                      / Σ w
    rank    Σ w · F(r)                                      / Σ w     F: share of the population below r, in [0, 1]
    vote    Σ w · ([r > centre] + [r = centre]/2)           / Σ w     share that finds the picture better than usual

With *both* pictures of a pair at hand no population is needed, and there is nothing to choose: of two pictures one
is first and one is second, so the average of ranks and the share of votes are one number,

    preference(a, b) = Σ w · ([r(a) > r(b)] + [r(a) = r(b)]/2)  / Σ w

and the majority is the side of one half on which it lies. It is not a difference of scores of any kind (three members
can prefer a to b, b to c and c to a), which is why `prefer` is a function of pairs and `__call__` is not derived from
it. Likelihood smoothing needs a score a picture: give it `sum` or `rank`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from smpo.kinds import Scorer

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["EnsembleScorer", "How", "Population", "majority", "preference"]

How = Literal["sum", "rank", "vote"]
_VERSION = "ensemble/1"


@dataclass(frozen=True)
class Population:
    """What is usual for a member. `knots`: scores at equal steps of quantile, from the 0th to the 100th percentile."""

    weight: float = 1.0
    centre: float = 0.0
    scale: float = 1.0
    knots: tuple[float, ...] = ()

    def quantile(self, scores: Tensor) -> Tensor:
        """Share of the population below, `[N]` in [0, 1]: straight lines between knots, flat outside."""
        knots = torch.tensor(self.knots, dtype=torch.float64)
        levels = torch.linspace(0, 1, len(knots), dtype=torch.float64)
        x = scores.double().clamp(knots[0], knots[-1])
        right = torch.searchsorted(knots, x).clamp(1, len(knots) - 1)
        below, above = knots[right - 1], knots[right]
        found: Tensor = levels[right - 1] + (x - below) / (above - below) * (levels[1] - levels[0])
        return found


def preference(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """`[K, M]` scores of K members for two pictures each, `[K]` weights: `[M]` share that prefers the first."""
    sides = (first > second).double() + 0.5 * (first == second).double()
    found: Tensor = weights.double() @ sides / weights.double().sum()
    return found


def majority(share: Tensor) -> Tensor:
    """1 where most prefer the first, 0 where most prefer the second, 1/2 where the votes are even."""
    return (share > 0.5).to(share.dtype) + 0.5 * (share == 0.5).to(share.dtype)


class EnsembleScorer:
    """A `kinds.Scorer` of scorers. Members' scores are taken as they come, in the order given."""

    def __init__(self, members: Sequence[tuple[Scorer, Population]], how: How) -> None:
        for _, one in members:
            if how == "rank" and (len(one.knots) < 2 or any(a >= b for a, b in pairwise(one.knots))):
                raise ValueError("ranks need a population: at least two knots, rising")
        self._members, self._how = tuple(members), how
        facts = [_VERSION, how, [[scorer.key, asdict(one)] for scorer, one in members]]
        self.key = f"ensemble/{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}"

    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        """`[N]` float32 on the CPU."""
        return self.combined(self.members(pictures, prompts))

    @property
    def parts(self) -> tuple[Scorer, ...]:
        """The members; a store that has their scores calls only `combined`."""
        return tuple(scorer for scorer, _ in self._members)

    def combined(self, scores: Tensor) -> Tensor:
        """`[K, N]` scores of the members -> `[N]` float32, the ensemble's."""
        parts = [
            one.weight * self._part(one, row) for (_, one), row in zip(self._members, scores.double(), strict=True)
        ]
        total = sum(one.weight for _, one in self._members)
        found: Tensor = (torch.stack(parts).sum(0) / total).float()
        return found

    def to(self, device: Any) -> None:
        """Move the members that can be moved."""
        for scorer, _ in self._members:
            if move := getattr(scorer, "to", None):
                move(device)

    def members(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        """`[K, N]` float32: each member's scores."""
        return torch.stack([scorer(pictures, prompts) for scorer, _ in self._members])

    def prefer(self, first: Sequence[Picture], second: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        """`[M]` float64: the share of the members, by weight, that prefers the first picture of each pair."""
        weights = torch.tensor([one.weight for _, one in self._members])
        return preference(self.members(first, prompts), self.members(second, prompts), weights)

    def _part(self, one: Population, scores: Tensor) -> Tensor:
        if self._how == "sum":
            return (scores - one.centre) / one.scale
        if self._how == "rank":
            return one.quantile(scores)
        return (scores > one.centre).double() + 0.5 * (scores == one.centre).double()
