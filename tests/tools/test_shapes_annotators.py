"""Annotators disagree as much as people do, and for the same two reasons."""

from collections.abc import Mapping

import numpy as np
import pytest

from tools.make_shapes.annotators import Annotator, collect_votes, mean_utility, panel

Measured = Mapping[str, float]


def pictures(n: int, seed: int) -> list[dict[str, float]]:
    """Measurements like the base's: nearly always correct, everything else varied."""
    numbers = np.random.default_rng(seed)
    return [
        {
            "correct": float(numbers.uniform(0.9, 1.0)),
            "size": float(numbers.uniform(0.25, 1.0)),
            "centring": float(numbers.uniform(0.05, 0.95)),
            "vivid": float(numbers.uniform(0.2, 1.0)),
        }
        for _ in range(n)
    ]


def test_label_noise_is_like_that_of_people() -> None:
    people, numbers = panel(), np.random.default_rng(0)
    flips, ties = [], 0
    for first, second in zip(pictures(1500, 1), pictures(1500, 2), strict=True):
        (vote,) = collect_votes(people, first, second, n=1, generator=numbers)
        if vote.label_0 == 0.5:
            ties += 1
        else:
            better = mean_utility(people, first) > mean_utility(people, second)
            flips.append((vote.label_0 == 1.0) != better)
    assert 0.12 < np.mean(flips) < 0.27
    assert 0.03 < ties / 1500 < 0.2


def test_most_like_it_big_and_a_few_do_not() -> None:
    people = panel()
    small_or_pale = [p for p in people if min(p.weights.values()) < 0]
    assert 1 <= len(small_or_pale) <= 0.15 * len(people)
    assert len({round(p.weights["size"], 6) for p in people}) == len(people)


def test_the_same_seed_gives_the_same_people_and_votes() -> None:
    first, second = pictures(2, 3)
    ballots = [collect_votes(panel(seed=4), first, second, n=5, generator=np.random.default_rng(6)) for _ in range(2)]
    assert ballots[0] == ballots[1]
    assert len({vote.user_id for vote in ballots[0]}) == 5


@pytest.mark.parametrize(("difference", "expected"), [(0.0, 0.5), (5.0, 1.0), (-5.0, 0.0)])
def test_equal_pictures_tie_and_clear_ones_are_clear(difference: float, expected: float) -> None:
    person = Annotator(user_id=0, weights={"size": 1.0}, temperature=0.05, tie_width=0.01)
    first: Measured = {"size": difference}
    (vote,) = collect_votes([person], first, {"size": 0.0}, n=1, generator=np.random.default_rng(0))
    assert vote.label_0 == expected
