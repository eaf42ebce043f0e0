"""Each epoch is a permutation, and its own."""

import pytest
import torch

from smpo.data.stream.order import Order, dealt
from smpo.maths.draws import PositionDraws


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_each_epoch_visits_every_row_once(size: int) -> None:
    order = Order(0, size)
    for epoch in range(3):
        assert sorted(order(range(epoch * size, (epoch + 1) * size))) == list(range(size))


def test_epochs_and_seeds_differ() -> None:
    order = Order(0, 100)
    first = order(range(100))
    assert first != list(range(100)) != order(range(100, 200)) != first != Order(1, 100)(range(100))


def test_there_is_no_state() -> None:
    order, other = Order(5, 30), Order(5, 30)
    forwards = order(range(300))
    backwards = [other(range(position, position + 1))[0] for position in reversed(range(300))]
    assert forwards == backwards[::-1]


def test_rows_are_equally_likely_everywhere() -> None:
    counts = [0] * 6
    for seed in range(600):
        counts[Order(seed, 6)(range(1))[0]] += 1
    assert sum((count - 100) ** 2 / 100 for count in counts) < 20.5  # chi-square, 5 degrees: one in a thousand


def test_an_empty_table_has_no_order() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Order(0, 0)


def test_dealing_by_cost_is_even_and_loses_nobody():
    """The dearest of eight hands is within a hundredth of the mean; dealt blindly it is far above it."""
    cost = PositionDraws(0, range(1024)).uniform("timestep")
    hands = [dealt(cost, rank, 8) for rank in range(8)]
    assert sorted(i for hand in hands for i in hand) == list(range(1024))
    assert all(len(hand) == 128 and hand == sorted(hand) for hand in hands)
    sums = torch.stack([cost[hand].sum() for hand in hands])
    blind = cost.reshape(8, 128).sum(1)
    assert sums.max() < 1.01 * sums.mean() < 1.01 * blind.max() and blind.max() > 1.02 * blind.mean()
    assert dealt(cost[:6], 0, 1) == list(range(6))
