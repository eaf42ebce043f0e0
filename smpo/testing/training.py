"""What objectives, smoothings and optimisers promise."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from smpo.kinds import Objective, Optimiser, Predicted, ScoreStats, Smoothing
from smpo.maths.schedule import NoiseSchedule
from smpo.testing.component import ComponentContract

__all__ = ["ObjectiveContract", "OptimiserContract", "SmoothingContract"]

PAIRS = 5


class ObjectiveContract(ComponentContract):
    """A loss and a margin for each pair, which look at nothing but the predictions for it."""

    @pytest.fixture
    def predicted(self, component: Objective) -> Predicted:
        """Predictions near the reference, float64 `[2 * levels * 5, 2, 3, 3]`, for the objective's `sampling`."""
        generator = torch.Generator().manual_seed(0)
        levels = component.levels_per_pair()
        rows = 2 * levels * PAIRS
        target, reference, step = torch.randn(3, rows, 2, 3, 3, generator=generator, dtype=torch.float64)
        t = torch.randint(50, 950, (levels * PAIRS,), generator=generator).repeat(2)
        desirable = None
        if component.sampling().desirable is not None:
            desirable = torch.tensor([True, False] * PAIRS)
        return Predicted(
            target,
            reference + 0.01 * step,
            reference,
            t,
            abar=NoiseSchedule.scaled_linear().alphas_cumprod[t],
            levels=levels,
            desirable=desirable,
        )

    @pytest.fixture
    def p(self, component: Objective) -> Tensor:
        """`[5]`: sure, doubtful, a tie, and a reward that disagrees with the vote."""
        if component.sampling().desirable is not None:
            return torch.ones(PAIRS, dtype=torch.float64)
        return torch.tensor([1.0, 0.7, 0.5, 0.2, 0.0], dtype=torch.float64)

    @staticmethod
    def see(component: Objective, predicted: Predicted, p: Tensor) -> Predicted:
        """With the objective's means over the update, as the engine adds them."""
        if not component.needs_means:
            return predicted
        means = {name: value.detach().mean() for name, value in component.batch_means(predicted, p).items()}
        return replace(predicted, means=means)

    def test_it_gives_a_loss_and_a_margin_for_each_pair(
        self, component: Objective, predicted: Predicted, p: Tensor
    ) -> None:
        out = component(self.see(component, predicted, p), p)
        for name, value in {"loss": out.loss, "margin": out.margin, **out.metrics}.items():
            assert value.shape == (PAIRS,), f"{name} is unreduced: the engine owns averaging"
            assert bool(value.isfinite().all()), name

    def test_only_the_policy_learns(self, component: Objective, predicted: Predicted, p: Tensor) -> None:
        policy = predicted.policy.clone().requires_grad_()
        seen = self.see(component, replace(predicted, policy=policy), p)
        out = component(seen, p)
        out.loss.sum().backward()
        assert policy.grad is not None and bool(policy.grad.isfinite().all())
        assert float(policy.grad.abs().sum()) > 0

    def test_a_pair_does_not_depend_on_its_company(self, component: Objective, predicted: Predicted, p: Tensor) -> None:
        seen, order = self.see(component, predicted, p), torch.tensor([3, 0, 4, 1, 2])
        groups = 2 * predicted.levels
        rows = torch.cat([order + PAIRS * group for group in range(groups)])
        moved = replace(
            seen,
            target=seen.target[rows],
            policy=seen.policy[rows],
            reference=seen.reference[rows],
            t=seen.t[rows],
            abar=None if seen.abar is None else seen.abar[rows],
            desirable=None if seen.desirable is None else seen.desirable[rows],
        )
        torch.testing.assert_close(
            component(moved, p[order]).loss, component(seen, p).loss[order], rtol=1e-9, atol=1e-12
        )

    def test_which_image_comes_first_does_not_matter(
        self, component: Objective, predicted: Predicted, p: Tensor
    ) -> None:
        """`p` has the preference."""
        if not component.sampling().paired:
            pytest.skip("sees single images")
        seen = self.see(component, predicted, p)
        torch.testing.assert_close(
            component(seen.swapped(), 1 - p).loss, component(seen, p).loss, rtol=1e-9, atol=1e-12
        )

    def test_its_loss_at_the_reference_is_the_one_it_declares(
        self, component: Objective, predicted: Predicted, p: Tensor
    ) -> None:
        """The engine stops a run whose first loss is another: policy and reference would not agree."""
        same = replace(predicted, policy=predicted.reference)
        expected = component.at_reference
        if expected is not None:
            loss = component(self.see(component, same, p), p).loss
            torch.testing.assert_close(loss, torch.full_like(loss, expected), rtol=0, atol=1e-9)

    def test_it_looks_at_the_reference_only_if_it_says_so(
        self, component: Objective, predicted: Predicted, p: Tensor
    ) -> None:
        if not component.needs_reference:
            blind = replace(predicted, reference=torch.full_like(predicted.reference, torch.nan))
            assert bool(component(self.see(component, blind, p), p).loss.isfinite().all())

    def test_it_is_pure(self, component: Objective, predicted: Predicted, p: Tensor) -> None:
        seen = self.see(component, predicted, p)
        before = predicted.policy.clone()
        assert torch.equal(component(seen, p).loss, component(seen, p).loss)
        assert torch.equal(before, predicted.policy)


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
        assert all(torch.equal(x, y) or bool(x.isnan().all()) for x, y in zip(before, table[:3], strict=True))

    def test_certain_means_certain(self, component: Smoothing, table: Table) -> None:
        if component.is_hard:
            assert set(component(*table).tolist()) <= {0.0, 0.5, 1.0}

    def test_statistics_that_are_not_needed_are_not_used(self, component: Smoothing, table: Table) -> None:
        """Then they aren't known either: only the pairs that are visited were scored."""
        nothing = ScoreStats(float("nan"), float("nan"), 0, float("nan"), float("nan"))
        if not component.needs_statistics:
            assert torch.equal(component(*table[:3], nothing), component(*table))


