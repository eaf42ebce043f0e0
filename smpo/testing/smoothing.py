"""What a smoothing promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from smpo.kinds import ScoreStats, Smoothing
from smpo.testing.component import ComponentContract

__all__ = ["SmoothingContract"]

Table = tuple[Tensor, Tensor, Tensor, ScoreStats]


class SmoothingContract(ComponentContract):
    """A probability for each pair, which doesn't depend on what the two images are called."""

    @pytest.fixture
    def table(self, component: Any) -> Table:
        """`(winner, loser, share, stats)`: scores in float64, some equal, and shares of votes."""
        generator = torch.Generator().manual_seed(0)
        winner, loser = torch.randn(2, 200, generator=generator, dtype=torch.float64)
        winner[:10] = loser[:10]
        share = torch.tensor([0.5, 2 / 3, 1.0, 1.0], dtype=torch.float64).repeat(50)
        both = torch.cat([winner, loser])
        stats = ScoreStats(float(both.min()), float(both.max()), 400, float(both.mean()), float(both.std()))
        if not component.needs_reward:
            winner, loser = torch.full_like(winner, torch.nan), torch.full_like(loser, torch.nan)
        return winner, loser, share, stats

    def test_it_gives_probabilities(self, component: Smoothing, table: Table) -> None:
        p = component(*table)
        assert p.shape == table[2].shape and p.is_floating_point()
        assert bool((p >= 0).all() and (p <= 1).all()), "also no NaN"

    def test_swapping_the_pair_gives_one_minus_it(self, component: Smoothing, table: Table) -> None:
        """Which image is called the winner is a convention of storage."""
        winner, loser, share, stats = table
        p, q = component(winner, loser, share, stats), component(loser, winner, 1 - share, stats)
        torch.testing.assert_close(p + q, torch.ones_like(p), rtol=0, atol=1e-9)

    def test_a_better_winner_wins_no_less_surely(self, component: Smoothing, table: Table) -> None:
        winner, loser, share, stats = table
        assert bool((component(winner + 0.1, loser, share, stats) >= component(*table) - 1e-12).all())

    def test_a_pair_does_not_depend_on_its_company(self, component: Smoothing, table: Table) -> None:
        """Whatever belongs to the whole table comes through `stats`."""
        winner, loser, share, stats = table
        some = torch.tensor([7, 3, 120])
        alone = component(winner[some], loser[some], share[some], stats)
        torch.testing.assert_close(alone, component(*table)[some], rtol=0, atol=1e-12)

    def test_it_is_pure(self, component: Smoothing, table: Table) -> None:
        before = [x.clone() for x in table[:3]]
        first = component(*table)
        assert torch.equal(first, component(*table))
        assert all(
            torch.equal(
                x,
                y,
            )
            or bool(x.isnan().all())
            for x, y in zip(before, table[:3], strict=True)
        )

    def test_certain_means_certain(self, component: Smoothing, table: Table) -> None:
        if component.is_hard:
            assert set(component(*table).tolist()) <= {0.0, 0.5, 1.0}

    def test_statistics_that_are_not_needed_are_not_used(self, component: Smoothing, table: Table) -> None:
        """Then they aren't known either: only the pairs that are visited were scored."""
        nothing = ScoreStats(float("nan"), float("nan"), 0, float("nan"), float("nan"))
        if not component.needs_statistics:
            assert torch.equal(component(*table[:3], nothing), component(*table))
