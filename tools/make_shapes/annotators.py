"""Simulated annotators: forty people of varied taste who vote on pairs, with noise, ties and contradictions.

An annotator's utility is a weighted sum of what the judge measures; the vote follows Bradley and Terry:

    P(first preferred) = sigmoid((u_first - u_second) / temperature),   a tie if |difference| < tie_width

Weights scatter around the mean taste, and a few contrarians like it small or pale. So labels disagree
with the mean taste for two reasons, as they do among people: chance, and other tastes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["MEAN_TASTE", "Annotator", "Vote", "collect_votes", "mean_utility", "panel"]

MEAN_TASTE: dict[str, float] = {"correct": 0.35, "size": 0.30, "centring": 0.15, "vivid": 0.20}
"""Average weight of each part of `judge.measure`; they sum to 1."""
SCATTER = 0.45
"""Standard deviation of the logarithm of a weight among annotators."""
CONTRARY_EVERY = 12
"""One annotator in so many dislikes what the others like about size or vividness."""
TEMPERATURE = 0.055
TIE_WIDTH = 0.015


@dataclass(frozen=True, slots=True)
class Annotator:
    """One person: what they care for, how sure they are, and when two pictures are the same to them."""

    user_id: int
    weights: Mapping[str, float]
    temperature: float
    tie_width: float

    def utility(self, measured: Mapping[str, float]) -> float:
        """How much this person likes a picture, given `judge.measure` of it."""
        return sum(weight * measured[part] for part, weight in self.weights.items())


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's answer about one pair: label_0 is 1 (first), 0 (second) or 0.5 (tie)."""

    user_id: int
    label_0: float


def panel(n: int = 40, seed: int = 0) -> list[Annotator]:
    """Draw the annotators; the same seed gives the same people."""
    generator = np.random.default_rng(seed)
    people = []
    for user_id in range(n):
        raw = {part: w * float(np.exp(SCATTER * generator.standard_normal())) for part, w in MEAN_TASTE.items()}
        total = sum(raw.values())
        weights = {part: w / total for part, w in raw.items()}
        if user_id % CONTRARY_EVERY == CONTRARY_EVERY - 1:
            disliked = "size" if generator.random() < 0.5 else "vivid"
            weights[disliked] *= -1.0
        sureness = float(np.exp(0.3 * generator.standard_normal()))
        tie_width = TIE_WIDTH * float(generator.uniform(0.5, 1.5))
        people.append(Annotator(user_id, weights, TEMPERATURE * sureness, tie_width))
    return people


def mean_utility(people: Sequence[Annotator], measured: Mapping[str, float]) -> float:
    """The panel's average utility: the taste that noisy labels are noisy about."""
    return float(np.mean([person.utility(measured) for person in people]))


def collect_votes(
    people: Sequence[Annotator],
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    n: int,
    generator: np.random.Generator,
) -> list[Vote]:
    """Votes of n different annotators on a pair."""
    votes = []
    for index in generator.choice(len(people), size=n, replace=False):
        person = people[int(index)]
        difference = person.utility(first) - person.utility(second)
        if abs(difference) < person.tie_width:
            label = 0.5
        else:
            label = float(generator.random() < 1.0 / (1.0 + np.exp(-difference / person.temperature)))
        votes.append(Vote(person.user_id, label))
    return votes