class OptimiserContract(ComponentContract):
    """A torch optimiser that goes downhill, obeys the learning rate, and can be saved."""

    @pytest.fixture
    def lr(self) -> float:
        """A learning rate that suits a bowl of a few units."""
        return 0.05

    @staticmethod
    def descend(rule: torch.optim.Optimizer, weights: torch.nn.Parameter, steps: int) -> None:
        for _ in range(steps):
            rule.zero_grad()
            weights.square().sum().backward()
            rule.step()

    @staticmethod
    def start() -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.tensor([[3.0, -2.0], [1.0, 4.0]]))

    def test_it_goes_downhill(self, component: Optimiser, lr: float) -> None:
        weights = self.start()
        before = float(weights.detach().square().sum())
        self.descend(component.build([weights], lr), weights, 50)
        assert float(weights.detach().square().sum()) < 0.5 * before

    def test_its_learning_rate_is_where_the_schedule_changes_it(self, component: Optimiser, lr: float) -> None:
        weights = self.start()
        rule = component.build([weights], lr)
        assert [group["lr"] for group in rule.param_groups] == [lr]
        for group in rule.param_groups:
            group["lr"] = 0.0
        self.descend(rule, weights, 1)
        assert torch.equal(weights, self.start()), "with a learning rate of 0 nothing moves"

    def test_it_goes_on_where_it_was_saved(self, component: Optimiser, lr: float) -> None:
        weights = self.start()
        rule = component.build([weights], lr)
        self.descend(rule, weights, 3)
        twin = torch.nn.Parameter(weights.detach().clone())
        other = component.build([twin], lr)
        other.load_state_dict(copy.deepcopy(rule.state_dict()))
        self.descend(rule, weights, 3)
        self.descend(other, twin, 3)
        assert torch.equal(weights, twin)
