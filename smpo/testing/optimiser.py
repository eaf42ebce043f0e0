"""What an optimiser promises."""

from __future__ import annotations

import copy

import pytest
import torch

from smpo.kinds import Optimiser
from smpo.testing.component import ComponentContract

__all__ = ["OptimiserContract"]


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
