"""What an objective promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from smpo.kinds import Objective, Predicted
from smpo.maths.schedule import NoiseSchedule
from smpo.testing.component import ComponentContract

__all__ = ["ObjectiveContract"]

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
